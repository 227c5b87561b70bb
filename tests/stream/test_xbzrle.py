# SPDX-License-Identifier: GPL-2.0-or-later
"""XBZRLE differences: real ones, all that can be, and those that no source writes."""

from __future__ import annotations

from random import Random

import pytest

from mfdtool.errors import TruncatedError, WireError
from mfdtool.stream.xbzrle import apply_xbzrle

OLD = bytes(range(200))


def length(number: int) -> bytes:
    """Encode a length as QEMU's uleb128_encode_small does."""
    return bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))


def encode(old: bytes, new: bytes) -> bytes:
    """Encode a difference, as simply as can be."""
    result, at = b"", 0
    while at < len(new):
        start = at
        while at < len(new) and old[at] == new[at]:
            at += 1
        if at == len(new):
            break
        changed = at
        while at < len(new) and old[at] != new[at]:
            at += 1
        result += length(changed - start) + length(at - changed) + new[changed:at]
    return result


@pytest.mark.parametrize(
    ("data", "new"),
    [
        ("", OLD),
        ("00 02 aabb", b"\xaa\xbb" + OLD[2:]),
        ("03 01 aa", OLD[:3] + b"\xaa" + OLD[4:]),
        ("c601 02 aabb", OLD[:198] + b"\xaa\xbb"),
        ("01 01 aa 01 02 bbcc", OLD[:1] + b"\xaa" + OLD[2:3] + b"\xbb\xcc" + OLD[5:]),
    ],
)
def test_by_hand(data: str, new: bytes) -> None:
    assert apply_xbzrle(OLD, bytes.fromhex(data)) == new


def test_at_random() -> None:
    random = Random(1)
    for _ in range(300):
        old = random.randbytes(4096)
        new = bytearray(old)
        for _ in range(random.randrange(8)):
            start = random.randrange(4096)
            size = random.choice([1, 2, 127, 128, 129, 4096])
            new[start : start + size] = random.randbytes(len(new[start : start + size]))
        assert apply_xbzrle(old, encode(old, bytes(new))) == new


def test_every_truncation() -> None:
    new = OLD[:150] + b"\xff" * 20 + OLD[170:]
    data = encode(OLD, new)
    assert apply_xbzrle(OLD, data) == new
    for stop in range(1, len(data)):
        with pytest.raises(TruncatedError):
            apply_xbzrle(OLD, data[:stop])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("00 00", "run of new bytes is empty"),
        ("05 00 05 01 aa", "run of new bytes is empty"),
        ("00 01 aa 00 01 bb", "run of old bytes is empty"),
        ("c701 02 aabb", "reach beyond 200 bytes"),
        ("ff7f 01 aa", "reach beyond 200 bytes"),
        ("808001 01 aa", "more than two bytes"),
    ],
)
def test_what_no_source_writes(data: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        apply_xbzrle(OLD, bytes.fromhex(data))
