# SPDX-License-Identifier: GPL-2.0-or-later
"""One table per kind of frame: its fields in the order in which they are shown.

Fields of wire headers keep QEMU's names, and take their meaning from the wire package's schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from mfdtool.stream import field_values
from mfdtool.stream.field import Field, FieldType, Scalar
from mfdtool.stream.frames import Kind
from mfdtool.wire.codec import Message, describe
from mfdtool.wire.main_stream import (
    CommandHeader,
    Configuration,
    ConfigurationUuid,
    FileHeader,
    Packaged,
    Ping,
    PostcopyAdvise,
    PostcopyRamDiscard,
    RecvBitmap,
    SectionFooter,
    SectionPart,
    SectionStart,
    TargetPageBits,
    VmDescriptionHeader,
)
from mfdtool.wire.multifd import (
    MultiFDInit,
    MultiFDPacketCounts,
    MultiFDPacketDeviceState,
    MultiFDPacketFixed,
)
from mfdtool.wire.ram import MemSizeEntry, RamRecordHeader, ZeroFill
from mfdtool.wire.return_path import (
    Pong,
    RecvBitmapReply,
    ReqPages,
    ReqPagesId,
    ResumeAck,
    ReturnPathMessage,
    Shut,
)
from mfdtool.wire.vfio import DeviceStateHeader, Marker

_INTEGER: Final = FieldType.INTEGER
_STRING: Final = FieldType.STRING


def _wire(message: type[Message], name: str, path: str = "", *, shown: str = "") -> Field:
    """Make a field of a header's field; ``shown`` is its name here if that is another."""
    info = next(info for info in describe(message) if info.name == name)
    return Field(shown or name, _INTEGER, path or f"value.{name}", info.meaning, message.SOURCE)


def _text(
    field: Field, convert: Callable[[Any], Scalar] | None = None, *, optional: bool = False
) -> Field:
    return replace(field, type=_STRING, convert=convert, optional=optional)


def _optional(field: Field, convert: Callable[[Any], Scalar] | None = None) -> Field:
    return replace(field, convert=convert, optional=True)


def _section(message: type[Message], name: str) -> Field:
    field = replace(
        _wire(message, name), path="section", type=_STRING if name == "idstr" else _INTEGER
    )
    return _optional(field, field_values.of_section(name))


COMMON: Final = (
    Field("kind", _STRING, "kind.value", "what the frame is"),
    Field("migration", _INTEGER, "channel.migration", "0, 1, ... in order of first byte"),
    Field("channel", _STRING, "channel.name", "main, return-path, multifd-0, ..."),
    Field("number", _INTEGER, "number", "index in the channel; a gap has none", optional=True),
    Field("offset", _INTEGER, "offset", "where the frame begins in the channel's stream"),
    Field("length", _INTEGER, "length", "bytes of the frame, header and payload"),
    Field(
        "time_first",
        FieldType.TIME,
        "time_first",
        "when its first byte arrived, seconds since the epoch",
        convert=field_values.decimal_time,
        optional=True,
    ),
    Field(
        "time_last",
        FieldType.TIME,
        "time_last",
        "when its last byte arrived, seconds since the epoch",
        convert=field_values.decimal_time,
        optional=True,
    ),
    Field(
        "record",
        _INTEGER,
        "record",
        "capture record that completed it, from 1",
        convert=field_values.or_none,
        optional=True,
    ),
    Field("complete", FieldType.BOOLEAN, "complete", "false: the capture lacks some of its bytes"),
    Field(
        "missing",
        _INTEGER,
        "missing",
        "how many of its bytes the capture lacks",
        convert=field_values.or_none,
        optional=True,
    ),
    Field(
        "reason",
        _STRING,
        "reason",
        "why bytes are missing or undecoded",
        convert=field_values.or_none,
        optional=True,
    ),
)
"""Fields that every frame has, before those of its kind."""

_DATA_LENGTH: Final = Field(
    "data_length",
    _INTEGER,
    "payload",
    "bytes of data behind the header",
    convert=field_values.span_size,
)

# Multifd channels.

