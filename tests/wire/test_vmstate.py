# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies by their vmdescription: every byte claimed once, and nothing guessed where it is wrong."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from mfdtool.fixtures.vmstate import Field, State
from mfdtool.wire.main_stream import SubsectionHeader
from mfdtool.wire.vmdesc import DeviceDescription, parse_vmdescription
from mfdtool.wire.vmstate import (
    Encoding,
    StateBody,
    StateField,
    StateStruct,
    StateSubsection,
    Undecoded,
    decode_body,
    number_of,
)

U8 = {"name": "a", "type": "uint8", "size": 1}
HUGE = 1 << 62


def device(
    *fields: dict[str, Any], subsections: list[dict[str, Any]] | None = None, version: int = 1
) -> DeviceDescription:
    """Read a device's description."""
    entry = {
        "name": "dev",
        "instance_id": 0,
        "vmsd_name": "dev",
        "version": version,
        "fields": list(fields),
        "subsections": subsections or [],
    }
    text = json.dumps({"page_size": 4096, "devices": [entry]}).encode()
    return parse_vmdescription(text).devices[0]


def struct(name: str, *fields: dict[str, Any], size: int, **more: Any) -> dict[str, Any]:
    inner = {"vmsd_name": name, "version": 1, "fields": list(fields)}
    return {"name": name, "type": "struct", "size": size, "struct": inner, **more}


def decode(described: DeviceDescription, data: bytes, **more: Any) -> StateBody:
    """Decode a body, and check that its claims are a partition of it."""
    body = decode_body(described, data, **{"version_id": 1, **more})
    position = 0
    for start, stop in body.claims():
        assert start == position
        assert stop >= start
        position = stop
    assert position == len(data)
    return body


def names(body: StateBody) -> list[str]:
    return [field.name for field in body.fields()]


def rest(body: StateBody) -> tuple[int, str]:
    """Give how many bytes are undecoded, and why."""
    assert body.undecoded is not None
    return body.undecoded.stop - body.undecoded.start, body.undecoded.reason


# What fits.


def test_fields_structs_and_subsections() -> None:
    state = State(
        name="dev",
        fields=(
            Field(name="a", type="uint8", data=b"\1"),
            Field(name="regs", type="uint16", data=bytes(8), count=4),
            Field(
                name="s",
                struct=State(
                    name="inner",
                    fields=(Field(name="b", type="int32", data=b"\xff\xff\xff\xfe"),),
                    subsections=(
                        State(name="inner/x", version=2, fields=(Field(name="c", data=b"xyz"),)),
                    ),
                ),
            ),
        ),
        subsections=(State(name="dev/y", fields=(Field(name="d", type="bool", data=b"\1"),)),),
    )
    entry = state.describe()
    described = device(*entry["fields"], subsections=entry["subsections"])
    inner_header = SubsectionHeader(name="inner/x", version_id=2).build()
    header = SubsectionHeader(name="dev/y").build()
    body = decode(described, state.body())
    at = 9 + 4 + len(inner_header)
    assert body == StateBody(
        items=(
            StateField(name="a", type="uint8", start=0, size=1),
            StateField(name="regs", type="uint16", start=1, size=2, count=4),
            StateStruct(
                name="s",
                start=9,
                stop=at + 3,
                items=(
                    StateField(name="b", type="int32", start=9, size=4),
                    StateSubsection(
                        name="inner/x",
                        version=2,
                        start=13,
                        header_size=len(inner_header),
                        stop=at + 3,
                        items=(StateField(name="c", type="buffer", start=at, size=3),),
                    ),
                ),
            ),
            StateSubsection(
                name="dev/y",
                version=1,
                start=at + 3,
                header_size=len(header),
                stop=at + 4 + len(header),
                items=(StateField(name="d", type="bool", start=at + 3 + len(header), size=1),),
            ),
        )
    )
    regs = body.items[1]
    assert isinstance(regs, StateField)
    assert list(regs.elements()) == [(1, 3), (3, 5), (5, 7), (7, 9)]


def test_subsection_that_was_not_needed() -> None:
    needed = {"vmsd_name": "dev/b", "version": 1, "fields": [U8]}
    absent = {"vmsd_name": "dev/a", "version": 1, "fields": [U8]}
    data = b"\7" + SubsectionHeader(name="dev/b").build() + b"\1"
    body = decode(device(U8, subsections=[absent, needed]), data)
    assert body.undecoded is None
    assert [item.name for item in body.items] == ["a", "dev/b"]


