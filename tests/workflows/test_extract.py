# SPDX-License-Identifier: GPL-2.0-or-later
"""Extraction from real captures, against what QEMU's logs and the senders say."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mfdtool.errors import CaptureError
from mfdtool.stream.device_data import ConfigExtractor, DeviceExtractor
from mfdtool.stream.extraction import (
    ChannelExtractor,
    DescriptionExtractor,
    Extractor,
    Hole,
    Pieces,
)
from mfdtool.stream.frames import Frame
from mfdtool.stream.migration import Migration
from mfdtool.stream.pages import PageExtractor
from mfdtool.workflows import extract as module
from mfdtool.workflows.extract import Extraction, FileSpool, OutputFile, TextBuffer, extract
from mfdtool.workflows.reading import Input, Reading

ROOT = Path(__file__).parents[2]
CAPTURES = ROOT / "captures"
VECTORS = ROOT / "tests" / "data" / "vectors"
STREAMS = ROOT / "tests" / "golden" / "main_stream"
SENT = json.loads((VECTORS / "expected.json").read_text())
MTTY_MAGIC = 0x7E9D09898C3E2C4E


def run(path: Path, extractor: Extractor, *, fill: int | None = None) -> tuple[bytes, Extraction]:
    output = io.BytesIO()
    with Reading(Input(capture=str(path)), keep_extents=True) as reading:
        result = extract(reading, extractor, output, fill=fill)
    assert result.written == len(output.getvalue())
    return output.getvalue(), result


def capture(name: str) -> Path:
    return CAPTURES / f"{name}.pcap.gz"


def device_state(path: Path, device: str, *, fill: int | None = None) -> tuple[bytes, Extraction]:
    with FileSpool() as spool:
        return run(path, DeviceExtractor(0, device, spool), fill=fill)


@pytest.mark.parametrize(
    ("name", "device", "ports"),
    [
        ("mtty-4ch-clean", "00:05.0", 2),
        ("mtty-4ch-one-packet", "00:05.0", 2),
        ("mtty-8ch-ipv6", "00:05.0", 2),
        ("mtty-main-stream-only", "00:05.0", 2),
        ("mtty-dst-lacks-device", "00:05.0", 2),
        ("mtty-2dev-2ch-holes", "0000:00:05.0", 1),
        ("mtty-2dev-2ch-holes", "0000:00:06.0/vfio", 2),
    ],
)
def test_mtty_state(name: str, device: str, ports: int) -> None:
    data, result = device_state(capture(name), device)
    assert result.complete
    assert not result.notes
    assert len(data) == 24 + 36 * ports
    assert int.from_bytes(data[:8], "little") == MTTY_MAGIC
    assert int.from_bytes(data[16:20], "little") == ports


@pytest.mark.parametrize("name", ["mtty-4ch-clean", "mtty-8ch-ipv6"])
def test_length_is_that_of_the_destination_log(name: str) -> None:
    log = (CAPTURES / f"{name}.dst.log").read_text()
    precopy = re.findall(r"vfio_load_state_device_data .* size (\d+)", log)
    assert sum(map(int, precopy)) == 24
    source = (CAPTURES / f"{name}.src.log").read_text()
    blocks = re.findall(r"vfio_save_block .*data_size (\d+)", source)
    assert sum(map(int, blocks)) == 24
    data, _ = device_state(capture(name), "00:05.0")
    # The rest is one mtty_data_size: what stop-copy gives once more, whatever the packets.
    assert len(data) == 24 + 72


@pytest.mark.parametrize("name", sorted(SENT))
def test_packets_of_a_vector(name: str) -> None:
    sent: list[dict[str, Any]] = SENT[name]["sent"]
    by_idx = {packet["idx"]: packet for packet in reversed(sent)}
    data, result = device_state(VECTORS / f"{name}.pcap.gz", "00:05.0")
    position = 24
    for idx in range(6):
        packet = by_idx.get(idx)
        if packet is None or packet["flags"]:
            break
        part = data[position : position + packet["data_length"]]
        assert hashlib.sha256(part).hexdigest() == packet["sha256"]
        position += packet["data_length"]
    assert position == len(data)
    config, _ = run(VECTORS / f"{name}.pcap.gz", ConfigExtractor(0, "00:05.0", with_markers=True))
    assert hashlib.sha256(config).hexdigest() == by_idx[5]["sha256"]
    expected_holes = ("idx 3; writing stopped there, after 72 bytes",)
    assert result.holes == (expected_holes if name == "v05-missing-3" else ())
    assert result.complete is (name != "v05-missing-3")
    assert result.notes == (
        ("idx 2 (multifd-2 #21) came again: the same bytes",) if name == "v03-dup-data" else ()
    )


def test_missing_idx_is_never_filled() -> None:
    data, result = device_state(VECTORS / "v05-missing-3.pcap.gz", "00:05.0", fill=0xFF)
    assert len(data) == 80
    assert result.filled == 0
    assert result.holes == ("idx 3; length unknown, not filled at output offset 72",)


@pytest.mark.parametrize("name", ["mtty-2dev-2ch-holes", "mtty-main-stream-only"])
def test_main_stream(name: str) -> None:
    data, result = run(capture(name), ChannelExtractor(0, "main"))
    assert result.complete
    assert data == gzip.decompress((STREAMS / f"{name}.gz").read_bytes())


def test_config_is_the_same_by_either_way() -> None:
    one, _ = run(capture("mtty-main-stream-only"), ConfigExtractor(0, "00:05.0"))
    assert len(one) == 4116
    assert int.from_bytes(one[:4]) == 2
    raw, _ = run(capture("mtty-4ch-clean"), ConfigExtractor(0, "00:05.0", with_markers=True))
    bare, _ = run(capture("mtty-4ch-clean"), ConfigExtractor(0, "00:05.0"))
    assert raw[8:-8] == bare
    assert len(bare) == 4116


def test_description() -> None:
    data, _ = run(capture("mtty-8ch-ipv6"), DescriptionExtractor(0))
    assert json.loads(data)["page_size"] == 4096


def test_pages() -> None:
    first, result = run(capture("mtty-4ch-clean"), PageExtractor(0, "pc.ram", 0))
    assert first[:8].hex() == "53ff00f053ff00f0"
    assert len(first) == 4096
    assert result.notes == ("pc.ram:0x0 is from multifd-3 #24, normal, the last of 2 transfers",)
    zero, _ = run(capture("mtty-4ch-clean"), PageExtractor(0, "pc.bios", 0x1000))
    assert zero == bytes(4096)


@pytest.mark.parametrize(
    ("extractor", "reason"),
    [
        (ChannelExtractor(0, "multifd-9"), "no channel multifd-9; there are multifd-2, "),
        (ConfigExtractor(0, "00:09.0"), "there are 0000:00:05.0/vfio"),
        (ChannelExtractor(3, "main"), "no migration 3; there are 1, the first is 0"),
    ],
)
def test_not_there(extractor: Extractor, reason: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(reason)):
        run(capture("mtty-4ch-clean"), extractor)


class Scripted(Extractor):
    """Gives fixed pieces at the end."""

    def __init__(self, *pieces: bytes | Hole) -> None:
        super().__init__(0)
        self.found = True
        self.pieces = pieces

    def add(self, frame: Frame) -> Pieces:
        return iter(())

    def finish(self, migration: Migration | None) -> Pieces:
        return iter(self.pieces)

    def wanted(self) -> str:
        return "nothing"


def test_writing_stops_at_the_first_hole() -> None:
    pieces = b"one", Hole("x: bytes 0-4", 5), b"two", Hole("y: bytes 3-3", 1)
    data, result = run(capture("mtty-4ch-clean"), Scripted(*pieces))
    assert data == b"one"
    assert result.holes == (
        "x: bytes 0-4; writing stopped there, after 3 bytes",
        "y: bytes 3-3",
    )
    assert not result.complete


def test_filler() -> None:
    pieces = b"one", Hole("x", 5), b"two", Hole("huge", (4 << 30) + 1), Hole("y", 0)
    data, result = run(capture("mtty-4ch-clean"), Scripted(*pieces), fill=0xAA)
    assert data == b"one\xaa\xaa\xaa\xaa\xaatwo"
    assert result.filled == 5
    assert result.holes == (
        "x; filled at output offset 3",
        "huge; length unknown, not filled at output offset 11",
        "y; filled at output offset 11",
    )


def test_many_holes_are_counted() -> None:
    _, result = run(capture("mtty-4ch-clean"), Scripted(*[Hole("x", 1)] * 60))
    assert len(result.holes) == 50
    assert result.holes[-1] == "11 more holes"


@pytest.mark.parametrize("migration", [0, 1])
def test_other_migrations_are_mentioned(tmp_path: Path, migration: int) -> None:
    names = "mtty-4ch-clean", "mtty-8ch-ipv6"
    one, two = (gzip.decompress(capture(name).read_bytes()) for name in names)
    both = tmp_path / "both.pcap"
    both.write_bytes(one + two[24:])
    with FileSpool() as spool:
        data, result = run(both, DeviceExtractor(migration, "00:05.0", spool))
    alone, _ = device_state(capture(names[migration]), "00:05.0")
    assert data == alone
    assert result.notes == (f"this is migration {migration} of 2, see --migration",)


def test_spool() -> None:
    with FileSpool() as spool:
        one = spool.put([b"abc", memoryview(b"def")])
        two = spool.put([])
        three = spool.put([b"x"])
        assert (one.size, two.size, three.size) == (6, 0, 1)
        assert b"".join(spool.get(three)) == b"x"
        assert b"".join(spool.get(one)) == b"abcdef"
        spool.clear()
        assert b"".join(spool.get(spool.put([b"new"]))) == b"new"


def test_output_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    OutputFile(path).close()
    assert not path.exists()
    file = OutputFile(path)
    assert (file.write(b""), file.write(b"data")) == (0, 4)
    file.close()
    assert path.read_bytes() == b"data"


def test_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXT_LIMIT", 5)
    text = TextBuffer()
    assert text.write(b"12345") == 5
    with pytest.raises(CaptureError, match="more than 5 bytes"):
        text.write(b"6")