_INIT: Final = (
    _wire(MultiFDInit, "magic"),
    _wire(MultiFDInit, "version"),
    _text(_wire(MultiFDInit, "uuid"), field_values.uuid_text),
    _wire(MultiFDInit, "id"),
)
_COUNTS: Final = (
    *(
        _wire(MultiFDPacketCounts, name)
        for name in (
            "flags",
            "pages_alloc",
            "normal_pages",
            "zero_pages",
            "next_packet_size",
            "packet_num",
        )
    ),
    _DATA_LENGTH,
    Field(
        "compression",
        _STRING,
        "value.flags",
        "method by the flags; absent if there is none",
        "multifd.h:MULTIFD_FLAG_COMPRESSION_MASK",
        convert=field_values.compression,
        optional=True,
    ),
)
_RAM_PACKET: Final = (
    *_COUNTS,
    _text(_wire(MultiFDPacketFixed, "ramblock"), field_values.ramblock, optional=True),
)
_DEVICE_STATE: Final = (
    _wire(DeviceStateHeader, "packet_flags"),
    _wire(DeviceStateHeader, "packet_version"),
    _text(_wire(DeviceStateHeader, "idstr"), field_values.c_string),
    _wire(DeviceStateHeader, "instance_id"),
    _wire(DeviceStateHeader, "next_packet_size"),
    _wire(DeviceStateHeader, "version"),
    _wire(DeviceStateHeader, "idx"),
    _wire(DeviceStateHeader, "flags"),
    Field(
        "is_config",
        FieldType.BOOLEAN,
        "value.flags",
        "whether the data is the device's config",
        "vfio/migration-multifd.c:VFIO_DEVICE_STATE_CONFIG_STATE",
        convert=field_values.is_config,
    ),
    replace(_DATA_LENGTH, path="value.next_packet_size", convert=field_values.vfio_data_length),
)
_BARE_DEVICE_STATE: Final = (
    _wire(MultiFDPacketDeviceState, "flags", shown="packet_flags"),
    _wire(MultiFDPacketDeviceState, "version", shown="packet_version"),
    _text(_wire(MultiFDPacketDeviceState, "idstr"), field_values.c_string),
    _wire(MultiFDPacketDeviceState, "instance_id"),
    _wire(MultiFDPacketDeviceState, "next_packet_size"),
)

# Main stream.

_CONFIGURATION: Final = (
    _text(replace(_wire(Configuration, "name"), name="machine")),
    Field(
        "capabilities",
        FieldType.LIST,
        "value",
        "capabilities that the destination must have too",
        "savevm.c:vmstate_capabilites",
        convert=field_values.machine_capabilities,
    ),
    _optional(_wire(TargetPageBits, "target_page_bits", "value"), field_values.target_page_bits),
    _text(
        _wire(ConfigurationUuid, "uuid", "value"), field_values.configuration_uuid, optional=True
    ),
)
_SECTION: Final = tuple(
    _section(SectionStart, name) for name in ("section_id", "idstr", "instance_id")
)
_SECTION_HEADER: Final = (*_SECTION, _wire(SectionStart, "version_id"))
_PART: Final = (_wire(SectionPart, "section_id"), *_SECTION[1:])
_FOOTER: Final = (_wire(SectionFooter, "section_id"), *_SECTION[1:])
_STATE: Final = (
    *_SECTION,
    _section(SectionStart, "version_id"),
    _DATA_LENGTH,
    Field(
        "field_count",
        _INTEGER,
        "value",
        "fields of the device's state; an array of numbers is one",
        "vmstate.c:vmstate_save_state_v",
        convert=field_values.field_count,
    ),
    Field(
        "fields",
        FieldType.OBJECT,
        "value",
        "the device's state, field by field, as the vmdescription or its handler tells",
        "vmstate.c:vmstate_save_state_v",
        convert=field_values.state_fields,
    ),
    Field(
        "undecoded",
        FieldType.LIST,
        "value",
        "what no field claims: offset in the data, length and reason",
        "vmstate.c:vmstate_load_state",
        convert=field_values.undecoded_ranges,
        optional=True,
    ),
)
_COMMAND: Final = (
    Field(
        "command",
        _STRING,
        "value.header.command",
        "the command's name; absent if QEMU knows none",
        CommandHeader.SOURCE,
        convert=field_values.member_name,
        optional=True,
    ),
    _wire(CommandHeader, "cmd", "value.header.cmd"),
    _wire(CommandHeader, "len", "value.header.len", shown="payload_length"),
    _optional(_wire(Ping, "value", "value"), field_values.of_payload(Ping, name="value")),
    *(
        _optional(
            _wire(PostcopyAdvise, name, "value"),
            field_values.of_payload(PostcopyAdvise, name=name),
        )
        for name in ("page_size_summary", "page_size")
    ),
    _optional(
        _wire(Packaged, "length", "value", shown="package_length"),
        field_values.of_payload(Packaged, name="length"),
    ),
    _text(_wire(RecvBitmap, "block_name", "value"), field_values.block_name, optional=True),
    Field(
        "ranges",
        FieldType.LIST,
        "value",
        "what to discard: start and length of each range",
        PostcopyRamDiscard.SOURCE,
        convert=field_values.discard_ranges,
        optional=True,
    ),
)
_RAM_RECORD: Final = (
    *_SECTION,
    Field(
        "record_type",
        _STRING,
        "value.flags",
        "PAGE, ZERO, EOS, ...: the flags without CONTINUE",
        "ram.h:RAM_SAVE_FLAG",
        convert=field_values.record_type,
    ),
    _wire(RamRecordHeader, "flags"),
    _wire(RamRecordHeader, "addr"),
    _text(
        _wire(MemSizeEntry, "idstr", "value.ramblock", shown="ramblock"),
        field_values.or_none,
        optional=True,
    ),
    _optional(_wire(ZeroFill, "ch", "value.fill", shown="fill")),
    Field(
        "blocks",
        FieldType.LIST,
        "value",
        "RAM blocks of a MEM_SIZE record: idstr, used_length and more of each",
        MemSizeEntry.SOURCE,
        convert=field_values.ram_blocks,
        optional=True,
    ),
    _DATA_LENGTH,
)
_MARKER: Final = (
    *_SECTION,
    Field(
        "marker",
        _STRING,
        "value.marker",
        "the marker's name; absent if QEMU knows none",
        Marker.SOURCE,
        convert=field_values.marker_name,
        optional=True,
    ),
    replace(_wire(Marker, "value", "value.marker"), type=FieldType.HEX, convert=hex),
    replace(_DATA_LENGTH, path="value.data_length", convert=None),
)

