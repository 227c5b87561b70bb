# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a recording, told by looking at all of it.

A destination stops at the first thing that it minds, and never minds some that lose data. This
goes through everything that was sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mfdtool.loader.assume import is_vfio
from mfdtool.loader.events import (
    BadHeader,
    Command,
    Connect,
    DevicePacket,
    Eof,
    FileHeader,
    Handshake,
    Lost,
    RamPacket,
    RamRecord,
    SectionStart,
    Unknown,
)
from mfdtool.loader.findings import Finding, finding
from mfdtool.loader.lint_device import DeviceLint
from mfdtool.rules import RULES_BY_NAME
from mfdtool.stream.indexes import IdxSet
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    QEMU_VM_FILE_MAGIC,
    MultiFDFlag,
    RamFlag,
    SectionType,
)
from mfdtool.wire.constants import Command as CommandNumber

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.recording import Entry, Recording

_KNOWN_FLAGS: Final = sum(MultiFDFlag)
_DeviceKey = tuple[str, int]
_DEVICE_FLAGS: Final = int(MultiFDFlag.DEVICE_STATE | MultiFDFlag.SYNC)


_LISTED: Final = 32
"""Findings of one rule in one channel that are listed; the others are counted."""


@dataclass(slots=True)
class _ChannelLint:
    """What was seen of one multifd channel."""

    name: str
    syncs: list[Entry] = field(default_factory=list)
    behind: list[tuple[int, Entry, str]] = field(default_factory=list)
    """The first device packet behind each SYNC: how many SYNCs were before it, and its device."""
    highest: int = -1
    lost: int = 0