def test_array_of_structs() -> None:
    described = device(struct("s", U8, {"name": "b", "type": "uint16", "size": 2}, size=3,
                              array_len=3))  # fmt: skip
    body = decode(described, bytes(9))
    assert body.undecoded is None
    assert [(item.start, item.stop) for item in body.items] == [(0, 3), (3, 6), (6, 9)]
    assert [item.index for item in body.items if isinstance(item, StateStruct)] == [0, 1, 2]


def test_array_whose_elements_are_described_one_by_one() -> None:
    described = device({**U8, "index": 0}, {"name": "a", "type": "nullptr", "size": 1, "index": 1})
    body = decode(described, b"\x070")
    fields = list(body.fields())
    assert [(field.index, field.encoding) for field in fields] == [
        (0, Encoding.UNSIGNED),
        (1, Encoding.NULL),
    ]


def test_capabilities_have_lengths_of_their_own() -> None:
    described = device(
        {"name": "capabilities", "type": "capability", "size": 5, "array_len": 2}, U8
    )
    body = decode(described, b"\4mapp\6shared\x09")
    assert body.undecoded is None
    assert [(field.start, field.size, field.index) for field in body.fields()] == [
        (0, 5, 0),
        (5, 7, 1),
        (12, 1, None),
    ]


def test_old_style_bodies_are_one_field_of_any_length() -> None:
    described = DeviceDescription(name="slirp", instance_id=0, size=9)
    for size in (0, 9, 20):
        body = decode(described, bytes(size), version_id=4)
        assert body.items == (StateField(name="data", type="buffer", start=0, size=size),)


@pytest.mark.parametrize(
    ("type_name", "raw", "value"),
    [
        ("int8", b"\xff", -1),
        ("uint8", b"\xff", 255),
        ("int32 le", b"\0\0\0\2", 2),
        ("uint16 equal", b"\x80\0", 0x8000),
        ("int64 equal", b"\xff" * 8, -1),
        ("timer", b"\xff" * 8, -1),
    ],
)
def test_numbers_are_big_endian(type_name: str, raw: bytes, value: int) -> None:
    assert number_of(StateField(name="n", type=type_name, start=0, size=len(raw)), raw) == value


# What does not fit.


def test_version() -> None:
    body = decode(device(U8, version=3), b"\1", version_id=2)
    assert body.items == ()
    assert rest(body) == (1, "version 2; the vmdescription is of version 3")
    assert decode(device(U8, version=3), b"", version_id=2) == StateBody(items=())


@pytest.mark.parametrize(
    ("data", "undecoded"),
    [
        (b"", (0, "a ends behind the body's end")),
        (b"\1\2", (2, "1 more than the vmdescription has fields for")),
    ],
)
def test_another_length(data: bytes, undecoded: tuple[int, str]) -> None:
    body = decode(device(U8), data)
    assert body.items == ()
    assert rest(body) == undecoded


def test_fields_in_front_of_an_array_that_may_vary_are_right() -> None:
    inner = {"name": "data", "type": "buffer", "size": 2}
    described = device(U8, struct("s", inner, size=2, array_len=2), {**U8, "name": "z"})
    body = decode(described, b"\1abcdef\2")
    assert names(body) == ["a", "data"]
    assert rest(body) == (5, "2 more than the vmdescription has fields for")


def test_an_array_of_lists_may_vary() -> None:
    queue = {"name": "q", "type": "qtailq", "size": 1, "array_len": 2}
    assert names(decode(device(U8, queue), b"\1\0\1\0\0")) == ["a"]


def test_arrays_of_numbers_do_not_vary() -> None:
    described = device(U8, struct("s", U8, {"name": "n", "type": "uint32", "size": 4}, size=5,
                                  array_len=2))  # fmt: skip
    body = decode(described, bytes(12))
    assert names(body) == []
    assert rest(body)[0] == 12


def test_a_subsection_found_after_an_array_tells_that_the_array_is_right() -> None:
    array = struct("s", {"name": "data", "type": "buffer", "size": 2}, size=2, array_len=2)
    described = device(array, subsections=[{"vmsd_name": "dev/b", "version": 1, "fields": [U8]}])
    body = decode(described, b"abcd" + SubsectionHeader(name="dev/b").build() + b"\1\2")
    assert names(body) == []
    body = decode(described, b"abcd" + SubsectionHeader(name="dev/c").build() + b"\1\2")
    assert names(body) == ["data", "data"]
    assert rest(body) == (13, "subsection dev/c is not in the vmdescription")


def test_subsection_of_another_version() -> None:
    described = device(U8, subsections=[{"vmsd_name": "dev/b", "version": 1, "fields": [U8]}])
    body = decode(described, b"\1" + SubsectionHeader(name="dev/b", version_id=2).build() + b"\1")
    assert names(body) == ["a"]
    assert rest(body) == (12, "subsection dev/b is of version 2; the vmdescription is of 1")


