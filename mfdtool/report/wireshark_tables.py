# SPDX-License-Identifier: GPL-2.0-or-later
"""What the Wireshark dissector is made of: fields, schemas, numbers and rules, as plain values.

Everything here is derived: from the fields that ``decode`` shows, from the wire package's schemas
and tables of numbers, and from the rules. A field is called in Wireshark as in ``decode``, behind
the group of its kind: ``qemu_mig.device_state.idx``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Final, TypeAlias

from mfdtool.stream.field import Field, FieldType
from mfdtool.stream.field_tables import BY_KIND, COMMON
from mfdtool.stream.fields import WITH_CONFIG
from mfdtool.stream.frames import Kind
from mfdtool.stream.pci_fields import PCI_CONFIG
from mfdtool.wire import constants, main_stream, multifd, ram, return_path, vfio
from mfdtool.wire.codec import FieldInfo, Message, describe
from mfdtool.wire.constants import Meaning

PREFIX: Final = "qemu_mig"
"""Name of the protocol in Wireshark, and what all its fields begin with."""

GROUPS: Final[Mapping[Kind, str]] = {
    kind: {
        Kind.MULTIFD_DEVICE_STATE: "device_state",
        Kind.RETURN_PATH_MESSAGE: "return_path",
        Kind.RAM_RECORD: "ram",
        Kind.VFIO_MARKER: "vfio",
    }.get(kind, kind.value.partition(".")[0])
    for kind in Kind
}
"""Where in Wireshark the fields of a kind of frame are."""

SCHEMAS: Final[Mapping[str, tuple[type[Message], ...]]] = {
    "multifd": (multifd.MultiFDInit, multifd.MultiFDPacketCounts, multifd.MultiFDPacketFixed),
    "device_state": (vfio.DeviceStateHeader, multifd.MultiFDPacketDeviceState),
    "main": (
        main_stream.FileHeader,
        main_stream.ConfigurationHeader,
        main_stream.SubsectionHeader,
        main_stream.TargetPageBits,
        main_stream.ConfigurationUuid,
        main_stream.SectionStart,
        main_stream.SectionPart,
        main_stream.SectionFooter,
        main_stream.CommandHeader,
        main_stream.Ping,
        main_stream.PostcopyAdvise,
        main_stream.DiscardRange,
        main_stream.Packaged,
        main_stream.RecvBitmap,
        main_stream.VmDescriptionHeader,
    ),
    "ram": (ram.BlockId, ram.ZeroFill, ram.XbzrleHeader, ram.CompressedPageHeader),
    "vfio": (vfio.Marker, vfio.DeviceData),
    "return_path": (
        return_path.ReturnPathMessage,
        return_path.Shut,
        return_path.Pong,
        return_path.ReqPages,
        return_path.ReqPagesId,
        return_path.RecvBitmapReply,
        return_path.ResumeAck,
    ),
}
"""Messages that the dissector reads by their schemas, by the group that their fields are in."""

CHECKED_RULES: Final = (
    *("MFD102", "MFD103", "MFD106", "MFD110", "MFD111", "MFD114", "MFD115"),
    *("MFD120", "MFD121", "MFD122", "MFD126", "MFD127", "MFD128", "MFD129"),
    *("MFD201", "MFD202", "MFD203", "MFD206", "MFD208", "MFD209", "MFD210", "MFD211"),
    *("MFD213", "MFD215", "MFD216", "MFD220", "MFD221", "MFD222", "MFD223", "MFD224"),
    *("MFD230", "MFD232", "MFD233", "MFD301", "MFD302"),
    *("MFD402", "MFD403", "MFD407", "MFD408", "MFD409", "MFD410", "MFD411", "MFD412"),
    *("MFD415", "MFD416", "MFD417", "MFD502", "MFD504", "MFD511", "MFD602"),
)
"""Rules that a single packet tells to be broken, or what was seen of the migration before it."""

COMMON_SHOWN: Final = ("kind", "migration", "channel", "number", "offset", "length", "reason")
"""Fields of every frame that Wireshark does not have by itself and that are known at once."""

_DECODE_ONLY: Final[Mapping[Kind, frozenset[str]]] = {
    **dict.fromkeys(WITH_CONFIG, frozenset(field.name for field in PCI_CONFIG)),
    Kind.MAIN_OPAQUE: frozenset(
        {field.name for field in BY_KIND[Kind.MAIN_OPAQUE] if field.path == "value"}
        | {"version_id"}
    ),
}
"""Fields that the dissector does not have: it takes neither a PCI device's config apart nor a
device's state, whose vmdescription comes behind it.
"""

_TYPES: Final[Mapping[str, str]] = {
    "u8": "uint8",
    "be16": "uint16",
    "be32": "uint32",
    "be64": "uint64",
    "counted string": "string",
    "derived": "uint64",
}
_INTEGERS: Final = ("uint8", "uint16", "uint32", "uint64")
_KIND_TYPES: Final[Mapping[FieldType, str]] = {
    FieldType.INTEGER: "uint64",
    FieldType.BOOLEAN: "bool",
    FieldType.STRING: "string",
    FieldType.HEX: "uint64",
    FieldType.LIST: "string",
}
_RENAMED: Final[Mapping[tuple[type[Message], str], str]] = {
    (main_stream.DiscardRange, "start"): "ranges.start",
    (main_stream.DiscardRange, "length"): "ranges.length",
    (multifd.MultiFDPacketDeviceState, "version"): "packet_version",
    (multifd.MultiFDPacketDeviceState, "flags"): "packet_flags",
    (ram.BlockId, "idstr"): "ramblock",
    (return_path.ReturnPathMessage, "type"): "type_number",
    (vfio.DeviceData, "marker"): "value",
}
"""Fields of schemas that are not called as they are there, nor found by their meaning."""

_HEXADECIMAL: Final = frozenset({"magic", "addr", "offset", "unused32", "value"})
_FlagTable: TypeAlias = (
    Mapping[constants.MultiFDFlag, Meaning]
    | Mapping[constants.VFIOStateFlag, Meaning]
    | Mapping[constants.RamFlag, Meaning]
)
_FLAG_TABLES: Final[Mapping[str, _FlagTable]] = {
    "multifd.flags": constants.MULTIFD_FLAGS,
    "device_state.packet_flags": constants.MULTIFD_FLAGS,
    "device_state.flags": constants.VFIO_STATE_FLAGS,
    "ram.flags": constants.RAM_FLAGS,
}


@dataclass(frozen=True, slots=True)
class LuaField:
    """One field of the dissector.

    Attributes:
        key: its name behind ``qemu_mig.``.
        type: Wireshark's type, as the functions of ``ProtoField`` are called.
        meaning: one clause for people.
        hexadecimal: whether its value is shown so.
        mask: for a bit of a number, which one it is; 0 for all others.
        width: for such a bit, how many bits the number has.
    """

    key: str
    type: str
    meaning: str
    _: KW_ONLY
    hexadecimal: bool = False
    mask: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One field of a schema: its name, how it is read, the key of its field, and its width.

    ``reader`` is ``u8``, ``be16``, ``be32``, ``be64``, ``bytes``, ``uuid``, ``name`` (up to a NUL),
    ``block`` (the same, absent if empty) or ``counted``. ``width`` is 0 for the last.
    """

    name: str
    reader: str
    key: str
    width: int


