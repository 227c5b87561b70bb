# SPDX-License-Identifier: GPL-2.0-or-later
"""What is decoded from each real capture, against what QEMU itself logged meanwhile."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.span import EndReason
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.constants import VFIOMarker
from mfdtool.wire.main_stream import SectionPart, SectionStart
from mfdtool.wire.multifd import MultiFDPacketFixed
from mfdtool.wire.vfio import DeviceStateHeader
from tests.support.captures import NAMES, decoded, log

PACKETS = {Kind.MULTIFD_RAM, Kind.MULTIFD_SYNC, Kind.MULTIFD_DEVICE_STATE}

COMPLETED = [name for name in NAMES if name != "mtty-dst-lacks-device"]
TRACED = [name for name in NAMES if name != "mtty-4ch-one-packet"]
"""Captures whose log has the main stream's sections."""


def matches(name: str, pattern: str, *, side: str = "dst") -> list[tuple[str, ...]]:
    """Give the groups of each log line that matches."""
    found = (re.fullmatch(pattern, line.rstrip()) for line in log(name, side))
    return [match.groups() for match in found if match is not None]


def frames_of(name: str, *kinds: Kind) -> list[Frame]:
    """Give a capture's frames of some kinds."""
    return [frame for frame in decoded(name)[1] if frame.kind in kinds]


def names_of_devices(name: str) -> list[str]:
    """Give the host's names of the VFIO devices as the log first tells them, by idstr's order."""
    found = matches(name, r"vfio_load_state  \((\S+)\) data .*")
    return list(dict.fromkeys(device for (device,) in found))


def test_all_captures_are_here() -> None:
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_decoded(name: str) -> None:
    decoder, frames = decoded(name)
    assert not decoder.others
    assert len(decoder.migrations) == 1
    assert not [frame for frame in frames if frame.kind in {Kind.UNDECODED, Kind.GAP}]
    for channel in decoder.migrations[0].channels:
        own = [frame for frame in frames if frame.channel.name == channel.name]
        # The destination that gave up reset its connections in the middle of a packet.
        was_reset = channel.stream.end is not None and channel.stream.end.reason is EndReason.RST
        assert all(frame.complete for frame in own[: -1 if was_reset else None])
        assert was_reset <= (name not in COMPLETED)
        assert sum(frame.length - frame.missing for frame in own) == channel.stream.length


@pytest.mark.parametrize("name", NAMES)
def test_packets_per_channel(name: str) -> None:
    """A destination that gives up, or shuts its sockets down, may have read fewer or one more."""
    logged = {
        f"multifd-{channel}": int(count)
        for channel, count in matches(name, r"multifd_recv_thread_end channel (\d+) packets (\d+)")
    }
    counted = Counter(frame.channel.name for frame in frames_of(name, *PACKETS))
    assert set(logged) == set(counted)
    for channel, count in logged.items():
        if name in COMPLETED:
            assert count - counted[channel] in (0, 1), channel
        else:
            assert count <= counted[channel], channel


@pytest.mark.parametrize("name", NAMES)
def test_every_packet_of_each_channel(name: str) -> None:
    """The log has RAM and SYNC packets with all their fields, in each channel's order."""
    logged: dict[str, list[tuple[int, int, int]]] = {}
    for channel, number, flags, size in matches(
        name,
        r"multifd_recv_unfill channel (\d+) packet_num (\d+) flags 0x(\w+) next packet size (\d+)",
    ):
        values = int(number), int(flags, 16), int(size)
        logged.setdefault(f"multifd-{channel}", []).append(values)
    seen: dict[str, list[tuple[int, int, int]]] = {}
    for frame in frames_of(name, Kind.MULTIFD_RAM, Kind.MULTIFD_SYNC):
        packet = frame.value
        assert isinstance(packet, MultiFDPacketFixed)
        values = packet.packet_num, packet.flags, packet.next_packet_size
        seen.setdefault(frame.channel.name, []).append(values)
    assert sum(map(len, logged.values())) > 40
    for channel, packets in logged.items():
        # What arrived after the destination gave up is in the capture only.
        assert packets == seen[channel][: len(packets)], channel
    if name in COMPLETED:
        assert logged == seen


