# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of made migrations, decoded both ways and laid beside what was made."""

from __future__ import annotations

from collections.abc import Iterable

from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.items import Item
from mfdtool.fixtures.migration import Migration
from mfdtool.fixtures.segments import Network, transmit
from mfdtool.packets import pcap, pcapng
from mfdtool.packets.pcapng import is_pcapng
from mfdtool.stream.bulk import BulkStreams
from mfdtool.stream.connections import ScalarStreams
from mfdtool.stream.extraction import Hole, Piece
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.migration import Decoder
from mfdtool.wire.multifd import MultiFDPacketFixed

NOT_SENT = frozenset({Kind.GAP, Kind.UNDECODED})
"""Kinds of frame that stand for bytes, not for something that was sent."""


def decode_scalar(capture: bytes) -> list[Frame]:
    """Decode a capture one segment at a time."""
    view = memoryview(capture)
    records = pcapng.read(view) if is_pcapng(capture) else pcap.read(view)
    decoder = Decoder(keep_extents=True)
    frames: list[Frame] = []
    for window in ScalarStreams(view, records).windows():
        frames += decoder.feed(window)
    return frames + decoder.finish()


def decode_bulk(capture: bytes) -> list[Frame]:
    """Decode a capture by arrays."""
    decoder = Decoder(keep_extents=True)
    frames: list[Frame] = []
    for window in BulkStreams(memoryview(capture)).windows():
        frames += decoder.feed(window)
    return frames + decoder.finish()


def decode_migration(migration: Migration, network: Network | None = None) -> list[Frame]:
    """Send a migration over an orderly network and decode the capture."""
    return decode_scalar(pcapng_bytes(transmit(migration, network)))


def joined(pieces: Iterable[Piece]) -> bytes:
    """Join what an extractor gave; there must be no hole."""
    data = bytearray()
    for piece in pieces:
        assert not isinstance(piece, Hole)
        data += piece
    return bytes(data)


def assert_same(frames: list[Frame], items: tuple[Item, ...]) -> None:
    """Check that a channel's frames are its items: kinds, bytes, places and decoded headers."""
    shown = [(frame.kind, frame.data()) for frame in frames]
    assert shown == [(item.kind, item.build()) for item in items]
    position = 0
    for number, (frame, item) in enumerate(zip(frames, items, strict=True)):
        assert (frame.number, frame.offset, frame.missing) == (number, position, 0)
        position += frame.length
        header = item.header
        if isinstance(header, MultiFDPacketFixed):
            assert isinstance(frame.value, MultiFDPacketFixed)
            assert all(
                getattr(frame.value, name) == value
                for name, value in header.to_mapping().items()
                if name != "offset"
            )
        elif item.device is not None:
            assert frame.value == header
            assert frame.data(frame.payload)[12:] == item.payload


def by_channel(frames: list[Frame]) -> dict[str, list[Frame]]:
    """Sort frames by their channels."""
    channels: dict[str, list[Frame]] = {}
    for frame in frames:
        channels.setdefault(frame.channel.name, []).append(frame)
    return channels
