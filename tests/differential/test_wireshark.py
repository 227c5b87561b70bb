# SPDX-License-Identifier: GPL-2.0-or-later
"""The real tshark with the generated dissector against decode: same packets, same values.

Needs tshark (``apt install tshark``). Without it these tests are skipped, or with
``MFDTOOL_REQUIRE_LAB=1`` in the environment they fail.
"""

from __future__ import annotations

import gzip
import random
import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.fixtures.defects import DEFECTS
from mfdtool.report.wireshark import wireshark_script
from mfdtool.report.wireshark_tables import CHECKED_RULES
from mfdtool.stream.frames import Kind
from mfdtool.wire.constants import Command, RamFlag
from mfdtool.wire.main_stream import PostcopyAdvise
from mfdtool.wire.vfio import DeviceData
from mfdtool.workflows.reading import Input, Reading
from tests.support import captures
from tests.support.connections import capture_of
from tests.support.programs import need_program
from tests.support.streams import DEVICE, RAM_EOS, command, counted, main_start, start, word
from tests.support.transcripts import execute, link_captures
from tests.support.tshark import (
    NOT_SENT,
    Shown,
    rules_shown,
    run_tshark,
    shown_by_decode,
    shown_by_tshark,
    without,
)
from tests.support.vectors import VECTORS

