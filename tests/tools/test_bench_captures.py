# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's captures are what they are said to be."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mfdtool.packets import pcap
from mfdtool.stream.bulk import BulkStreams
from mfdtool.stream.connections import Opened, Opening
from mfdtool.stream.reader import pieces_of
from mfdtool.stream.span import End, EndReason, Run
from mfdtool.wire.multifd import MultiFDInit
from mfdtool.wire.vfio import DeviceStateHeader
from tools import bench_captures

if TYPE_CHECKING:
    from collections.abc import Callable

CAPTURES = Path(__file__).parents[2] / "captures"
HEADER = 288


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Give a function that runs the program and gives the file."""
    # The real program makes 1 MiB packets; less is enough here.
    for name in ("nic", "lo", "ooo"):
        kind = bench_captures.KINDS[name]
        smaller = bench_captures.Kind(kind.payloads, 50_000, kind.disorder)
        monkeypatch.setitem(bench_captures.KINDS, name, smaller)
    monkeypatch.setattr(bench_captures, "MIB", 1 << 17)
    # So that sequence numbers wrap in the first packets.
    monkeypatch.setattr(bench_captures, "FIRST_SEQUENCE", (1 << 32) - 60_000)

    def run(kind: str, *options: str, suffix: str = ".pcap", size: str = "2000K") -> bytes:
        output = tmp_path / f"capture{suffix}"
        arguments = ["bench_captures", kind, "--size", size, "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        bench_captures.main()
        return output.read_bytes()

    return run


def streams_of(file: bytes) -> tuple[dict[int, bytes], dict[int, Opening], int]:
    """Put the streams of a capture together; give also how they open and what is missing."""
    buffer = memoryview(file)
    parts: defaultdict[int, list[memoryview]] = defaultdict(list)
    openings: dict[int, Opening] = {}
    streams = BulkStreams(buffer)
    for window in streams.windows():
        for flow, event in window.events:
            if isinstance(event, Run):
                parts[flow] += pieces_of(event, event.start, event.stop)
            elif isinstance(event, Opened):
                openings[flow] = event.opening
            elif isinstance(event, End):
                assert event.reason is EndReason.FIN
    missing = sum(flow.missing for flow in streams.counters.flows.values())
    return {flow: b"".join(pieces) for flow, pieces in parts.items()}, openings, missing


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng"])
@pytest.mark.parametrize("kind", ["nic", "lo", "ooo", "small"])
def test_every_kind(kind: str, suffix: str, write: Callable[..., bytes]) -> None:
    file = write(kind, "--channels", "3", suffix=suffix)
    streams, openings, missing = streams_of(file)
    assert len(file) > 2_000 << 10
    assert sorted(openings) == list(range(8))
    assert [openings[flow] for flow in (0, 1)] == [Opening.SYN, Opening.SYN_ACK]
    assert missing == 0
    assert streams[0].startswith(b"QEVM\0\0\0\3\x07")
    indexes: list[int] = []
    for channel in range(3):
        stream = streams[2 * channel + 2]
        assert MultiFDInit.parse(stream[:64]).id == channel
        at = 64
        while at < len(stream):
            header = DeviceStateHeader.parse(stream[at : at + HEADER])
            assert header.idstr_text == "0000:00:05.0/vfio"
            indexes.append(header.idx)
            at += HEADER - 12 + header.next_packet_size
        assert at == len(stream)
        assert len(stream) > 60_000
    assert sorted(indexes) == list(range(len(indexes)))


def test_ooo_is_out_of_order(write: Callable[..., bytes]) -> None:
    file = write("ooo", "--seed", "3", size="6M")
    streams = BulkStreams(memoryview(file))
    assert len(list(streams.windows())) > 0
    assert sum(flow.out_of_order for flow in streams.counters.flows.values()) > 0
    assert write("ooo", "--seed", "3", size="6M") == file
    assert write("ooo", "--seed", "4", size="6M") != file


def test_main_stream_of_a_real_capture(write: Callable[..., bytes]) -> None:
    source = CAPTURES / "mtty-4ch-clean.pcap.gz"
    streams, _, _ = streams_of(write("nic", "--main-from", str(source), size="500K"))
    assert len(streams[0]) == 112_619
    assert streams[0].startswith(b"QEVM")


def test_a_capture_without_main_stream(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcap"
    path.write_bytes(pcap.file_header(linktype=1))
    with pytest.raises(SystemExit, match="no main stream in there"):
        bench_captures.main_stream_of(path)


def test_sizes() -> None:
    assert bench_captures.parse_size("1500") == 1500
    assert bench_captures.parse_size("2k") == 2048
    assert bench_captures.parse_size("3G") == 3 << 30
