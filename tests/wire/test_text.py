# SPDX-License-Identifier: GPL-2.0-or-later
"""Names as text: safe to show, and exactly reversible."""

from __future__ import annotations

from random import Random

import pytest

from mfdtool.wire.text import escape, nul_padded, unescape, until_nul


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"0000:00:05.0/vfio", "0000:00:05.0/vfio"),
        (b"a\\b", "a\\\\b"),
        (b"\x00\x1b[1m\x7f\xc3\xa9\n", "\\x00\\x1b[1m\\x7f\\xc3\\xa9\\x0a"),
        (b"\\x41", "\\\\x41"),
    ],
)
def test_escape(raw: bytes, text: str) -> None:
    assert escape(raw) == text
    assert unescape(text) == raw


def test_any_bytes_survive() -> None:
    random = Random(1)
    for size in range(200):
        raw = random.randbytes(size)
        text = escape(raw)
        assert text.isascii()
        assert text == "" or text.isprintable()
        assert unescape(text) == raw


@pytest.mark.parametrize("text", ["é", "a\n", "\\", "a\\n", "\\x4", "\\x4G", "\\xAB"])
def test_unescape_refuses_what_escape_does_not_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"printable|backslash"):
        unescape(text)


def test_until_nul() -> None:
    assert until_nul(b"pc.ram\0garbage\xff") == "pc.ram"
    assert until_nul(b"\0") == ""
    assert until_nul(b"abc\xff") == "abc\\xff"


def test_nul_padded() -> None:
    assert nul_padded("abc", 5) == b"abc\0\0"
    assert nul_padded("\\xff", 2) == b"\xff\0"
    with pytest.raises(ValueError, match="5 bytes and a NUL do not fit in 5"):
        nul_padded("abcde", 5)