DOCUMENT = Path(__file__).parents[2] / "docs" / "wireshark.md"
BLOCK = re.compile(r"^```\n\$ (tshark [^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)
GOLDEN = Path(__file__).parents[1] / "golden" / "wireshark"
LISTED = ("mtty-2dev-2ch-holes", "mtty-8ch-ipv6")
"""Captures of which the list of packets that tshark shows is kept, for tests without tshark."""

RAM = sorted(path.name.split(".")[0] for path in captures.CAPTURES.glob("ram-*.pcap.gz"))
"""Captures of other ways to send RAM: postcopy, XBZRLE, compressed pages and more."""

ODD = sorted(VECTORS.glob("m*.pcap.gz"))
"""Main streams that are not as QEMU sends them, as real destinations got them."""

TWO_PASSES = ("-2",)
REORDERING = ("-o", "tcp.reassemble_out_of_order:TRUE")
PASSES = pytest.mark.parametrize("passes", [(), TWO_PASSES], ids=["one-pass", "two-passes"])

MADE = {
    "plain": [],
    "long packets": ["--channels", "8", "--device", "00:05.0:3M", "--order", "reverse"],
    "64 KiB pages": ["--page-size", "65536", "--rounds", "3", "--pages", "9", "--ram", "1M"],
    "16 KiB pages": ["--page-size", "16384", "--switchover-ack", "--profile", "11.1"],
    "zlib": ["--compression", "zlib", "--device", "00:05.0:64K,transfer=off,precopy=3K"],
    "without multifd": ["--channels", "0", "--device", "00:05.0:64K"],
    "tiny segments": ["--segment-size", "37", "--ragged", "--device", "00:07.0:10K,vectors=3"],
    "first segments without a magic": [
        "--segment-size",
        "3",
        "--ragged",
        "--channels",
        "1",
        "--ram",
        "1M",
        "--pages",
        "1",
        "--device",
        "00:05.0:1,transfer=off",
    ],
    # One of them ends where it takes the byte behind it to tell that the configuration ends.
    "segments of 7 bytes": [
        "--segment-size",
        "7",
        "--channels",
        "1",
        "--ram",
        "1M",
        "--pages",
        "1",
    ],
    "jumbo segments": ["--segment-size", "65475", "--device", "00:05.0:4M"],
    "load ready": ["--profile", "10.1", "--device", "00:05.0:9K,config-after-iter=on"],
    "sequence wraps": ["--first-sequence", "4294960000"],
    "IPv6, VLAN, one side": ["--vlan", "5", "--ipv6", "--one-sided"],
    "snaplen 200": ["--snaplen", "200"],
    "lost segments": ["--lost", "0.02"],
    "random": ["--random", "--seed", "3"],
}


def made(directory: Path, *options: str) -> Path:
    """Make a capture."""
    path = directory / "made.pcap"
    assert run(["make", "-o", str(path), *options]) == 0
    return path


def decoded(path: Path) -> Shown:
    with Reading(Input(capture=str(path))) as reading:
        frames = list(reading.frames())
        return without(shown_by_decode(reading.decoder, frames))


def copied(name: str, directory: Path) -> Path:
    path = directory / f"{name}.pcap"
    path.write_bytes(captures.load(name))
    return path


@PASSES
@pytest.mark.parametrize("name", captures.NAMES)
def test_real_captures(name: str, passes: tuple[str, ...], tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    shown = without(shown_by_tshark(path, *passes))
    assert shown == decoded(path)
    assert sum(map(len, shown.values())) > 200


@PASSES
@pytest.mark.parametrize("name", RAM)
def test_real_captures_of_ram(name: str, passes: tuple[str, ...], tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    shown = without(shown_by_tshark(path, *passes))
    assert shown == decoded(path)
    # It has no handshake, but the main channel's server.
    preempt = [ports for ports, listed in shown.items() if listed[0]["channel"] == "preempt"]
    assert len(preempt) == (name == "ram-preempt")
    assert sum(map(len, shown.values())) > 20


@PASSES
@pytest.mark.parametrize("path", ODD, ids=[path.name.split(".")[0] for path in ODD])
def test_odd_main_streams(path: Path, passes: tuple[str, ...], tmp_path: Path) -> None:
    """As a config without END_OF_STATE: where it ends, the rest must not be waited for."""
    plain = tmp_path / "odd.pcap"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert without(shown_by_tshark(plain, *passes)) == decoded(plain)


@PASSES
def test_preempt_channel_by_its_port(passes: tuple[str, ...], tmp_path: Path) -> None:
    path = copied("ram-preempt", tmp_path)
    script = tmp_path / "port.lua"
    script.write_text(wireshark_script([4444]))
    expected = decoded(path)
    assert "preempt" in {listed[0]["channel"] for listed in expected.values()}
    assert without(shown_by_tshark(path, *passes, script=script)) == expected


def test_page_to_another_server_is_no_preempt_channel(tmp_path: Path) -> None:
    need_program("tshark")
    page = word(RamFlag.PAGE) + counted("pc.ram") + bytes(4096) + RAM_EOS
    path = tmp_path / "other.pcapng"
    streams = {(40000, 4444): main_start(), (40001, 4445): page, (40002, 4444): page}
    path.write_bytes(capture_of(streams, size=32768))
    assert {ports for ports, listed in shown_by_tshark(path).items() if listed} == {
        (40000, 4444),
        (40002, 4444),
    }


@PASSES
@pytest.mark.parametrize("options", MADE.values(), ids=MADE)
def test_made_captures(options: list[str], passes: tuple[str, ...], tmp_path: Path) -> None:
    need_program("tshark")
    path = made(tmp_path, *options)
    assert without(shown_by_tshark(path, *passes)) == decoded(path)


@PASSES
def test_page_size_that_the_next_record_tells(passes: tuple[str, ...], tmp_path: Path) -> None:
    need_program("tshark")
    page = word(RamFlag.PAGE) + counted("r") + bytes(65536)
    zero = word(RamFlag.ZERO | RamFlag.CONTINUE, 65536) + b"\0"
    body = page + zero + word(RamFlag.PAGE | RamFlag.CONTINUE, 131072) + bytes(65536) + RAM_EOS
    stream = main_start() + start(2, "ram", body, version=4) + b"\0"
    # The second segment ends with the next record's flags, and that record goes on behind them.
    size, odd = divmod(stream.index(zero) + 8, 2)
    assert not odd
    path = tmp_path / "page.pcapng"
    path.write_bytes(capture_of({(40000, 4444): stream}, size=size))
    shown = without(shown_by_tshark(path, *passes))
    assert shown == decoded(path)
    lengths = [each["data_length"] for each in shown[40000, 4444] if "data_length" in each]
    assert lengths == [65536, 0, 65536, 0]


OUT_OF_ORDER = [
    ["--retransmitted", "0.05"],
    ["--reordered", "0.05"],
    # Some come when what Wireshark puts together begins before what was shown last.
    [
        "--random",
        "--seed",
        "3",
        "--reordered",
        "0.05",
        "--interleaved",
        "3",
        "--segment-size",
        "64",
    ],
]


@pytest.mark.parametrize("options", OUT_OF_ORDER)
def test_segments_out_of_order(options: list[str], tmp_path: Path) -> None:
    need_program("tshark")
    path = made(tmp_path, *options)
    assert without(shown_by_tshark(path, *REORDERING)) == decoded(path)


def test_offsets_are_of_the_stream_even_if_its_beginning_is_not_shown(tmp_path: Path) -> None:
    """As that of a return path whose first answer comes before its main channel is known."""
    need_program("tshark")
    options = ["--reordered", "0.05", "--interleaved", "3", "--segment-size", "64", "--ragged"]
    path = made(tmp_path, "--seed", "3", *options)
    shown = without(shown_by_tshark(path, *REORDERING))[4444, 40000]
    expected = decoded(path)[4444, 40000]
    assert [each["offset"] for each in expected] == [0, 8]
    assert [(each["offset"], each["type"]) for each in shown] == [(8, "SHUT")]


def test_several_migrations(tmp_path: Path) -> None:
    need_program("tshark")
    first, second = made(tmp_path).read_bytes(), made(tmp_path, "--seed", "5").read_bytes()
    both = tmp_path / "both.pcap"
    # The second one comes from other ports, to the same server.
    both.write_bytes(first + b"".join(_moved(second, by=256)))
    shown = without(shown_by_tshark(both))
    assert shown == decoded(both)
    assert {each["migration"] for listed in shown.values() for each in listed} == {0, 1}


def _moved(capture: bytes, *, by: int) -> Iterator[bytes]:
    """Give the records of a capture, with the client's ports moved."""
    for head, frame in _records(capture):
        for at in (34, 36):
            (port,) = struct.unpack_from(">H", frame, at)
            if port >= 40000:
                struct.pack_into(">H", frame, at, port + by)
        yield head + bytes(frame)


def _records(capture: bytes) -> Iterator[tuple[bytes, bytearray]]:
    at = 24
    while at < len(capture):
        (size,) = struct.unpack_from("<I", capture, at + 8)
        yield capture[at : at + 16], bytearray(capture[at + 16 : at + 16 + size])
        at += 16 + size


# Rules


@pytest.mark.parametrize("name", captures.NAMES)
def test_rules_that_real_captures_break(name: str, tmp_path: Path) -> None:
    text = run_tshark(copied(name, tmp_path), "-2", "-Y", "qemu_mig", "-V")
    # There the destination gave up, and reset channels before they had sent their SYNC packets.
    assert rules_shown(text) == ({"MFD301"} if name == "mtty-dst-lacks-device" else set())


CHECKED = [name for name, defect in DEFECTS.items() if defect.rule.id in CHECKED_RULES]


@pytest.mark.parametrize("name", CHECKED)
def test_defects_are_told(name: str, tmp_path: Path) -> None:
    need_program("tshark")
    path = made(tmp_path, "--chunk", "16K", "--defect", name)
    text = run_tshark(path, "-2", "-Y", "qemu_mig", "-V")
    rule = DEFECTS[name].rule
    assert f"{rule.id} {rule.name}: " in text


def test_rules_are_fields_to_filter_by(tmp_path: Path) -> None:
    need_program("tshark")
    path = made(tmp_path, "--chunk", "16K", "--defect", "duplicate-idx:3")
    shown = run_tshark(
        path, "-Y", "qemu_mig.rule.mfd211", "-T", "fields", "-e", "qemu_mig.device_state.idx"
    )
    assert shown.split() == ["3"]


# What the capture does not have


def test_beginning_not_captured(tmp_path: Path) -> None:
    need_program("tshark")
    whole = made(tmp_path).read_bytes()
    middle = tmp_path / "middle.pcap"
    records = list(_records(whole))[40:]
    middle.write_bytes(whole[:24] + b"".join(head + bytes(frame) for head, frame in records))
    script = tmp_path / "port.lua"
    script.write_text(wireshark_script([4444]))
    names = ["qemu_mig.kind", "qemu_mig.device_state.idx"]
    options = ["-T", "fields", *(word for name in names for word in ("-e", name))]
    rows = run_tshark(middle, "-Y", "qemu_mig.kind", *options, script=script).splitlines()
    expected = [each for listed in decoded(middle).values() for each in listed]
    kinds = [kind for row in rows for kind in row.split("\t")[0].split(",")]
    found = sorted(kind for kind in kinds if kind.startswith("multifd."))
    assert found == sorted(
        each["kind"] for each in expected if str(each["kind"]).startswith("multifd.")
    )
    assert [row.split("\t")[1] for row in rows if row.split("\t")[1]] == ["0", "1"]


def test_missing_bytes_are_told(tmp_path: Path) -> None:
    need_program("tshark")
    path = made(tmp_path, "--snaplen", "1000")
    names = ["-e", "qemu_mig.missing"]
    shown = run_tshark(path, "-Y", "qemu_mig.missing", "-T", "fields", *names).split()
    with Reading(Input(capture=str(path))) as reading:
        frames = list(reading.frames())
        ends = {frame.channel: frame.end for frame in frames if frame.kind not in NOT_SENT}
    # What is missing at the end of a stream shows only by what never comes.
    gaps = [frame for frame in frames if frame.kind is Kind.GAP]
    expected = [gap.length for gap in gaps if gap.end < ends[gap.channel]]
    assert sorted(map(int, shown)) == sorted(expected)
    assert len(expected) > 50


def test_payload_that_cannot_be_put_together(tmp_path: Path) -> None:
    need_program("tshark")
    path = made(tmp_path, "--lost", "0.02")
    text = run_tshark(path, "-Y", "qemu_mig.reason", "-V", "-O", "qemu_mig")
    assert "bytes before this are not whole" in text
    assert rules_shown(text) >= {"MFD602"}


def test_a_length_that_no_memory_has(tmp_path: Path) -> None:
    need_program("tshark")
    data = DeviceData(size=(1 << 64) - 1).build()
    stream = main_start() + start(38, DEVICE, data + b"abc")
    path = tmp_path / "huge.pcapng"
    path.write_bytes(capture_of({(40000, 4444): stream}))
    text = run_tshark(path, "-V")
    # Lua's numbers are as exact as a float is.
    assert f"bytes 0 to 7 of {1 << 64} of the payload of {DEVICE} DEV_DATA_STATE" in text
    assert f"[length: {(1 << 64) - 1}]" in text


def test_page_sizes_that_no_target_has_are_not_believed(tmp_path: Path) -> None:
    need_program("tshark")
    advise = PostcopyAdvise(page_size_summary=4096, page_size=1 << 63)
    page = word(RamFlag.PAGE) + counted("r") + bytes(4096)
    stream = main_start() + command(Command.POSTCOPY_ADVISE, advise.build())
    stream += start(2, "ram", page + RAM_EOS, version=4)
    path = tmp_path / "advise.pcapng"
    path.write_bytes(capture_of({(40000, 4444): stream}))
    assert shown_by_tshark(path) == decoded(path)


def test_tls_is_told(tmp_path: Path) -> None:
    need_program("tshark")
    capture = made(tmp_path, "--channels", "1").read_bytes()
    # The beginning of a Client Hello whose rest is in the next segment.
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    records = [head + bytes(frame) for head, frame in _records(capture)]
    chosen = next(record for record in records if b"QEVM" in record)
    at = chosen.index(b"QEVM")
    encrypted = chosen[:at] + hello + chosen[at + len(hello) :]
    path = tmp_path / "tls.pcap"
    path.write_bytes(capture[:24] + encrypted)
    script = tmp_path / "port.lua"
    script.write_text(wireshark_script([4444]))
    text = run_tshark(path, script=script)
    assert "migration over TLS: encrypted" in text
    # Without the port nobody claims that it is one.
    assert "migration" not in run_tshark(path)


# Hostile input


def _mutated(capture: bytes, seed: int, *, copies: int) -> bytes:
    """Give copies of a capture, each of other addresses and damaged in its own way."""
    rng = random.Random(seed)
    parts = [capture[:24]]
    for number in range(1, copies + 1):
        rate = rng.choice((0.02, 0.1, 0.5))
        for head, frame in _records(capture):
            frame[29] = frame[33] = number
            payload = 34 + (frame[46] >> 4) * 4
            if len(frame) > payload + 8 and rng.random() < rate:
                damaged = _damaged(frame, payload, rng)
                head = head[:8] + struct.pack("<I", len(damaged)) + head[12:]
                frame = damaged
            parts.append(head + bytes(frame))
    return b"".join(parts)


def _damaged(frame: bytearray, payload: int, rng: random.Random) -> bytearray:
    where = rng.randrange(payload, len(frame) - 8)
    what = rng.randrange(4)
    if what == 0:
        return frame[:where]
    if what == 1:
        frame[where : where + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"))
    elif what == 2:
        likely = b"\x11\x22\x33\x44\0\0\0\1", b"QEVM\0\0\0\3", b"\x7e\0\0\0\1\0\6\0"
        frame[where : where + 8] = rng.choice((*likely, b"\xff\xff\xff\xff\xef\x10\0\4"))
    else:
        for _ in range(rng.randrange(1, 6)):
            frame[rng.randrange(payload, len(frame))] = rng.randrange(256)
    return frame


@pytest.mark.parametrize(
    "options",
    [
        (*TWO_PASSES, "-Y", "qemu_mig"),
        (),
        REORDERING,
        ("-o", "tcp.desegment_tcp_streams:FALSE"),
    ],
    ids=["two-passes", "one-pass", "reordering", "no-desegmentation"],
)
@pytest.mark.parametrize("ports", [(), (4444,)], ids=["magic", "port"])
@pytest.mark.parametrize("source", ["without multifd", "load ready", "real"])
def test_damaged_captures_raise_no_error(
    source: str, ports: tuple[int, ...], options: tuple[str, ...], tmp_path: Path
) -> None:
    need_program("tshark")
    if source == "real":
        capture = bytes(captures.load("mtty-4ch-clean"))
    else:
        capture = made(tmp_path, *MADE[source], "--segment-size", "400").read_bytes()
    path = tmp_path / "damaged.pcap"
    path.write_bytes(_mutated(capture, 7, copies=20))
    script = tmp_path / "ports.lua"
    script.write_text(wireshark_script(ports))
    # That there is no Lua error is asserted there.
    assert "QEMU Migration" in run_tshark(path, "-V", *options, script=script)


# Documentation


def test_transcripts_of_the_documentation(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_program("tshark")
    link_captures(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = DOCUMENT.read_text(encoding="utf-8")
    for line in re.findall(r"^\$ (mfdtool (?:wireshark|make) .*)$", text, re.MULTILINE):
        execute(line)
    played = BLOCK.sub(_played, text)
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(played, encoding="utf-8")
    else:
        assert played == text


def _played(block: re.Match[str]) -> str:
    """Run a block's command, whose script and capture are in the current directory."""
    _, _, script, _, capture, *options = shlex.split(block[1])
    path = Path.cwd() / script.removeprefix("lua_script:")
    output = run_tshark(Path.cwd() / capture, *options, script=path)
    return f"```\n$ {block[1]}\n{output.strip()}\n```"


# Tests for when there is no tshark


@pytest.mark.parametrize("name", LISTED)
def test_kept_list_is_what_tshark_shows(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = ("kind", "channel", "number", "offset", "length")
    shown = without(shown_by_tshark(copied(name, tmp_path)))
    rows = [
        "\t".join([*map(str, ports), *(str(each[name]) for name in names)])
        for ports in sorted(shown)
        for each in shown[ports]
    ]
    path = GOLDEN / f"{name}.tsv"
    if request.config.getoption("--update-golden"):
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    else:
        assert rows == path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", LISTED)
def test_kept_list_is_what_decode_shows(name: str) -> None:
    shown = without(shown_by_decode(*captures.decoded(name)))
    names = ("kind", "channel", "number", "offset", "length")
    rows = [
        "\t".join([*map(str, ports), *(str(each[name]) for name in names)])
        for ports in sorted(shown)
        for each in shown[ports]
    ]
    assert rows == (GOLDEN / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
