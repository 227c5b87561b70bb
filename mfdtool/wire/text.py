# SPDX-License-Identifier: GPL-2.0-or-later
"""Names in the stream are bytes; people, JSON and terminals want text.

Printable ASCII stands for itself, a backslash is doubled, any other byte is ``\\xNN``. So every
name can be shown safely, and turned back into exactly the bytes that it came from.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPED: Final = re.compile(rb"[^\x20-\x5b\x5d-\x7e]")
_WRITTEN: Final = re.compile(rb"\\(\\|x[0-9a-f]{2}|)")


def escape(raw: bytes) -> str:
    """Write bytes as printable ASCII text."""
    return _ESCAPED.sub(_escape_one, raw).decode("ascii")


def unescape(text: str) -> bytes:
    """Give the bytes that :func:`escape` wrote as ``text``.

    Raises:
        ValueError: ``text`` is not printable ASCII, or has a backslash that means nothing.
    """
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"not printable ASCII: {text!a}")
    return _WRITTEN.sub(_unescape_one, text.encode("ascii"))


def until_nul(raw: bytes) -> str:
    """Write a C string: the bytes before the first NUL, or all if there is none."""
    return escape(raw.partition(b"\0")[0])


def nul_padded(text: str, size: int) -> bytes:
    """Give ``size`` bytes that hold ``text`` and at least one NUL after it.

    Raises:
        ValueError: the text does not fit, or is not what :func:`escape` writes.
    """
    raw = unescape(text)
    if len(raw) >= size:
        raise ValueError(f"{len(raw)} bytes and a NUL do not fit in {size}")
    return raw.ljust(size, b"\0")


def _escape_one(match: re.Match[bytes]) -> bytes:
    byte = match[0][0]
    return b"\\\\" if byte == 0x5C else b"\\x%02x" % byte


def _unescape_one(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if not code:
        raise ValueError("a backslash must be followed by another one, or by x and two hex digits")
    return b"\\" if code == b"\\" else bytes([int(code[1:], 16)])
