# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool make`` writes what its options say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mfdtool.cli import run
from mfdtool.cli.make_options import parse_device, parse_order, parse_size
from mfdtool.fixtures.defects import DEFECTS
from mfdtool.fixtures.plan import ORDERS, DevicePacket
from mfdtool.packets.info import CaptureInfo
from mfdtool.packets.pcap import is_pcap
from mfdtool.packets.pcapng import is_pcapng, read
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.main_stream import Configuration
from mfdtool.wire.multifd import MultiFDPacketFixed
from mfdtool.wire.vfio import DeviceStateHeader
from tests.support.decoding import decode_scalar

Make = Callable[..., bytes]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Give a function that runs ``make`` and gives the file's content."""

    def make(*options: str) -> bytes:
        path = tmp_path / "made.pcapng"
        assert run(["make", "-o", str(path), *options]) == 0
        return path.read_bytes()

    return make


def packets(frames: list[Frame]) -> list[DeviceStateHeader]:
    return [frame.value for frame in frames if isinstance(frame.value, DeviceStateHeader)]


def test_the_example(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    capture = made(
        *("--channels", "8", "--device", "0000:00:05.0/vfio:64K", "--chunk", "1K"),
        *("--order", "reverse", "--defect", "duplicate-idx:3"),
    )
    headers = packets(decode_scalar(capture))
    idx = [header.idx for header in headers]
    assert sorted(idx) == sorted([*range(65), 3])
    assert idx[:8] == [7, 15, 23, 31, 39, 47, 55, 63]
    assert idx[-9:] == [0, 8, 16, 24, 32, 40, 48, 56, 64]
    assert {header.next_packet_size for header in headers if not header.is_config} == {1036}
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith(
        "made.pcapng: 9 connections, 1 device, 66 device packets;"
        " QEMU 10.0, seed 0; duplicate-idx:3 breaks MFD211 idx-duplicate\n"
    )
    info = CaptureInfo()
    assert len(list(read(memoryview(capture), info=info))) > 0
    assert info.comments[0].text == (
        "QEMU 10.0, seed 0; duplicate-idx:3 breaks MFD211 idx-duplicate"
    )


def test_the_same_options_give_the_same_bytes(made: Make) -> None:
    assert made() == made("--seed", "0")
    assert made() != made("--seed", "1")
    assert made("--random") == made("--random")


def test_json_says_what_a_destination_should_get(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "made.pcapng"
    status = run(
        [
            *("make", "--json", "-o", str(path), "--device", "00:05.0:3K,precopy=1K"),
            *("--device", "0000:00:06.0/vfio:1K,transfer=off", "--chunk", "1K"),
            *(
                "--defect",
                "config-missing@0000:00:05.0/vfio",
                "--lost",
                "0.05",
                "--profile",
                "11.1",
            ),
        ]
    )
    assert status == 0
    document = json.loads(capsys.readouterr().out)
    frames = decode_scalar(path.read_bytes())
    lost = sum(frame.missing for frame in frames if frame.kind is Kind.GAP)
    assert sum(document.pop("lost").values()) == lost > 0
    first, second = document.pop("devices")
    assert (first["idstr"], first["buffers"], first["bytes"]) == ("0000:00:05.0/vfio", 3, 4096)
    assert (second["idstr"], second["buffers"], second["bytes"]) == ("0000:00:06.0/vfio", 1, 1024)
    assert len(first["sha256"]) == 64
    assert document.pop("records") > 50
    assert document.pop("frames")["return-path"] == 2
    assert document == {
        "format": 1,
        "profile": "11.1",
        "machine": "pc-i440fx-11.1",
        "seed": 0,
        "page_size": 4096,
        "multifd_channels": 4,
        "defects": [
            {
                "defect": "config-missing@0000:00:05.0/vfio",
                "rule": "MFD221",
                "name": "config-missing",
                "severity": "error",
            }
        ],
    }


def test_the_digest_is_that_of_the_state(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = str(tmp_path / "made.pcap")
    run(["make", "--json", "-o", path, "--device", "00:05.0:10K,precopy=3K", "--chunk", "1K"])
    document = json.loads(capsysbinary.readouterr().out)
    assert is_pcap(Path(path).read_bytes())
    assert run(["extract", path, "--device", "00:05.0"]) == 0
    data = capsysbinary.readouterr().out
    assert hashlib.sha256(data).hexdigest() == document["devices"][0]["sha256"]


def test_raw_streams(tmp_path: Path) -> None:
    directory = tmp_path / "streams"
    assert run(["make", "--format", "raw", "--channels", "2", "-o", str(directory)]) == 0
    files = {path.name: path.read_bytes()[:4] for path in directory.iterdir()}
    assert files == {
        "main": b"QEVM",
        "return-path": b"\0\2\0\4",
        "multifd-0": b"\x11\x22\x33\x44",
        "multifd-1": b"\x11\x22\x33\x44",
    }
    assert run(["info", "--main", str(directory / "main")]) == 0


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["make", "-o", "-"]) == 0
    assert is_pcapng(capfdbinary.readouterr().out)


def test_a_terminal_gets_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["make", "-o", "-"]) == 2


def test_options_of_the_migration(made: Make) -> None:
    frames = decode_scalar(
        made(
            *("--page-size", "65536", "--rounds", "3", "--pages", "9", "--ram", "1M"),
            *("--device", "00:07.0:0,config=256,vectors=3,instance=2,channels=1+0", "--late", "1"),
            *("--machine", "virt-10.1", "--profile", "10.1", "--switchover-ack"),
        )
    )
    (configuration,) = [f.value for f in frames if isinstance(f.value, Configuration)]
    assert configuration.name == "virt-10.1"
    ram = [frame.value for frame in frames if frame.kind is Kind.MULTIFD_RAM]
    counts = [value.normal_pages for value in ram if isinstance(value, MultiFDPacketFixed)]
    assert sorted(counts) == [1, 1, 1, 8, 8, 8]
    (header,) = packets(frames)
    assert (header.idstr_text, header.instance_id, header.idx) == ("0000:00:07.0/vfio", 2, 0)
    assert header.next_packet_size == 12 + 16 + 4 + 256 + 16 + 48 + 1
    (frame,) = [frame for frame in frames if frame.value is header]
    assert frame.channel.name == "multifd-1"


def test_options_of_the_network(made: Make) -> None:
    capture = made(
        *("--ipv6", "--vlan", "5", "--vlan", "6", "--port", "5555", "--snaplen", "200"),
        *("--segment-size", "100", "--ragged", "--interleaved", "5", "--reordered", "0.1"),
        *("--retransmitted", "0.1", "--first-sequence", "4294967290"),
    )
    assert (5555).to_bytes(2, "big") in capture
    assert bytes.fromhex("81000005 81000006 86dd".replace(" ", "")) in capture
    frames = decode_scalar(capture)
    assert not any(frame.missing for frame in frames)
    assert len(packets(frames)) == 2


def test_without_multifd(made: Make) -> None:
    options = ("--channels", "0", "--device", "00:05.0:1K,transfer=off", "--no-return-path")
    frames = decode_scalar(made(*options, "--one-sided"))
    assert {frame.channel.name for frame in frames} == {"main"}


@pytest.mark.parametrize("options", [("--channels", "0"), ("--compression", "zlib")])
def test_a_device_has_no_multifd_transfer_where_there_can_be_none(
    made: Make, options: tuple[str, ...]
) -> None:
    frames = decode_scalar(made(*options))
    assert packets(frames) == []
    records = [frame.value for frame in frames if isinstance(frame.value, MarkerRecord)]
    assert max(record.data_length for record in records) == 64 << 10


def test_a_random_migration(made: Make) -> None:
    frames = decode_scalar(made("--random", "--seed", "7"))
    assert {frame.kind for frame in frames} >= {Kind.MAIN_HEADER, Kind.MAIN_EOF}


def test_defects_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["make", "--list-defects"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(DEFECTS)
    assert lines[0].split() == [
        *("duplicate-idx", "MFD211", "error", "Send", "a", "data", "packet", "once", "more,"),
        *("on", "the", "next", "channel."),
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--defect", "nonsense"], "no defect 'nonsense'"),
        (["--defect", "missing-idx:9"], "missing-idx: the migration has no data packet"),
        (["--order", "sideways"], "no order 'sideways'"),
        (["--device", "eth0"], "'eth0' is not IDSTR[:SIZE]"),
        (["--device", "00:05.0:many"], "'many' is not a size"),
        (["--device", "00:05.0,colour=red"], "'colour' is none of precopy,"),
        (["--device", "00:05.0,transfer=perhaps"], "'perhaps' is neither on nor off"),
        (["--device", "00:05.0,config-after-iter=on"], "QEMU 10.1"),
        (["--device", "00:05.0,vectors=9999"], "at most 2048 vectors"),
        (["--device", "00:05.0:2G"], "bytes of state and pages"),
        (["--chunk", "0"], "a chunk has 1 to"),
        (["--pages", "9000"], "pc.ram has no 9000 pages"),
        (["--channels", "0", "--device", "00:05.0,transfer=on"], "multifd transfer needs"),
        (["--snaplen", "4294967296"], "4294967296 is not in the range"),
        (["--lost", "nan"], "'nan' is not a number"),
        (["--machine", "pc-\u00e9"], "name: not printable ASCII"),
        (["--device", "00:05.0,instance=4294967296"], "instance_id: "),
        (["--random", "--channels", "3"], "--channels does not go with --random"),
        (["--random", "--device", "00:05.0"], "--device does not go with --random"),
        (["-o", "-", "--json"], "standard output takes one capture"),
        (["-o", "-", "--format", "raw"], "standard output takes one capture"),
    ],
)
def test_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    path = tmp_path / "made.pcapng"
    assert run(["make", "-o", str(path), *options]) == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert not path.exists()


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["make", "-o", str(tmp_path / "missing" / "made.pcapng")]) == 5
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64K", 65536), ("3M", 3 << 20), ("2G", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000:00:05.0/vfio", ("0000:00:05.0/vfio", 65536)),
        ("0000:00:05.0/vfio:64M", ("0000:00:05.0/vfio", 64 << 20)),
        ("00:05.0", ("0000:00:05.0/vfio", 65536)),
        ("0001:00:05.0:4K", ("0001:00:05.0/vfio", 4096)),
        ("0000:00:02.0:00.0/vfio:1K", ("0000:00:02.0:00.0/vfio", 1024)),
    ],
)
def test_devices(text: str, expected: tuple[str, int]) -> None:
    spec = parse_device(text)
    assert (spec.idstr, spec.size) == expected


def test_orders() -> None:
    packet: Any = DevicePacket(device=0, idx=1, count=2, channel=0)
    assert parse_order("reverse") is ORDERS["reverse"]
    assert parse_order("random:7").rank(packet) == parse_order("random:7").rank(packet)
    assert parse_order("random:7").rank(packet) != parse_order("random:8").rank(packet)
