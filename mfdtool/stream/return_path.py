# SPDX-License-Identifier: GPL-2.0-or-later
"""The return path, cut into messages (migration.c:source_return_path_thread)."""

from __future__ import annotations

from typing import Final

from mfdtool.errors import WireError
from mfdtool.stream.frames import Framer, Frames, Kind
from mfdtool.stream.reader import State
from mfdtool.stream.span import Span
from mfdtool.stream.values import ReturnPathRecord
from mfdtool.wire.constants import RETURN_PATH_MAX_LENGTH, ReturnPathType
from mfdtool.wire.return_path import (
    RETURN_PATH_LAYOUT,
    RecvBitmapEnd,
    RecvBitmapSize,
    parse_return_path_payload,
)

_BITMAP_SIZE: Final = 8
_ENDING: Final = RecvBitmapEnd().build()


class ReturnPathFramer(Framer):
    """Cuts what the destination sends back on the main connection."""

    def frames(self) -> Frames:
        """Yield the messages; after a byte that belongs to none, the rest is undecoded."""
        reader = self.reader
        while True:
            start = reader.position
            state = yield from reader.need(RETURN_PATH_LAYOUT.size)
            if state is State.END and start == reader.fed:
                return
            if state is not State.READY:
                yield from self._lose_rest("no whole message")
                return
            first = reader.stamp()
            header = RETURN_PATH_LAYOUT.parse(reader.peek(RETURN_PATH_LAYOUT.size))
            if header.kind is None or header.len > RETURN_PATH_MAX_LENGTH:
                yield from self._lose_rest("not a return path message")
                return
            reader.advance(RETURN_PATH_LAYOUT.size)
            payload = None
            length = RETURN_PATH_LAYOUT.size + header.len
            state = yield from reader.need(header.len)
            if state is State.READY and header.len:
                try:
                    payload = parse_return_path_payload(header.kind, reader.peek(header.len))
                except WireError:
                    payload = None
            missing = yield from reader.skip(header.len)
            bitmap = 0
            if header.kind is ReturnPathType.RECV_BITMAP:
                state = yield from reader.need(_BITMAP_SIZE)
                if state is State.READY:
                    size = RecvBitmapSize.parse(reader.peek(_BITMAP_SIZE)).size
                    bitmap = _BITMAP_SIZE + size + len(_ENDING)
                    missing += yield from reader.skip(bitmap)
            body = start + RETURN_PATH_LAYOUT.size
            yield self._frame(
                Kind.RETURN_PATH_MESSAGE,
                start,
                first,
                length=length + bitmap,
                missing=missing,
                value=ReturnPathRecord(header, payload),
                payload=Span(body, start + length + bitmap) if length + bitmap > 4 else None,
                reason="not captured" if missing else "",
            )
            yield from self._gaps()
