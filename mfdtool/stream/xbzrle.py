# SPDX-License-Identifier: GPL-2.0-or-later
"""XBZRLE: a page as the difference to its copy before (xbzrle.c:xbzrle_decode_buffer).

The data is pairs of runs, each with its length in front: so many bytes as they were, then so many
new ones, which follow. Lengths are ULEB128 of at most two bytes. A run of old bytes at the end of
the page is left out, so what no run names stays as it was.
"""

from __future__ import annotations

from typing import Final

from mfdtool.errors import TruncatedError, WireError

_MORE: Final = 0x80
_LOW_BITS: Final = 7
_MOST_BYTES: Final = 2


def apply_xbzrle(page: bytes, data: bytes) -> bytes:
    """Give the new content of ``page``, which is as long.

    Raises:
        TruncatedError: ``data`` ends inside a length or a run.
        WireError: a run is empty where none may be, or reaches beyond the page.
    """
    result = bytearray(page)
    at = position = 0
    while position < len(data):
        start = position
        unchanged, position = _length(data, position)
        if not unchanged and start:
            raise WireError("an XBZRLE run of old bytes is empty", offset=start)
        at += unchanged
        start = position
        changed, position = _length(data, position)
        if not changed:
            raise WireError("an XBZRLE run of new bytes is empty", offset=start)
        if at + changed > len(page):
            raise WireError(f"XBZRLE runs reach beyond {len(page)} bytes", offset=start)
        if position + changed > len(data):
            raise TruncatedError(position + changed - len(data), offset=len(data))
        result[at : at + changed] = data[position : position + changed]
        at += changed
        position += changed
    return bytes(result)


def _length(data: bytes, position: int) -> tuple[int, int]:
    """Decode a length (cutils.c:uleb128_decode_small); give it and where it ends."""
    length = 0
    for number in range(_MOST_BYTES):
        if position + number >= len(data):
            raise TruncatedError(1, offset=len(data))
        byte = data[position + number]
        length |= (byte & ~_MORE) << number * _LOW_BITS
        if not byte & _MORE:
            return length, position + number + 1
    raise WireError("an XBZRLE length has more than two bytes", offset=position)
