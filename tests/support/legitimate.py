# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations as a good source sends them, in any order that a network can make of them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from mfdtool.loader.blob import blob_of
from mfdtool.loader.destination import Destination, DeviceSpec
from mfdtool.loader.events import (
    Configuration,
    Connect,
    Deliver,
    DevicePacket,
    End,
    Eof,
    FileHeader,
    Footer,
    Handshake,
    MainItem,
    Marker,
    MultiFDItem,
    RamPacket,
    SectionPart,
    SectionStart,
    VmDescription,
)
from mfdtool.loader.recording import Entry, Recording
from mfdtool.wire.constants import MultiFDFlag, SectionType, VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import END_OF_STATE, EOS, FLUSH, MACHINE, SWITCHOVER, packet


@dataclass(frozen=True)
class Sent:
    """What a source sends: one stream per channel, and what the devices must get by it."""

    main: tuple[MainItem, ...]
    channels: tuple[tuple[MultiFDItem, ...], ...]
    destination: Destination
    data: tuple[bytes, ...]


def random_sent(rng: random.Random) -> Sent:
    """Make a good migration with a few devices, channels and rounds."""
    return _Source(rng).send()


class _Source:
    """Sends one migration."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        numbers = range(5, 5 + rng.randint(1, 3))
        self._devices = tuple(
            DeviceSpec(idstr=f"0000:00:{number:02x}.0/vfio") for number in numbers
        )
        self._late = rng.random() < 0.3
        self._main: list[MainItem] = [FileHeader(), Configuration(MACHINE)]
        self._streams: list[list[MultiFDItem]] = [[] for _ in range(rng.randint(1, 4))]
        self._written = [b""] * len(self._devices)
        self._packet_num = 0

    def send(self) -> Sent:
        self._setup()
        for _ in range(self._rng.randrange(3)):
            self._iterate()
        self._main.append(SWITCHOVER)
        self._send_devices()
        self._complete()
        profile = "10.2" if self._late else self._rng.choice(list(PROFILES))
        destination = Destination(
            devices=self._devices,
            channels=len(self._streams),
            machine=MACHINE,
            profile=PROFILES[profile],
            config_after_iter=self._late,
        )
        channels = tuple((*stream, End()) for stream in self._streams)
        return Sent(tuple(self._main), channels, destination, tuple(self._written))

    def _ram(self, flags: int = 0) -> RamPacket:
        self._packet_num += 1
        return RamPacket(flags=flags, packet_num=self._packet_num)

    def _sync(self) -> None:
        for stream in self._streams:
            stream.append(self._ram(MultiFDFlag.SYNC))

    def _chunk(self, device: int) -> bytes:
        chunk = self._rng.randbytes(self._rng.randrange(1, 9))
        self._written[device] += chunk
        return chunk

    def _setup(self) -> None:
        self._main += [SectionStart(0, "ram", 0, 4), FLUSH, EOS, Footer(0)]
        self._sync()
        setup = Marker(VFIOMarker.DEV_SETUP_STATE)
        for number, device in enumerate(self._devices, 1):
            self._main += [SectionStart(number, device.idstr), setup, Footer(number)]

    def _iterate(self) -> None:
        self._main += [SectionPart(0), FLUSH, EOS, Footer(0)]
        for stream in self._streams:
            stream.extend(self._ram() for _ in range(self._rng.randrange(3)))
        self._sync()
        for number in range(len(self._devices)):
            data = Marker(VFIOMarker.DEV_DATA_STATE, blob_of(self._chunk(number)))
            self._main += [SectionPart(1 + number), data, END_OF_STATE, Footer(1 + number)]

    def _send_devices(self) -> None:
        """Put device packets on any channel, before or behind the last SYNC."""
        packets: list[DevicePacket] = []
        for number, device in enumerate(self._devices):
            last = self._rng.randrange(9)
            for idx in range(last):
                packets.append(packet(idx, self._chunk(number), idstr=device.idstr))
            packets.append(packet(last, config=True, idstr=device.idstr))
        self._rng.shuffle(packets)
        final = self._rng.randrange(len(packets) + 1)
        for item in packets[:final]:
            self._rng.choice(self._streams).append(item)
        self._sync()
        for item in packets[final:]:
            self._rng.choice(self._streams).append(item)

    def _complete(self) -> None:
        self._main += [SectionPart(0, SectionType.END), FLUSH, EOS, Footer(0)]
        for number, _ in enumerate(self._devices, 1):
            self._main += [SectionPart(number, SectionType.END), END_OF_STATE, Footer(number)]
        ready = Marker(VFIOMarker.DEV_CONFIG_LOAD_READY) if self._late else END_OF_STATE
        for number, device in enumerate(self._devices, 1):
            full = SectionStart(number, device.idstr, type=SectionType.FULL)
            self._main += [full, ready, Footer(number)]
        self._main += [Eof(), VmDescription(), End()]


def interleaved(rng: random.Random, sent: Sent) -> Recording:
    """Let the streams arrive in any order that keeps that of each channel."""
    order = list(range(len(sent.channels)))
    rng.shuffle(order)
    names = [f"multifd-{number}" for number in order]
    accepted = [
        Entry(Connect(Handshake(number)), name, 0)
        for number, name in zip(order, names, strict=True)
    ]
    accepted.insert(rng.randint(0, len(accepted)), Entry(Connect(FileHeader()), "main", 0))
    queues = [deque(_entries(None, "main", sent.main))]
    for position, number in enumerate(order):
        queues.append(deque(_entries(position, names[position], sent.channels[number])))
    entries: list[Entry] = []
    while queues:
        queue = rng.choice(queues)
        for _ in range(min(len(queue), rng.randint(1, 4))):
            entries.append(queue.popleft())
        queues = [left for left in queues if left]
    return Recording(entries=(*accepted, *entries), names=tuple(names))


def _entries(
    channel: int | None, name: str, items: Sequence[MainItem | MultiFDItem]
) -> list[Entry]:
    return [Entry(Deliver(channel, item), name, number) for number, item in enumerate(items, 1)]
