# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of variable length at a cursor."""

from __future__ import annotations

from typing import TypeVar

from mfdtool.errors import TruncatedError, WireError
from mfdtool.stream.parsing import MESSAGE_LIMIT, Parse, take
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import End, EndReason, Gap, run_of
from mfdtool.wire.ram import BlockId

T = TypeVar("T")
MESSAGE = b"\x06pc.ram"


def drive(reader: Reader, data: bytes, parse: Parse[T], *, end: bool = False) -> list[T | None]:
    """Feed byte by byte until the step is done; give its result, nothing if it still waits."""
    step = take(reader, parse)
    for byte in data:
        reader.feed(run_of(bytes([byte]), start=reader.fed))
        try:
            next(step)
        except StopIteration as done:
            return [done.value]
    if not end:
        return []
    reader.feed(End(reader.fed, EndReason.FIN, 1, 1))
    try:
        next(step)
    except StopIteration as done:
        return [done.value]
    return []


def test_taken_when_it_is_whole() -> None:
    for length in range(len(MESSAGE)):
        assert drive(Reader(), MESSAGE[:length], BlockId.parse_prefix) == []
    reader = Reader()
    assert drive(reader, MESSAGE, BlockId.parse_prefix) == [BlockId("pc.ram")]
    assert reader.position == 7


def test_what_follows_is_left_alone() -> None:
    reader = Reader()
    reader.feed(run_of(MESSAGE + b"more"))
    assert drive(reader, b"!", BlockId.parse_prefix) == [BlockId("pc.ram")]
    assert reader.read(5) == b"more!"


def test_not_whole_at_the_end() -> None:
    for length in range(len(MESSAGE)):
        reader = Reader()
        assert drive(reader, MESSAGE[:length], BlockId.parse_prefix, end=True) == [None]
        assert reader.position == 0


def test_not_whole_before_a_gap() -> None:
    reader = Reader()
    reader.feed(run_of(MESSAGE[:3]))
    reader.feed(Gap(3, 4, "lost"))
    assert drive(reader, b"?", BlockId.parse_prefix) == [None]


def test_not_a_message() -> None:
    def refuse(data: bytes) -> tuple[str, int]:
        raise WireError(f"not {data!r}")

    reader = Reader()
    assert drive(reader, b"ab", refuse) == [None]
    assert reader.position == 0


def test_longer_than_anybody_would_write() -> None:
    def want_more(data: bytes) -> tuple[str, int]:
        raise TruncatedError(1 << 30)

    reader = Reader()
    assert drive(reader, b"ab", want_more) == [None]
    assert reader.position == 0


def test_a_message_that_asks_for_byte_after_byte_is_not_tried_for_each() -> None:
    tries: list[int] = []

    def want_one_more(data: bytes) -> tuple[str, int]:
        tries.append(len(data))
        raise TruncatedError(1)

    reader = Reader()
    reader.feed(run_of(bytes(1 << 20)))
    assert drive(reader, b"!", want_one_more) == [None]
    assert len(tries) < 10
    assert max(tries) <= 2 * MESSAGE_LIMIT
