# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam to construct: values in and out, errors with a place, layouts."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
from construct import Bytes, GreedyBytes, Int8ub, Int16ub, Int32ub, Pass, Struct, this

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire import codec
from mfdtool.wire.catalog import CATALOG
from mfdtool.wire.codec import (
    FieldInfo,
    Layout,
    Message,
    be64_array,
    counted_string,
    describe,
    field,
    member,
    nested,
    optional,
    prefixed_tuple,
    repeated,
)
from mfdtool.wire.constants import SectionType


@dataclass(frozen=True, slots=True)
class Pair(Message):
    SCHEMA = Struct(
        field("first", Int16ub, "one"),
        field("second", Int32ub, "two"),
    )
    SOURCE = "file.c:pair"

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Everything(Message):
    SCHEMA = Struct(
        field("kind", member(Int8ub, SectionType.START, SectionType.FULL), "which"),
        field("name", counted_string(), "a name"),
        field("pair", nested(Pair), "one pair"),
        field("count", Int8ub, "how many pairs"),
        field("pairs", repeated(this.count, Pair), "pairs"),
        field("names", prefixed_tuple(Int8ub, counted_string(Int16ub)), "names"),
        field("maybe", optional(this.kind == SectionType.FULL, Int8ub), "if FULL"),
        field("words", be64_array(1), "words"),
        field("raw", Bytes(this.count), "bytes"),
    )
    SOURCE = "file.c:everything"

    kind: SectionType
    name: str
    pair: Pair
    count: int
    pairs: tuple[Pair, ...]
    names: tuple[str, ...]
    maybe: int | None
    words: tuple[int, ...]
    raw: bytes


DATA = bytes.fromhex(
    "04 03 61ff5c 0001 00000002 02 0003 00000004 0005 00000006 02 0001 61 0000 07"
    "0000000000000008 090a"
)
VALUE = Everything(
    kind=SectionType.FULL,
    name="a\\xff\\\\",
    pair=Pair(1, 2),
    count=2,
    pairs=(Pair(3, 4), Pair(5, 6)),
    names=("a", ""),
    maybe=7,
    words=(8,),
    raw=b"\x09\x0a",
)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_parse_and_build(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    assert Everything.parse(kind(DATA)) == VALUE
    assert VALUE.build() == DATA


def test_optional_part_is_absent() -> None:
    data = b"\x01" + DATA[1:31] + DATA[32:]
    value = Everything.parse(data)
    assert value.maybe is None
    assert value.build() == data


def test_errors_tell_place_and_path() -> None:
    with pytest.raises(TruncatedError) as caught:
        Everything.parse(DATA[:14], channel="main", offset=100)
    expected = "main, offset 114, pairs.second: input ends, 4 more bytes wanted"
    assert str(caught.value) == expected


def test_prefix_leaves_the_rest() -> None:
    assert Pair.parse_prefix(bytes(6) + b"abc") == (Pair(0, 0), 6)
    with pytest.raises(WireError, match="3 bytes too many") as caught:
        Pair.parse(bytes(9), offset=10)
    assert not isinstance(caught.value, TruncatedError)
    assert caught.value.offset == 16


def test_member_of_another_kind() -> None:
    with pytest.raises(WireError, match=r"0x2 is not START or FULL") as caught:
        Everything.parse(b"\x02" + DATA[1:], offset=5)
    assert (caught.value.offset, caught.value.path) == (5, "kind")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Pair(1 << 16, 0), "first"),
        (Pair(0, -1), "second"),
    ],
)
def test_numbers_that_do_not_fit(value: Pair, path: str) -> None:
    with pytest.raises(WireError) as caught:
        value.build()
    assert caught.value.path == path


def test_text_that_is_not_escaped() -> None:
    @dataclass(frozen=True, slots=True)
    class Named(Message):
        SCHEMA = Struct(field("name", counted_string(), "a name"))
        SOURCE = "file.c:named"

        name: str

    assert Named("\\xff").build() == b"\x01\xff"
    for text in ("é", "\\", "x" * 256):
        with pytest.raises(WireError) as caught:
            Named(text).build()
        assert caught.value.path.startswith("name")


def test_lengths_from_the_input_allocate_nothing() -> None:
    @dataclass(frozen=True, slots=True)
    class Long(Message):
        SCHEMA = Struct(field("name", counted_string(Int32ub), "a name"))
        SOURCE = "file.c:long"

        name: str

    with pytest.raises(TruncatedError) as caught:
        Long.parse(b"\xff\xff\xff\xff" + b"abc")
    assert caught.value.missing == 0xFFFFFFFF - 3
    assert caught.value.offset == 4


def test_describe() -> None:
    described = [(info.name, info.type, info.offset, info.width) for info in describe(Everything)]
    assert described == [
        ("kind", "u8", 0, 1),
        ("name", "counted string", 1, None),
        ("pair", "Pair", None, 6),
        ("count", "u8", None, 1),
        ("pairs", "Pair[]", None, None),
        ("names", "counted string[]", None, None),
        ("maybe", "u8 or nothing", None, None),
        ("words", "be64[]", None, 8),
        ("raw", "bytes", None, None),
    ]


def test_describe_an_unforeseen_construct() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd(Message):
        SCHEMA = Struct(field("nothing", Pass, "nothing"), field("rest", GreedyBytes, "the rest"))
        SOURCE = "file.c:odd"

        nothing: None
        rest: bytes

    assert [info.width for info in describe(Odd)] == [0, None]
    with pytest.raises(TypeError, match=r"Odd\.nothing has no fixed layout"):
        Layout(Odd)


def test_layout() -> None:
    layout = Layout(Pair)
    assert layout.size == 6
    assert layout["second"] == FieldInfo(
        name="second", type="be32", meaning="two", offset=2, width=4, code="L"
    )
    with pytest.raises(KeyError, match="third"):
        layout["third"]
    assert repr(layout) == "Layout(Pair, 6 bytes)"
    assert layout.unpack(b"abc\0\1\0\0\0\2", 3) == (1, 2)
    assert layout.parse(memoryview(b"\0\1\0\0\0\2")) == Pair(1, 2)


@pytest.mark.parametrize("length", range(6))
def test_layout_at_the_end_of_input(length: int) -> None:
    layout = Layout(Pair)
    for at in (0, length, length + 10):
        with pytest.raises(TruncatedError) as caught:
            layout.parse(bytes(length), at, channel="multifd-1", base=50)
        assert caught.value.missing == 6 - max(length - at, 0)
        assert caught.value.offset == 50 + at
        assert caught.value.channel == "multifd-1"


def test_cursor_seeks_absolutely_only() -> None:
    cursor = codec._Cursor(memoryview(b"abc"))
    assert cursor.read(2) == b"ab"
    assert cursor.tell() == 2
    assert cursor.seek(1) == 1
    assert cursor.read(5) == b"bc"
    assert cursor.missing == 3
    with pytest.raises(ValueError, match="absolute positions only"):
        cursor.seek(0, 2)


@pytest.mark.parametrize("message", [message for group in CATALOG.values() for message in group])
def test_every_field_is_described(message: type[Message]) -> None:
    described = describe(message)
    assert message.__doc__
    assert message.SOURCE
    schema_names = {info.name for info in described}
    assert {info.name for info in fields(message)} <= schema_names
    for info in described:
        assert info.meaning, f"{message.__name__}.{info.name}"
        assert info.type.replace(" or ", "").replace(" ", "").strip("[]0123456789").isidentifier()