@pytest.mark.parametrize("name", COMPLETED)
def test_buffers_of_each_device(name: str) -> None:
    logged: dict[str, set[int]] = {}
    for device, idx in matches(
        name, r"vfio_load_state_device_buffer_incoming  \((\S+)\) idx (\d+)"
    ):
        logged.setdefault(device, set()).add(int(idx))
    seen: dict[str, list[int]] = {}
    for frame in frames_of(name, Kind.MULTIFD_DEVICE_STATE):
        assert isinstance(frame.value, DeviceStateHeader)
        seen.setdefault(frame.value.idstr_text, []).append(frame.value.idx)
    assert all(len(set(idxs)) == len(idxs) for idxs in seen.values())
    by_name = dict(zip(sorted(seen), sorted(logged), strict=True))
    assert {by_name[idstr]: set(idxs) for idstr, idxs in seen.items()} == logged
    assert bool(seen) is (name != "mtty-main-stream-only")


@pytest.mark.parametrize("name", COMPLETED)
def test_markers_of_each_device(name: str) -> None:
    """vfio_load_state does not log an END_OF_STATE, wherever it stands."""
    seen: dict[str, list[int]] = {}
    for frame in frames_of(name, Kind.VFIO_MARKER):
        assert isinstance(frame.value, MarkerRecord)
        assert frame.section is not None
        if frame.value.marker != VFIOMarker.END_OF_STATE:
            seen.setdefault(frame.section.idstr, []).append(frame.value.marker)
    logged: dict[str, list[int]] = {device: [] for device in names_of_devices(name)}
    for device, value in matches(name, r"vfio_load_state  \((\S+)\) data 0x(\w+)"):
        logged[device].append(int(value, 16))
    assert [seen[idstr] for idstr in sorted(seen)] == [logged[device] for device in sorted(logged)]
    assert all(values[0] == VFIOMarker.DEV_SETUP_STATE for values in logged.values())


@pytest.mark.parametrize("name", COMPLETED)
def test_device_data_in_the_main_stream(name: str) -> None:
    logged = matches(name, r"vfio_load_state_device_data  \(\S+\) size (\d+) ret 0")
    seen = [
        frame.value.data_length
        for frame in frames_of(name, Kind.VFIO_MARKER)
        if isinstance(frame.value, MarkerRecord) and frame.value.marker == VFIOMarker.DEV_DATA_STATE
    ]
    assert seen == [int(size) for (size,) in logged]
    assert seen


@pytest.mark.parametrize("name", TRACED)
def test_sections(name: str) -> None:
    starts: list[tuple[int, str, int, int]] = []
    parts: list[int] = []
    for frame in frames_of(
        name,
        Kind.MAIN_SECTION_START,
        Kind.MAIN_SECTION_FULL,
        Kind.MAIN_SECTION_PART,
        Kind.MAIN_SECTION_END,
    ):
        header = frame.value
        if isinstance(header, SectionStart):
            identity = header.section_id, header.idstr, header.instance_id, header.version_id
            starts.append(identity)
        else:
            assert isinstance(header, SectionPart)
            parts.append(header.section_id)
    logged_starts = [
        (int(section), idstr, int(instance), int(version))
        for section, idstr, instance, version in matches(
            name, r"qemu_loadvm_state_section_startfull (\d+)\((\S+)\) (\d+) (\d+)"
        )
    ]
    logged_parts = [
        int(section) for (section,) in matches(name, r"qemu_loadvm_state_section_partend (\d+)")
    ]
    if name in COMPLETED:
        assert starts == logged_starts
        assert parts == logged_parts
    else:
        # The destination stopped at the device that it lacks, with its START.
        assert starts[: len(logged_starts)] == logged_starts
        assert logged_starts[-1][1] == "0000:00:05.0/vfio"
        assert not logged_parts


@pytest.mark.parametrize("name", NAMES)
def test_device_data_that_the_source_saved(name: str) -> None:
    logged = matches(name, r"vfio_save_block  \(\S+\) data_size (\d+)", side="src")
    seen = [
        frame.value.data_length
        for frame in frames_of(name, Kind.VFIO_MARKER)
        if isinstance(frame.value, MarkerRecord) and frame.value.marker == VFIOMarker.DEV_DATA_STATE
    ]
    assert seen == [int(size) for (size,) in logged if int(size)]
