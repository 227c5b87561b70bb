# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes of frames, by reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.loader.blob import Blob

if TYPE_CHECKING:
    from mfdtool.stream.frames import Frame
    from mfdtool.stream.span import Span


def blob_of_frame(frame: Frame, span: Span) -> Blob:
    """Refer to the bytes of a frame in ``span``, as far as they were captured."""
    parts: list[memoryview] = []
    position, stop = span.start, span.stop
    present = 0
    for extent in frame.extents:
        low = max(extent.start, span.start)
        high = min(extent.start + len(extent.view), stop)
        if low >= high:
            continue
        present += high - low
        if low == position:
            parts.append(extent.view[low - extent.start : high - extent.start])
            position = high
    return Blob(span.size, (frame.channel.name, frame.offset), span.size - present, tuple(parts))


def joined(blobs: list[Blob]) -> Blob:
    """Put bytes one behind the other; the result is known by the first of them."""
    parts: list[memoryview] = []
    missing = 0
    for blob in blobs:
        if not missing:
            parts.extend(blob.parts)
        missing += blob.missing
    return Blob(sum(blob.length for blob in blobs), blobs[0].key, missing, tuple(parts))
