# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmdescription: found, read, and right about the sections of real streams."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from mfdtool.errors import WireError
from mfdtool.wire.constants import SectionType
from mfdtool.wire.main_stream import SectionFooter, SectionStart, VmDescriptionHeader
from mfdtool.wire.vmdesc import (
    MAX_DEPTH,
    DeviceDescription,
    FieldDescription,
    StateDescription,
    VmDescription,
    body_size,
    body_sizes,
    find_vmdescription,
    parse_vmdescription,
)

SMALL = (
    b'{"configuration": {"vmsd_name": "configuration", "version": 1, "fields": [{"name": "len", '
    b'"type": "uint32", "size": 4}, {"name": "name", "type": "buffer", "size": 11}]}, '
    b'"page_size": 4096, "devices": [{"name": "0000:00:05.0/vfio", "instance_id": 0, "size": 8, '
    b'"fields": [{"name": "data", "size": 8, "type": "buffer"}]}]}'
)

SMALL_VALUE = VmDescription(
    page_size=4096,
    configuration=StateDescription(
        vmsd_name="configuration",
        version=1,
        fields=(
            FieldDescription(name="len", type="uint32", size=4),
            FieldDescription(name="name", type="buffer", size=11),
        ),
    ),
    devices=(
        DeviceDescription(
            name="0000:00:05.0/vfio",
            instance_id=0,
            size=8,
            fields=(FieldDescription(name="data", type="buffer", size=8),),
        ),
    ),
)


def ending(text: bytes) -> bytes:
    return b"\0" + VmDescriptionHeader(length=len(text)).build() + text


def device(*fields: dict[str, Any], **more: Any) -> DeviceDescription:
    """Read a device of one vmsd with these fields."""
    vmsd = {"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, "fields": fields}
    document = {"page_size": 4096, "devices": [vmsd | more]}
    return parse_vmdescription(json.dumps(document).encode()).devices[0]


def field(kind: str = "uint32", size: int = 4, **more: Any) -> dict[str, Any]:
    return {"name": "f", "type": kind, "size": size, **more}


def state(name: str, *fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"vmsd_name": name, "version": 1, "fields": list(fields), **more}


# Real streams.


def test_body_sizes_lead_from_section_to_section(main_stream: bytes) -> None:
    found = find_vmdescription(main_stream)
    assert found is not None
    start, stop = found
    description = parse_vmdescription(main_stream[start:stop])
    assert len(description.devices) >= 31
    sizes = body_sizes(description)
    # The first FULL section of these streams is the timer's.
    position = main_stream.index(b"\x04\0\0\0\0\x05timer\0\0\0\0\0\0\0\x02")
    for expected in description.devices:
        section, used = SectionStart.parse_prefix(main_stream[position : position + 300])
        assert section.type is SectionType.FULL
        assert (section.idstr, section.instance_id) == (expected.name, expected.instance_id)
        size = sizes[section.idstr, section.instance_id]
        assert size is not None
        position += used + size
        footer, used = SectionFooter.parse_prefix(main_stream[position : position + 5])
        assert footer.section_id == section.section_id
        position += used
    assert main_stream[position] == SectionType.EOF
    header = VmDescriptionHeader.parse(main_stream[position + 1 : position + 6])
    assert (position + 6, header.length) == (start, stop - start)


def test_configuration_of_a_real_stream(main_stream: bytes) -> None:
    found = find_vmdescription(main_stream)
    assert found is not None
    description = parse_vmdescription(main_stream[found[0] :])
    assert description.page_size == 4096
    assert description.configuration is not None
    assert [(info.name, info.size) for info in description.configuration.fields] == [
        ("len", 4),
        ("name", len("pc-i440fx-10.0")),
    ]
    assert body_sizes(description)["cpu", 0] == 1882


# Finding it.


def test_small_description() -> None:
    assert parse_vmdescription(SMALL) == SMALL_VALUE
    data = b"anything" + ending(SMALL)
    assert find_vmdescription(data) == (14, len(data))


@pytest.mark.parametrize("size", [0x7B, 0x7B00, 0x7B7B, 0x100, 0x10000, 0x27B7B])
def test_lengths_that_look_like_braces_or_nul(size: int) -> None:
    text = b"{" + b" " * (size - 2) + b"}"
    data = b"\x06\0\0{{" + ending(text)
    assert find_vmdescription(data) == (len(data) - size, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"no NUL at all",
        SMALL,
        ending(SMALL)[:-1],
        ending(SMALL) + b"}",
        ending(SMALL) + b"\0",
        ending(SMALL).replace(b"\x06", b"\x07", 1),
        ending(b"[]"),
        b"\0\x02{}",
    ],
)
def test_nothing_to_find(data: bytes) -> None:
    assert find_vmdescription(data) is None


def test_search_is_bounded() -> None:
    data = ending(SMALL)
    assert find_vmdescription(data, limit=len(SMALL)) == (6, len(data))
    assert find_vmdescription(data, limit=len(SMALL) - 1) is None
    assert find_vmdescription(b"\0" + b"x" * 200_000, limit=100_000) is None


# Sizes.


def test_old_style_device() -> None:
    assert body_size(SMALL_VALUE.devices[0]) == 8
    assert body_sizes(SMALL_VALUE) == {("0000:00:05.0/vfio", 0): 8}