def test_five_is_a_value_like_any_other() -> None:
    described = device(struct("s", U8, size=1), {"name": "b", "type": "buffer", "size": 9})
    body = decode(described, b"\1" + b"\5\7another")
    assert body.undecoded is None


def test_holes() -> None:
    described = device(
        U8,
        {"name": "c", "type": "capability", "size": 3},
        subsections=[{"vmsd_name": "dev/b", "version": 7, "fields": [U8]}],
    )
    data = b"\1\2ab" + SubsectionHeader(name="dev/b", version_id=7).build() + b"\1"
    for at in range(len(data)):
        filled = data[:at] + b"\0" + data[at + 1 :]
        body = decode(described, filled, holes=((at, at + 1),))
        if at == 1:
            assert rest(body) == (len(data), "no length of c")
        else:
            assert body.undecoded is None
            assert names(body) == ["a", "c", "a"]


@pytest.mark.parametrize(
    "field",
    [
        {"name": "n", "type": "uint8", "size": 0, "array_len": HUGE},
        {"name": "n", "type": "uint8", "size": 1, "array_len": HUGE},
        {"name": "n", "type": "capability", "size": 1, "array_len": HUGE},
        struct("s", size=0, array_len=HUGE),
        struct("s", size=1, array_len=HUGE),
        struct("s", U8, size=1, array_len=HUGE),
        struct("s", *[struct("e", U8, size=1, array_len=0)] * 50, U8, size=1, array_len=100),
        struct("s", *[{"name": "n", "type": "x", "size": 0}] * 50, U8, size=1, array_len=100),
    ],
)
def test_hostile_arrays_come_to_an_end(field: dict[str, Any]) -> None:
    body = decode(device(field), bytes(100))
    assert body.undecoded is not None
    assert sum(1 for _ in body.fields()) < 2000


def test_struct_without_a_description_is_bytes() -> None:
    body = decode(device({"name": "s", "type": "struct", "size": 4}), bytes(4))
    assert [field.encoding for field in body.fields()] == [Encoding.BYTES]


# Anything.


def random_state(rng: Random, name: str, depth: int) -> State:
    """Make a state of any shape; numbers, buffers, arrays, structs and subsections."""
    fields = []
    for index in range(rng.randrange(1, 5)):
        kind = rng.choice(("uint32", "int8", "bool", "buffer", "array", "struct"))
        label = f"f{index}"
        if kind == "struct" and depth:
            inner = random_state(rng, f"{name}.{label}", depth - 1)
            fields.append(Field(name=label, struct=inner))
        elif kind == "array":
            count = rng.randrange(2, 9)
            data = rng.randbytes(2 * count)
            fields.append(Field(name=label, type="uint16", data=data, count=count))
        else:
            size = {"uint32": 4, "int8": 1, "bool": 1}.get(kind, rng.randrange(1, 40))
            type_name = kind if kind != "struct" else "buffer"
            fields.append(Field(name=label, type=type_name, data=rng.randbytes(size)))
    subsections = [
        random_state(rng, f"{name}/{index}", depth - 1)
        for index in range(rng.randrange(3) if depth else 0)
    ]
    return State(name=name, version=rng.randrange(9), fields=fields, subsections=subsections)


def leaves(state: State) -> list[tuple[str, bytes]]:
    """Give what a state was made of, in stream order."""
    made = []
    for field in state.fields:
        made += [(field.name, field.data)] if field.struct is None else leaves(field.struct)
    for subsection in state.subsections:
        made += leaves(subsection)
    return made


@pytest.mark.parametrize("seed", range(50))
def test_what_was_built_is_decoded(seed: int) -> None:
    rng = Random(seed)
    state = random_state(rng, "dev", 3)
    entry = state.describe()
    described = device(
        *entry["fields"], subsections=entry.get("subsections"), version=state.version
    )
    data = state.body()
    body = decode(described, data, version_id=state.version)
    assert body.undecoded is None
    assert [(each.name, data[each.start : each.stop]) for each in body.fields()] == leaves(state)


@pytest.mark.parametrize("seed", range(10))
def test_any_damage_is_survived(seed: int) -> None:
    rng = Random(seed)
    state = random_state(rng, "dev", 3)
    entry = state.describe()
    described = device(*entry["fields"], subsections=entry.get("subsections"))
    data = state.body()
    for stop in range(len(data)):
        decode(described, data[:stop])
        damaged = bytearray(data)
        damaged[stop] = rng.randrange(256)
        decode(described, bytes(damaged))
    longer = decode(described, data + b"\0")
    assert isinstance(longer.undecoded, Undecoded)