class _Lint:
    """Goes through a recording."""

    def __init__(self, recording: Recording, destination: Destination) -> None:
        self._recording = recording
        self._destination = destination
        self._findings: list[Finding] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._channels: list[_ChannelLint] = []
        self._devices: dict[_DeviceKey, DeviceLint] = {}
        self._started: set[_DeviceKey] = set()
        self._numbers = IdxSet()
        self._flushes: list[Entry] = []
        self._switched = False
        self._over = False
        self._lost_main = 0

    def findings(self) -> list[Finding]:
        """Give what was found, in order of arrival, then what is missing."""
        for entry in self._recording.entries:
            event = entry.event
            if isinstance(event, Connect):
                if not isinstance(event.first, FileHeader):
                    self._channels.append(_ChannelLint(entry.channel))
                if isinstance(event.first, Handshake) and event.first.has_reserved:
                    self._find("reserved-not-zero", "unused bytes of the handshake", entry)
            elif event.channel is None:
                self._main_item(entry, event.item)
            else:
                self._multifd_item(entry, self._channels[event.channel], event.item)
        self._conclude()
        return self._findings

    def _find(
        self, rule: str, message: str, entry: Entry | None = None, device: str | None = None
    ) -> None:
        place = rule, entry.channel if entry is not None else ""
        self._counts[place] += 1
        if self._counts[place] > _LISTED:
            return
        migration = self._recording.migration
        self._findings.append(
            finding(rule, message, migration=migration, entry=entry, device=device)
        )

    # Multifd channels

    def _multifd_item(self, entry: Entry, channel: _ChannelLint, item: object) -> None:
        if isinstance(item, DevicePacket):
            self._device_packet(entry, channel, item)
        elif isinstance(item, RamPacket):
            self._ram_packet(entry, channel, item)
        elif isinstance(item, Lost):
            channel.lost += item.length
        elif isinstance(item, BadHeader) and item.magic == QEMU_VM_FILE_MAGIC:
            self._find("misrouted-channel", "a main stream begins here", entry)

    def _ram_packet(self, entry: Entry, channel: _ChannelLint, packet: RamPacket) -> None:
        unknown = packet.flags & ~_KNOWN_FLAGS
        if unknown:
            self._find("packet-flag-unknown", f"flags {unknown:#x}", entry)
        if packet.has_reserved:
            self._find("reserved-not-zero", "unused fields of the packet", entry)
        size = packet.normal_pages * self._recording.page_size
        has_pages = packet.normal_pages or packet.zero_pages
        raw = not packet.flags & MULTIFD_COMPRESSION_MASK
        if raw and packet.next_packet_size != size and (has_pages or packet.next_packet_size):
            message = f"next_packet_size {packet.next_packet_size}, {size} bytes of pages"
            self._find("ram-payload-size", message, entry)
        number = packet.packet_num
        if number <= channel.highest and not channel.lost:
            message = f"packet_num {number} after {channel.highest}"
            self._find("packet-num-order", message, entry)
        elif not self._numbers.add(number):
            self._find("packet-num-order", f"packet_num {number} was sent before", entry)
        channel.highest = max(channel.highest, number)
        if packet.is_sync:
            channel.syncs.append(entry)

    def _device_packet(self, entry: Entry, channel: _ChannelLint, packet: DevicePacket) -> None:
        unknown = packet.packet_flags & ~_DEVICE_FLAGS
        if unknown:
            self._find("packet-flag-unknown", f"flags {unknown:#x}", entry, packet.idstr)
        passed = len(channel.syncs)
        if not passed and not channel.lost:
            message = "no SYNC was on this channel before"
            self._find("device-packet-before-setup", message, entry, packet.idstr)
        elif not self._switched and not self._lost_main:
            message = "SWITCHOVER_START has not been sent yet"
            self._find("device-packet-before-switchover", message, entry, packet.idstr)
        if packet.is_cut:
            message = f"{packet.next_packet_size} bytes are said to follow, fewer do"
            self._find("device-packet-size", message, entry, packet.idstr)
        if not channel.behind or channel.behind[-1][0] != passed:
            channel.behind.append((passed, entry, packet.idstr))
        key = packet.idstr, packet.instance_id
        lint = self._devices.setdefault(key, DeviceLint())
        for remark in lint.add(entry, packet):
            self._find(remark.rule, remark.message, remark.entry, packet.idstr)

    # Main channel

    def _main_item(self, entry: Entry, item: object) -> None:
        if isinstance(item, SectionStart):
            if item.type is SectionType.START and is_vfio(item.idstr):
                self._started.add((item.idstr, item.instance_id))
        elif isinstance(item, RamRecord):
            self._ram_record(entry, item)
        elif isinstance(item, Command):
            self._switched |= item.cmd == CommandNumber.SWITCHOVER_START
        elif isinstance(item, Eof):
            self._over = True
        elif isinstance(item, Unknown) and self._over:
            self._find("stream-trailing", "bytes follow the end of the main stream", entry)
        elif isinstance(item, Lost):
            self._lost_main += item.length

    def _ram_record(self, entry: Entry, record: RamRecord) -> None:
        each = self._destination.flushes_each_section
        if record.flags & (RamFlag.EOS if each else RamFlag.MULTIFD_FLUSH):
            self._flushes.append(entry)

    # All together

    def _conclude(self) -> None:
        for (idstr, _), lint in self._devices.items():
            if lint.has_packets:
                for remark in lint.conclude():
                    self._find(remark.rule, remark.message, remark.entry, idstr)
        self._conclude_devices()
        if self._channels:
            self._conclude_syncs()
        self._conclude_losses()
        for (rule, channel), count in self._counts.items():
            if count > _LISTED:
                message = f"{count - _LISTED} more in {channel or 'the recording'}"
                migration = self._recording.migration
                self._findings.append(finding(rule, message, migration=migration))

    def _conclude_devices(self) -> None:
        """Compare who is in the main stream, who has device packets, and who is expected."""
        known = {(device.idstr, device.instance_id) for device in self._destination.devices}
        seen = {key for key, lint in self._devices.items() if lint.has_packets}
        whole = not self._lost_main
        for idstr, _ in sorted(seen - self._started) if whole else ():
            message = "device packets, and no START section"
            self._find("device-not-in-main-stream", message, device=idstr)
        for device in self._destination.devices:
            key = device.idstr, device.instance_id
            if not device.transfer or key in seen or not whole:
                continue
            if key not in self._started:
                message = "the recording has nothing for it"
                self._find("device-only-on-destination", message, device=device.idstr)
            elif self._switched and self._over:
                message = "no device packet came after SWITCHOVER_START"
                self._find("config-missing", message, device=device.idstr)
        for idstr, _ in sorted(self._started - known):
            self._find("device-only-on-source", "the destination has no such device", device=idstr)
        if self._over and not self._switched and whole:
            for idstr, _ in sorted(seen):
                message = "device packets, and SWITCHOVER_START is never sent"
                self._find("switchover-missing", message, device=idstr)

    def _conclude_syncs(self) -> None:
        """Pair the SYNC packets of each channel with the main stream's flushes."""
        flushes = len(self._flushes)
        for channel in self._channels:
            syncs = len(channel.syncs)
            if channel.lost or self._lost_main or channel.name in self._recording.resets:
                continue
            if syncs < flushes and self._over:
                message = f"{channel.name} has {syncs} SYNCs for {flushes} flushes"
                self._find("flush-without-sync", message, self._flushes[syncs])
            elif syncs > flushes and self._over:
                message = f"{syncs} SYNCs for {flushes} flushes"
                self._find("sync-without-flush", message, channel.syncs[flushes])
                for passed, entry, idstr in channel.behind:
                    if passed > flushes:
                        message = f"behind SYNC {passed} of {flushes} that are paired"
                        self._find("device-packet-behind-unpaired-sync", message, entry, idstr)

    def _conclude_losses(self) -> None:
        for name in self._recording.resets:
            message = f"{name} is reset: by the destination, if it gave up with data unread"
            self._find("connection-reset", message)
        lost = [(channel.name, channel.lost) for channel in self._channels if channel.lost]
        if self._lost_main:
            lost.append(("main", self._lost_main))
        for name, count in lost:
            self._findings.append(
                Finding(
                    rule=RULES_BY_NAME["capture-gap"],
                    message=f"{count} bytes between frames were not captured",
                    migration=self._recording.migration,
                    channel=name,
                )
            )


def lint(recording: Recording, destination: Destination) -> list[Finding]:
    """Find what is wrong with a recording, whatever a destination would stop at."""
    return _Lint(recording, destination).findings()