# Return path.

_RETURN_PATH: Final = (
    _text(
        _wire(ReturnPathMessage, "type", "value.header.kind"),
        field_values.member_name,
        optional=True,
    ),
    _wire(ReturnPathMessage, "len", "value.header.len", shown="payload_length"),
    Field(
        "value",
        _INTEGER,
        "value",
        "SHUT: 0 if all is well; PONG: the value of the PING; RESUME_ACK: 1",
        "migration.c:source_return_path_thread",
        convert=field_values.of_payload(Shut, Pong, ResumeAck, name="value"),
        optional=True,
    ),
    *(
        _optional(
            _wire(ReqPages, name, "value", shown=f"request_{name}"),
            field_values.of_payload(ReqPages, ReqPagesId, name=name),
        )
        for name in ("start", "length")
    ),
    _text(_wire(RecvBitmapReply, "block_name", "value"), field_values.block_name, optional=True),
)

# All.

BY_KIND: Final[Mapping[Kind, tuple[Field, ...]]] = {
    Kind.MULTIFD_INIT: _INIT,
    Kind.MULTIFD_RAM: _RAM_PACKET,
    Kind.MULTIFD_SYNC: _RAM_PACKET,
    Kind.MULTIFD_DEVICE_STATE: _DEVICE_STATE,
    Kind.MAIN_HEADER: (_wire(FileHeader, "magic"), _wire(FileHeader, "version")),
    Kind.MAIN_CONFIGURATION: _CONFIGURATION,
    Kind.MAIN_SECTION_START: _SECTION_HEADER,
    Kind.MAIN_SECTION_PART: _PART,
    Kind.MAIN_SECTION_END: _PART,
    Kind.MAIN_SECTION_FULL: _SECTION_HEADER,
    Kind.MAIN_SECTION_FOOTER: _FOOTER,
    Kind.MAIN_COMMAND: _COMMAND,
    Kind.MAIN_EOF: (),
    Kind.MAIN_VMDESCRIPTION: (_wire(VmDescriptionHeader, "length", shown="payload_length"),),
    Kind.MAIN_OPAQUE: _STATE,
    Kind.RAM_RECORD: _RAM_RECORD,
    Kind.VFIO_MARKER: _MARKER,
    Kind.RETURN_PATH_MESSAGE: _RETURN_PATH,
    Kind.GAP: (),
    Kind.UNDECODED: (),
}
"""Fields of each kind of frame whose header is whole."""

BY_VALUE: Final[Mapping[type[object], tuple[Field, ...]]] = {
    MultiFDPacketCounts: _COUNTS,
    MultiFDPacketDeviceState: _BARE_DEVICE_STATE,
}
"""Fields of frames whose header is another than their kind usually has."""
