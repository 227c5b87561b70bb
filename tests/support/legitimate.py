# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations as a good source sends them, in any order that a network can make of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    count = rng.randint(1, 4)
    devices = tuple(
        DeviceSpec(idstr=f"0000:00:{5 + number:02x}.0/vfio") for number in range(rng.randint(1, 3))
    )
    late = rng.random() < 0.3
    destination = Destination(
        devices=devices,
        channels=count,
        machine=MACHINE,
        profile=PROFILES["10.2" if late else rng.choice(list(PROFILES))],
        config_after_iter=late,
    )
    streams: list[list[MultiFDItem]] = [[] for _ in range(count)]
    written = [b""] * len(devices)
    numbers = iter(range(1 << 20))

    def sync() -> None:
        for stream in streams:
            stream.append(RamPacket(flags=MultiFDFlag.SYNC, packet_num=next(numbers)))

    main: list[MainItem] = [
        FileHeader(),
        Configuration(MACHINE),
        SectionStart(0, "ram", 0, 4),
        FLUSH,
    ]
    main += [EOS, Footer(0)]
    sync()
    for number, device in enumerate(devices, 1):
        main += [
            SectionStart(number, device.idstr),
            Marker(VFIOMarker.DEV_SETUP_STATE),
            Footer(number),
        ]
    for _ in range(rng.randrange(3)):
        main += [SectionPart(0), FLUSH, EOS, Footer(0)]
        for stream in streams:
            stream.extend(RamPacket(packet_num=next(numbers)) for _ in range(rng.randrange(3)))
        sync()
        for number in range(len(devices)):
            chunk = rng.randbytes(rng.randrange(1, 9))
            written[number] += chunk
            data = Marker(VFIOMarker.DEV_DATA_STATE, blob_of(chunk))
            main += [SectionPart(1 + number), data, END_OF_STATE, Footer(1 + number)]
    main.append(SWITCHOVER)
    packets: list[DevicePacket] = []
    for number, device in enumerate(devices):
        last = rng.randrange(9)
        for idx in range(last):
            chunk = rng.randbytes(rng.randrange(1, 9))
            written[number] += chunk
            packets.append(packet(idx, chunk, idstr=device.idstr))
        packets.append(packet(last, config=True, idstr=device.idstr))
    final = rng.randrange(len(packets) + 1)
    for position, item in enumerate(_by_turns(rng, packets)):
        if position == final:
            sync()
        rng.choice(streams).append(item)
    if final == len(packets):
        sync()
    main += [SectionPart(0, SectionType.END), FLUSH, EOS, Footer(0)]
    for kind in ("end", "full"):
        for number, device in enumerate(devices, 1):
            ready = Marker(VFIOMarker.DEV_CONFIG_LOAD_READY) if late else END_OF_STATE
            if kind == "end":
                main += [SectionPart(number, SectionType.END), END_OF_STATE, Footer(number)]
            else:
                main += [SectionStart(number, device.idstr, type=SectionType.FULL), ready]
                main += [Footer(number)]
    main += [Eof(), VmDescription(), End()]
    channels = tuple((*stream, End()) for stream in streams)
    return Sent(tuple(main), channels, destination, tuple(written))


def _by_turns(rng: random.Random, packets: Sequence[DevicePacket]) -> list[DevicePacket]:
    """Mix the devices' packets; a source may queue them on any channel in any order of devices."""
    mixed = list(packets)
    rng.shuffle(mixed)
    return mixed


def interleaved(rng: random.Random, sent: Sent) -> Recording:
    """Let the streams arrive in any order that keeps that of each channel."""
    queues: list[tuple[int | None, list[MainItem | MultiFDItem]]] = [(None, list(sent.main))]
    queues += [(number, list(stream)) for number, stream in enumerate(sent.channels)]
    entries = [Entry(Connect(FileHeader()), "main", 0)]
    entries += [
        Entry(Connect(Handshake(number)), f"multifd-{number}", 0)
        for number in range(len(sent.channels))
    ]
    rng.shuffle(entries)
    counts = dict.fromkeys((channel for channel, _ in queues), 0)
    while queues:
        channel, queue = rng.choice(queues)
        for _ in range(rng.randint(1, 4)):
            if queue:
                counts[channel] += 1
                name = "main" if channel is None else f"multifd-{channel}"
                entries.append(Entry(Deliver(channel, queue.pop(0)), name, counts[channel]))
        queues = [entry for entry in queues if entry[1]]
    channels = [entry for entry in entries if isinstance(entry.event, Connect)]
    order = [entry.channel for entry in channels if entry.channel != "main"]
    return Recording(
        entries=tuple(_renumbered(entry, order) for entry in entries), names=tuple(order)
    )


def _renumbered(entry: Entry, order: list[str]) -> Entry:
    """Number channels in the order in which they connect."""
    event = entry.event
    if isinstance(event, Deliver) and event.channel is not None:
        return replace(entry, event=Deliver(order.index(entry.channel), event.item))
    return entry
