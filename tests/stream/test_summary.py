# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts of whole migrations, real ones and made ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mfdtool.stream import summary
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.frames import Kind, Section
from mfdtool.stream.migration import Decoder, Migration
from mfdtool.stream.phases import Phase
from mfdtool.stream.span import EndReason, run_of
from mfdtool.stream.summary import MigrationSummary, SummaryCollector
from mfdtool.stream.values import RamRecord
from mfdtool.wire.constants import RamFlag
from mfdtool.wire.main_stream import FileHeader
from mfdtool.workflows.reading import Input, Reading
from tests.support.made_frames import RAM, Maker

CAPTURES = Path(__file__).parents[2] / "captures"
NAMES = sorted(path.name.removesuffix(".pcap.gz") for path in CAPTURES.glob("*.pcap.gz"))


def summarise(name: str) -> MigrationSummary:
    collector = SummaryCollector()
    with Reading(Input(capture=str(CAPTURES / f"{name}.pcap.gz"))) as reading:
        for frame in reading.frames():
            collector.add(frame)
        (found,) = collector.summaries(reading.decoder.migrations)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_is_counted_once(name: str) -> None:
    found = summarise(name)
    total = sum(channel.bytes for channel in found.channels)
    assert sum(count.bytes for count in found.kinds) == total - found.gap_bytes
    assert found.undecoded_bytes == 0
    assert found.ended
    assert found.switchover
    assert found.machine == "pc-i440fx-10.0"
    assert found.page_size == 4096
    has_postcopy = name in {"ram-postcopy", "ram-preempt"}
    absent = {Phase.SNAPSHOT} if has_postcopy else {Phase.SNAPSHOT, Phase.POSTCOPY}
    phases = [phase for phase in Phase if phase not in absent]
    assert [times.phase for times in found.phases] == phases
    assert sum(times.bytes for times in found.phases) == total - found.gap_bytes
    assert found.phases[0].start_ns == found.first_ns
    assert found.phases[-1].stop_ns == found.last_ns
    bounds = [times.start_ns for times in found.phases]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if name.startswith("mtty-") and name != "mtty-dst-lacks-device"],
)
def test_against_the_logs(name: str) -> None:
    found = summarise(name)
    log = (CAPTURES / f"{name}.dst.log").read_text()
    incoming = re.findall(r"vfio_load_state_device_buffer_incoming .* idx (\d+)", log)
    data = re.findall(r"vfio_load_state_device_data .* size (\d+)", log)
    packets = sum(device.multifd.pieces + (device.config is not None and
                  device.config.idx is not None) for device in found.devices)  # fmt: skip
    assert packets == len(incoming)
    main = sum(device.precopy.bytes + device.main.bytes for device in found.devices)
    assert main == sum(map(int, data))
    assert all(device.is_whole for device in found.devices)


def test_channels_of_a_failed_migration() -> None:
    found = summarise("mtty-dst-lacks-device")
    ends = {channel.name: channel.end for channel in found.channels}
    assert ends["multifd-2"] is EndReason.RST
    assert ends["main"] is EndReason.FIN
    assert found.main is not None
    assert found.main.kind is ChannelKind.MAIN
    assert str(found.main.client) == "127.0.0.1:37094"
    assert str(found.server) == "127.0.0.1:4444"
    assert found.main.from_start


def test_ram() -> None:
    make, collector = Maker(), SummaryCollector()
    flush = replace(make.record_of(0, 0), value=RamRecord(RamFlag.MULTIFD_FLUSH, 0))
    frames = [
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.pages([0, 4096], [8192], content=bytes(8192)),
        make.record_of(RamFlag.PAGE, 0, bytes(4096)),
        make.record_of(RamFlag.ZERO, 0, fill=0),
        make.record_of(RamFlag.EOS, 0),
        flush,
        make.gap(100),
        make.frame(Kind.UNDECODED, b"??"),
        replace(make.packet(0), value=None),
        replace(make.data(b"x"), section=None),
        replace(flush, value=None),
        make.frame(Kind.MAIN_CONFIGURATION, b"?"),
    ]
    for frame in frames:
        collector.add(frame)
    decoder = Decoder()
    decoder.add(ChannelKind.MAIN, run_of(FileHeader().build()))
    (found,) = collector.summaries(decoder.migrations)
    ram = found.ram
    assert (ram.normal_pages, ram.zero_pages, ram.bytes) == (3, 2, 12288)
    assert (ram.packets, ram.rounds, ram.sections, ram.syncs) == (1, 1, 1, 0)
    assert found.undecoded_bytes == 2
    assert found.devices == ()
    assert Kind.GAP not in {count.kind for count in found.kinds}


def test_sections_whose_start_is_not_captured() -> None:
    make, collector = Maker(), SummaryCollector()
    nameless = Section(38, "", 0, 0)
    collector.add(replace(make.config(b""), section=nameless))
    assert collector.summaries([Migration(0, None)])[0].devices == ()
    collector.add(make.data(b"abc", section=nameless))
    (device,) = collector.summaries([Migration(0, None)])[0].devices
    assert (device.key.idstr, device.main.bytes) == ("", 3)


def test_no_frames() -> None:
    (found,) = SummaryCollector().summaries([Migration(0, None)])
    assert (found.first_ns, found.last_ns, found.main, found.page_size) == (-1, -1, None, 0)
    assert found.kinds == ()
    assert not found.ended


def test_devices_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "DEVICES_LIMIT", 2)
    make, collector = Maker(), SummaryCollector()
    for number in (0, 1, 2, 3, 1):
        collector.add(make.packet(0, instance_id=number))
    (found,) = collector.summaries([Migration(0, None)])
    assert [device.key.instance_id for device in found.devices] == [0, 1]
    assert found.devices_omitted == 2