def test_arrays_multiply() -> None:
    assert body_size(device(field(array_len=3), field("uint8", 1), field("buffer", 0))) == 13
    assert body_size(device(field(index=0), field(index=1))) == 8
    assert body_size(device(field(array_len=0))) == 0


def test_size_of_a_struct_includes_its_subsections() -> None:
    nested = state("s", field(), subsections=[state("s/x", field("uint8", 1))])
    assert body_size(device(field("struct", 4 + 9 + 1, struct=nested))) == 14


def test_subsections_of_a_device() -> None:
    inner = state("d/a/b", field("uint8", 1))
    outer = state("d/a", field(), subsections=[inner])
    expected = 4 + (6 + 3 + 4) + (6 + 5 + 1)
    assert body_size(device(field(), subsections=[outer])) == expected


@pytest.mark.parametrize("kind", ["capability", "qtailq", "qlist", "gtree"])
def test_arrays_of_variable_elements_have_no_size(kind: str) -> None:
    assert body_size(device(field(kind, 7))) == 7
    assert body_size(device(field(kind, 7, array_len=1))) == 7
    assert body_size(device(field(kind, 7, array_len=2))) is None
    element = state("s", field("struct", 7, struct=state("t", field(kind, 7))))
    assert body_size(device(field("struct", 7, array_len=2, struct=element))) is None
    sub = state("d/a", field(kind, 7, array_len=2))
    assert body_size(device(field(), subsections=[sub])) is None


def test_arrays_of_structs() -> None:
    element = state("s", field("tmp", 10))
    assert body_size(device(field("struct", 10, array_len=8, struct=element))) == 80
    odd = state("s", field(), subsections=[state("s/x")])
    assert body_size(device(field("struct", 11, array_len=2, struct=odd))) is None


def test_repeated_keys_of_a_nested_list() -> None:
    element = '"vmsd_name": "e", "version": 1, "fields": [{"name": "x", "type": "bool", "size": 1}]'
    text = (
        '{"page_size": 1, "devices": [{"name": "d", "instance_id": 0, "vmsd_name": "d", '
        f'"version": 1, "fields": [{{"name": "list", "type": "qtailq", {element}, {element}, '
        '"size": 5}]}]}'
    )
    assert body_size(parse_vmdescription(text.encode()).devices[0]) == 5


def test_names_are_escaped() -> None:
    odd = device(field(), subsections=[state("d/é")], name="a\\b\x1b\ud800")
    assert odd.name == "a\\\\b\\x1b\\xed\\xa0\\x80"
    assert body_size(odd) == 4 + 6 + 4


# Hostile text.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON text"),
        (b"{", "not JSON text"),
        (b"\xff{}", "not JSON text"),
        (b'{"page_size": NaN}', "NaN is not JSON"),
        (b'{"page_size": ' + b"9" * 5000 + b"}", "not JSON text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "not an object"),
        (b"{}", "page_size: not an unsigned"),
        (b'{"page_size": 1.5}', "page_size: not an unsigned"),
        (b'{"page_size": true}', "page_size: not an unsigned"),
        (b'{"page_size": -1}', "page_size: not an unsigned"),
        (b'{"page_size": 9223372036854775808}', "page_size: not an unsigned"),
        (b'{"page_size": 1, "devices": {}}', "devices: not an array"),
        (b'{"page_size": 1, "devices": [1]}', r"devices\[0\]: not an object"),
        (b'{"page_size": 1, "devices": [{"name": 5}]}', r"devices\[0\].name: not a string"),
    ],
)
def test_hostile_text(text: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        parse_vmdescription(text, channel="main", offset=77)
    assert (caught.value.channel, caught.value.offset) == ("main", 77)


def test_paths_into_the_text() -> None:
    with pytest.raises(WireError) as caught:
        device(field(), field("struct", 1, struct=state("s", {"name": "n", "type": "t"})))
    assert caught.value.path == "devices[0].fields[1].struct.fields[0].size"


@pytest.mark.parametrize(("depth", "allowed"), [(MAX_DEPTH, 1), (MAX_DEPTH + 1, 0)])
def test_nesting_of_structs(depth: int, allowed: int) -> None:
    inner = state("s", field())
    for _ in range(depth - 1):
        inner = state("s", field("struct", 4, struct=inner))
    if allowed:
        assert body_size(device(field("struct", 4, struct=inner))) == 4
    else:
        with pytest.raises(WireError, match=f"more than {MAX_DEPTH} structs inside each other"):
            device(field("struct", 4, struct=inner))


def test_size_limit() -> None:
    assert parse_vmdescription(SMALL, limit=len(SMALL)) == SMALL_VALUE
    with pytest.raises(WireError, match="320 bytes, 319 allowed"):
        parse_vmdescription(SMALL, limit=319)


def test_every_truncation_is_an_error() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(WireError):
            parse_vmdescription(SMALL[:length])


def test_damaged_text_is_a_value_or_a_wire_error() -> None:
    random = Random(7)
    outcomes: set[type] = set()
    for _ in range(500):
        data = bytearray(SMALL)
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        try:
            description = parse_vmdescription(data)
        except WireError:
            outcomes.add(WireError)
            continue
        outcomes.add(type(description))
    assert outcomes == {WireError, VmDescription}
