# SPDX-License-Identifier: GPL-2.0-or-later
"""How the values of fields are made of what a frame holds."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mfdtool.stream.field import Scalar
from mfdtool.stream.frames import Section
from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.values import CommandRecord, RamRecord, ReturnPathRecord
from mfdtool.stream.vmstate import DeviceState, named_fields
from mfdtool.wire.codec import Message
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_FLAGS,
    RAM_FLAGS,
    VFIO_MARKERS,
    VFIO_PACKET_HEADER_SIZE,
    RamFlag,
    VFIOStateFlag,
    flag_names,
)
from mfdtool.wire.main_stream import (
    Configuration,
    ConfigurationUuid,
    PostcopyRamDiscard,
    RecvBitmap,
    TargetPageBits,
)
from mfdtool.wire.multifd import MultiFDInit
from mfdtool.wire.ram import MemSizeEntry
from mfdtool.wire.return_path import RecvBitmapReply, ReqPagesId
from mfdtool.wire.text import until_nul

if TYPE_CHECKING:
    from mfdtool.stream.span import Span

# As plain integers: operators of enum's flags take a microsecond.
_CONFIG_STATE: Final = VFIOStateFlag.CONFIG_STATE.value
_NOT_CONTINUE: Final = ~RamFlag.CONTINUE.value

_MARKER_NAMES: Final = {int(marker): marker.name for marker in VFIO_MARKERS}


def decimal_time(time_ns: int) -> str | None:
    """Write a time in nanoseconds as seconds with nine decimals; None if it is not known."""
    if time_ns < 0:
        return None
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{seconds}.{rest:09d}"


def or_none(value: int | str) -> int | str | None:
    """Take what is 0 or empty as absent."""
    return value or None


def member_name(member: Enum | None) -> str | None:
    """Give the name of an enumeration's member."""
    return member.name if member is not None else None


def span_size(span: Span | None) -> int:
    """Count a payload's bytes; a hostile length may be more than ``len`` can tell."""
    return span.stop - span.start if span is not None else 0


c_string: Final = lru_cache(maxsize=1024)(until_nul)
"""Text of a NUL-terminated name; the same few come again and again."""


def ramblock(raw: bytes) -> str | None:
    """Name a packet's RAM block; the destination takes byte 255 as NUL, whatever it is."""
    return c_string(raw[:-1]) or None


def uuid_text(raw: bytes) -> str:
    """Write a UUID as QEMU prints it."""
    return MultiFDInit(id=0, uuid=raw).uuid_text


def compression(flags: int) -> str | None:
    """Name the compression method of a multifd packet's flags."""
    method = flags & MULTIFD_COMPRESSION_MASK
    return flag_names(method, MULTIFD_FLAGS) if method else None


def is_config(flags: int) -> bool:
    """Tell whether a VFIO packet's flags say that it is a config."""
    return bool(flags & _CONFIG_STATE)


def vfio_data_length(next_packet_size: int) -> int:
    """Count the bytes behind a VFIO packet's header."""
    return next_packet_size - VFIO_PACKET_HEADER_SIZE


def marker_name(value: int) -> str | None:
    """Name a VFIO marker; None if QEMU knows no such one."""
    return _MARKER_NAMES.get(value)


def of_section(name: str) -> Callable[[Section | None], Scalar]:
    """Read a section's attribute; only the id is known if its START was not captured."""
    get = attrgetter(name)

    def convert(section: Section | None) -> Scalar:
        if section is None or (not section.idstr and name != "section_id"):
            return None
        value: Scalar = get(section)
        return value

    return convert


# Configuration.


def machine_capabilities(configuration: Configuration) -> list[Any]:
    """List the capabilities that a configuration section names."""
    return sorted(configuration.capabilities)


def target_page_bits(configuration: Configuration) -> int | None:
    """Give log2 of the page size, if a configuration section tells it."""
    for subsection in configuration.subsections:
        if isinstance(subsection.body, TargetPageBits):
            return subsection.body.target_page_bits
    return None


def configuration_uuid(configuration: Configuration) -> str | None:
    """Give the VM's UUID, if a configuration section tells it."""
    for subsection in configuration.subsections:
        if isinstance(subsection.body, ConfigurationUuid):
            return uuid_text(subsection.body.uuid)
    return None


# Bodies.


def field_count(state: DeviceState | RecordsBody) -> int:
    """Count a body's fields; an array of numbers is one."""
    if isinstance(state, RecordsBody):
        return state.count()
    return sum(1 for _ in state.decode().fields())


def state_fields(state: DeviceState | RecordsBody) -> dict[str, Any]:
    """Give a body's fields by name."""
    if isinstance(state, RecordsBody):
        return state.to_mapping()
    return named_fields(state, state.decode())


def undecoded_ranges(state: DeviceState | RecordsBody) -> list[Any] | None:
    """List what no field claims of a body."""
    rest = state.rest() if isinstance(state, DeviceState) else None
    if rest is None:
        return None
    return [{"offset": rest.start, "length": rest.stop - rest.start, "reason": rest.reason}]


# Commands and return path messages.


def of_payload(*kinds: type[Message], name: str) -> Callable[[Any], Scalar]:
    """Read an attribute of a command's or message's payload, if it is one of these kinds."""

    def convert(record: CommandRecord | ReturnPathRecord) -> Scalar:
        if not isinstance(record.payload, kinds):
            return None
        value: Scalar = getattr(record.payload, name)
        return value

    return convert


def discard_ranges(record: CommandRecord) -> list[Any] | None:
    """List what POSTCOPY_RAM_DISCARD discards."""
    if not isinstance(record.payload, PostcopyRamDiscard):
        return None
    return [entry.to_mapping() for entry in record.payload.ranges]


def block_name(record: CommandRecord | ReturnPathRecord) -> str | None:
    """Name the RAM block that a command or message is about."""
    payload = record.payload
    if isinstance(payload, RecvBitmap | RecvBitmapReply | ReqPagesId):
        return payload.block_name
    return payload.name if isinstance(payload, PostcopyRamDiscard) else None


# RAM records.


def record_type(flags: int) -> str:
    """Name a RAM record's kind."""
    return flag_names(flags & _NOT_CONTINUE, RAM_FLAGS)


def ram_blocks(record: RamRecord) -> list[Any] | None:
    """List the blocks of a MEM_SIZE record; of mapped ones also how many pages are there."""
    blocks = [_block(entry) for entry in record.entries]
    for block, present in zip(blocks, record.mapped, strict=False):
        block["pages_present"] = present
    return blocks or None


def _block(entry: MemSizeEntry) -> dict[str, object]:
    block = {key: value for key, value in entry.to_mapping().items() if value is not None}
    if entry.mapped_ram is not None:
        block["mapped_ram"] = entry.mapped_ram.to_mapping()
    return block