def is_shown(kind: Kind, name: str) -> bool:
    """Tell whether the dissector has a field that ``decode`` shows for a kind of frame."""
    return name not in _DECODE_ONLY.get(kind, ())


def wireshark_name(kind: Kind, name: str) -> str:
    """Give the name in Wireshark of a field of a kind of frame that the dissector has."""
    return f"{PREFIX}.{GROUPS[kind]}.{name}"


def lua_fields() -> tuple[LuaField, ...]:
    """List all fields of the dissector: common ones, those of decode, then the schemas' others."""
    fields = {each.key: each for each in _common()}
    for each in (*_of_kinds(), *_of_schemas(), *_of_lists(), *_bits()):
        known = fields.setdefault(each.key, each)
        if known.type in _INTEGERS and each.type in _INTEGERS:
            widest = max(known.type, each.type, key=_INTEGERS.index)
            fields[each.key] = replace(known, type=widest)
    return tuple(fields.values())


def schema_steps(group: str, message: type[Message]) -> tuple[Step, ...]:
    """Say how a message is read, and which fields it fills."""
    return tuple(_step(group, message, info) for info in describe(message))


def flag_bits() -> dict[str, list[tuple[str, int]]]:
    """Give the keys and masks of the bits of each field of flags."""
    return {
        key: [(f"{key}.{_bit_name(flag.name)}", int(flag)) for flag in table]
        for key, table in _FLAG_TABLES.items()
    }


