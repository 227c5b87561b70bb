# SPDX-License-Identifier: GPL-2.0-or-later
"""Real streams of every way to send RAM: all decoded, and its pages are those that QEMU has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.pages import PageExtractor
from mfdtool.stream.phases import Phase
from mfdtool.stream.summary import MigrationSummary, SummaryCollector
from mfdtool.workflows.reading import Input, Reading
from tests.support.decoding import joined
from tests.test_manifest import CAPTURES, MANIFEST

SAMPLES = sorted(name for name in MANIFEST["files"] if name.startswith("ram-"))
PAGES = range(0x20000, 0x30000, 0x1000)


def read(name: str) -> tuple[list[Frame], MigrationSummary, dict[int, bytes]]:
    """Decode a sample; give its frames, its summary and the guest's pages."""
    collector = SummaryCollector()
    extractors = {offset: PageExtractor(0, "pc.ram", offset) for offset in PAGES}
    frames = []
    with Reading(Input(capture=str(CAPTURES / name)), keep_extents=True) as reading:
        for frame in reading.frames():
            frames.append(frame)
            collector.add(frame)
            for extractor in extractors.values():
                assert list(extractor.add(frame)) == []
        assert reading.complete
        (summary,) = collector.summaries(reading.decoder.migrations)
        pages = {}
        for offset, extractor in extractors.items():
            pages[offset] = joined(extractor.finish(None))
            assert extractor.remarks.problems == []
    return frames, summary, pages


@pytest.mark.parametrize("name", SAMPLES)
def test_everything_is_decoded(name: str) -> None:
    frames, summary, pages = read(name)
    assert summary.gap_bytes == summary.undecoded_bytes == 0
    assert summary.ended
    assert summary.machine == "pc-i440fx-10.0"
    assert summary.page_size == 4096
    assert [name for name, _ in summary.ram.blocks[:2]] == ["pc.ram", "/rom@etc/acpi/tables"]
    assert not any(frame.kind is Kind.UNDECODED for frame in frames)
    entry: dict[str, Any] = MANIFEST["files"][name]
    content = b"".join(pages[offset] for offset in PAGES)
    if "pages_sha256" in entry:
        assert hashlib.sha256(content).hexdigest() == entry["pages_sha256"]
    # What the firmware wrote once and never changed again.
    assert content[0xF000:] == b"".join(
        bytes((0x55, 0xF0 | high // 16)) * 0x80 for high in range(0, 256, 16)
    )


def test_samples_are_small() -> None:
    assert len(SAMPLES) == 14
    assert max((CAPTURES / name).stat().st_size for name in SAMPLES) < 100_000


def test_xbzrle() -> None:
    _, summary, pages = read("ram-xbzrle.pcap.gz")
    assert (summary.ram.xbzrle_pages, summary.ram.normal_pages) == (368, 120)
    assert summary.ram.zero_pages == 1084
    assert summary.ram.sections == 93
    # Words that the firmware counts up together, wherever in its page each is.
    counts = [
        (int.from_bytes(pages[at & ~0xFFF][at & 0xFFF :][:2], "little") - start) & 0xFFFF
        for at, start in ((0x20000, 0x0055), (0x21010, 0x1055), (0x22FFE, 0x2F55))
    ]
    assert counts[0] > 0
    assert all((counts[0] - count) & 0xFFFF in {0, 1} for count in counts)
    assert pages[0x24000][:2] * 2048 == pages[0x24000]


def test_postcopy() -> None:
    frames, summary, _ = read("ram-postcopy.pcap.gz")
    assert [times.phase for times in summary.phases] == [
        phase for phase in Phase if phase is not Phase.SNAPSHOT
    ]
    assert summary.ram.requests == 1
    standstill = summary.standstill.standstill
    assert standstill is not None
    times = {times.phase: times for times in summary.phases}
    assert standstill.stop_ns == times[Phase.POSTCOPY].start_ns
    assert standstill.start_ns == times[Phase.SWITCHOVER].start_ns
    commands = [frame.value for frame in frames if frame.kind is Kind.MAIN_COMMAND]
    assert len(commands) == 11


def test_preempt() -> None:
    frames, summary, _ = read("ram-preempt.pcap.gz")
    assert [channel.name for channel in summary.channels] == ["main", "return-path", "preempt"]
    records = [frame for frame in frames if frame.channel.name == "preempt"]
    assert {frame.kind for frame in records} == {Kind.RAM_RECORD}
    assert summary.ram.requests > 0


def test_return_path_is_in_the_same_timeline() -> None:
    frames, summary, _ = read("ram-return-path.pcap.gz")
    back = [index for index, frame in enumerate(frames) if frame.channel.name == "return-path"]
    assert len(back) == 3
    assert [frame.record for frame in frames] == sorted(frame.record for frame in frames)
    assert 0 < back[0] < back[1] < len(frames) // 2
    assert back[2] == len(frames) - 1
    assert summary.standstill.with_ack
    assert summary.standstill.ack_ns is not None
    assert summary.standstill.lacking == ()
    assert summary.standstill.last_ready is None


@pytest.mark.parametrize("name", [name for name in SAMPLES if "mapped" in name or "sparse" in name])
def test_mapped_ram(name: str) -> None:
    _, summary, pages = read(name)
    assert summary.ram.is_mapped
    assert summary.ram.normal_pages == 22
    assert summary.ram.zero_pages == sum(size for _, size in summary.ram.blocks) // 4096 - 22
    assert summary.ram.bytes == 22 * 4096
    assert any(pages[0x20000])


def test_background_snapshot_has_no_switchover_command() -> None:
    frames, summary, _ = read("ram-snapshot.stream.gz")
    assert not summary.switchover
    assert Kind.MAIN_SECTION_END not in {frame.kind for frame in frames}
    assert Kind.MAIN_VMDESCRIPTION in {frame.kind for frame in frames}
    snapshot = [Phase.SETUP, Phase.PRECOPY, Phase.SNAPSHOT, Phase.COMPLETION]
    assert [times.phase for times in summary.phases] == snapshot
    assert summary.standstill.standstill is None


@pytest.mark.parametrize(
    ("name", "since", "until"),
    [
        ("ram-postcopy.pcap.gz", "10.0", "10.1"),
        ("ram-zstd.pcap.gz", "10.0", ""),
        ("ram-snapshot.stream.gz", "10.0", ""),
    ],
)
def test_release(name: str, since: str, until: str) -> None:
    _, summary, _ = read(name)
    recognition = summary.recognition
    assert (recognition.since, recognition.until) == (since, until)
    assert recognition.is_possible
    assert recognition.profile is not None
    assert recognition.profile.name == "10.0"


def test_files_stand_where_the_manifest_says() -> None:
    assert {Path(name).suffixes[0] for name in SAMPLES} == {".pcap", ".stream", ".save", ".qcow2"}
