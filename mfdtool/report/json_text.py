# SPDX-License-Identifier: GPL-2.0-or-later
"""Indent JSON text without reading it.

A vmdescription repeats keys in one object, which a JSON reader would drop. So the text is cut into
tokens, and only the white space between them changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
_DEEPEST: Final = 64
"""Indentation grows no further, lest hostile text grow beyond all measure."""


def indented(text: bytes | bytearray) -> Iterator[bytes]:
    """Give the text in pieces, indented by two blanks a level; it ends with a newline."""
    depth = 0
    empty = True
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in b"}]":
            depth -= 1
            if not empty:
                yield _line(depth)
            empty = False
            yield token
            continue
        if empty and depth:
            yield _line(depth)
        empty = token in b"{["
        depth += empty
        if token == b",":
            yield token + _line(depth)
        else:
            yield b": " if token == b":" else token
    yield b"\n"


def _line(depth: int) -> bytes:
    return b"\n" + b"  " * min(max(depth, 0), _DEEPEST)
