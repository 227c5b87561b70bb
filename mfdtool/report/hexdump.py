# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of a frame as a hex dump; positions are those in the channel's stream.

Nothing is joined that is longer than a block, so a frame of gigabytes costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from mfdtool.stream.frames import Frame

HEADER_LIMIT: Final = 384
PAYLOAD_LIMIT: Final = 64
"""Bytes of header and of payload that are shown of a frame, unless all of it is asked for."""

_LINE: Final = 16
_BLOCK: Final = _LINE * 1024
_UNPRINTABLE: Final = bytes(code if 0x20 <= code < 0x7F else ord(".") for code in range(256))


def hexdump(frame: Frame, *, full: bool = False) -> Iterator[str]:
    """Give a frame's bytes as lines, header and payload apart, and say what is left out.

    The decoder must have kept the frame's extents.
    """
    body = data_start(frame)
    for start, stop, limit in (
        (frame.offset, body, HEADER_LIMIT),
        (body, frame.end, PAYLOAD_LIMIT),
    ):
        shown = stop if full else min(stop, start + limit)
        for position, data in _blocks(frame, start, shown):
            yield from _lines(position, data)
        if shown < stop:
            yield f"    {shown:08x}  ... {stop - shown} more bytes\n"


def data_start(frame: Frame) -> int:
    """Give the position behind a frame's headers, that of a VFIO packet included."""
    if frame.payload is None:
        return frame.end
    inner = VFIO_PACKET_HEADER_SIZE if isinstance(frame.value, DeviceStateHeader) else 0
    return frame.payload.start + inner


def _blocks(frame: Frame, start: int, stop: int) -> Iterator[tuple[int, bytes | int]]:
    """Give the range as (position, bytes), or (position, how many) where bytes are missing."""
    held = bytearray()
    position = start
    for extent in frame.extents:
        low, high = max(extent.start, start), min(extent.start + len(extent.view), stop)
        if low >= high:
            continue
        if low > position + len(held):
            yield from _flush(position, held)
            position += len(held)
            held.clear()
            yield position, low - position
            position = low
        for at in range(low, high, _BLOCK):
            held += extent.view[at - extent.start : min(at + _BLOCK, high) - extent.start]
            whole = len(held) - len(held) % _LINE
            yield from _flush(position, held[:whole])
            position += whole
            del held[:whole]
    yield from _flush(position, held)
    position += len(held)
    if position < stop:
        yield position, stop - position


def _flush(position: int, data: bytearray) -> Iterator[tuple[int, bytes]]:
    if data:
        yield position, bytes(data)


def _lines(position: int, data: bytes | int) -> Iterator[str]:
    if isinstance(data, int):
        yield f"    {position:08x}  {data} bytes missing\n"
        return
    for at in range(0, len(data), _LINE):
        line = data[at : at + _LINE]
        text = line.translate(_UNPRINTABLE).decode("ascii")
        left, right = line[:8].hex(" "), line[8:].hex(" ")
        yield f"    {position + at:08x}  {left:23}  {right:23}  |{text}|\n"