def _common() -> Iterator[LuaField]:
    for field in COMMON:
        if field.name in COMMON_SHOWN:
            kind = "uint32" if field.name in {"migration", "number"} else _KIND_TYPES[field.type]
            yield LuaField(field.name, kind, field.meaning)
    yield LuaField("missing", "uint64", "how many bytes before here the capture lacks")
    yield LuaField("payload", "bytes", "bytes behind a header")
    yield LuaField("header_in", "framenum", "where the header of this payload is")


def _of_kinds() -> Iterator[LuaField]:
    for kind, fields in BY_KIND.items():
        for field in fields:
            if not is_shown(kind, field.name):
                continue
            integer = field.type is FieldType.INTEGER
            shown = _width_type(field) if integer else _KIND_TYPES[field.type]
            key = f"{GROUPS[kind]}.{field.name}"
            yield LuaField(key, shown, field.meaning, hexadecimal=_is_hexadecimal(key))


def _of_schemas() -> Iterator[LuaField]:
    for group, messages in SCHEMAS.items():
        for message in messages:
            for info in describe(message):
                key = _step(group, message, info).key
                shown = _TYPES.get(info.type, "bytes")
                yield LuaField(key, shown, info.meaning, hexadecimal=_is_hexadecimal(key))
    yield LuaField("multifd.offset", "bytes", "where the packet's pages belong, be64 each")


def _of_lists() -> Iterator[LuaField]:
    """Fields of what ``decode`` shows as lists of objects."""
    for info in describe(ram.MemSizeEntry):
        if info.name != "mapped_ram":
            kind = _TYPES[info.type.removesuffix(" or nothing")]
            yield LuaField(
                f"ram.blocks.{info.name}", kind, info.meaning, hexadecimal=info.name == "address"
            )


def _bits() -> Iterator[LuaField]:
    for key, table in _FLAG_TABLES.items():
        width = 64 if key.startswith("ram.") else 32
        for flag, meaning in table.items():
            bit = f"{key}.{_bit_name(flag.name)}"
            yield LuaField(bit, "bool", meaning.text, mask=int(flag), width=width)


def _bit_name(name: str | None) -> str:
    return (name or "").lower()


def _is_hexadecimal(key: str) -> bool:
    group, _, name = key.partition(".")
    return (name in _HEXADECIMAL and (group, name) not in _DECIMAL) or name.endswith("flags")


_DECIMAL: Final = frozenset({("main", "value"), ("return_path", "value")})


def _step(group: str, message: type[Message], info: FieldInfo) -> Step:
    name = _shown_name(group, message, info)
    reader = info.type
    if info.type == "counted string":
        reader = "counted"
    elif info.type.startswith("bytes["):
        reader = {"uuid": "uuid", "idstr": "name", "ramblock": "block"}.get(info.name, "bytes")
    return Step(info.name, reader, f"{group}.{name}", info.width or 0)


def _shown_name(group: str, message: type[Message], info: FieldInfo) -> str:
    """Give the name that ``decode`` has for a schema's field; its own if it does not show it."""
    if (message, info.name) in _RENAMED:
        return _RENAMED[message, info.name]
    for kind, fields in BY_KIND.items():
        for field in fields:
            if GROUPS[kind] == group and _describes(field, message, info):
                return field.name
    return info.name


def _width_type(field: Field) -> str:
    """Give the type of a number: that of the schema's field which it was made of."""
    for messages in SCHEMAS.values():
        for message in messages:
            for info in describe(message):
                if _describes(field, message, info):
                    return _TYPES[info.type]
    return "uint64"


def _describes(field: Field, message: type[Message], info: FieldInfo) -> bool:
    """Tell whether a field of ``decode`` was made of this one of a schema."""
    return field.source == message.SOURCE and field.meaning == info.meaning
