# SPDX-License-Identifier: GPL-2.0-or-later
"""Main stream: file header, configuration, sections, commands.

::

    stream  := FileHeader [Configuration] element* EOF [VmDescriptionHeader JSON]
    element := SectionStart body [SectionFooter]
             | SectionPart body [SectionFooter]
             | CommandHeader payload

Every element begins with a :class:`~mfdtool.wire.constants.SectionType` byte. The stream does not
say how long a body is: that follows from the body's own format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias

from construct import (
    Bytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    OneOf,
    Struct,
    Switch,
    stream_read,
    this,
)

from mfdtool.errors import WireError
from mfdtool.wire.codec import (
    Buffer,
    Layout,
    Message,
    Schema,
    counted_string,
    field,
    member,
    nested,
    prefixed_tuple,
    repeated,
)
from mfdtool.wire.constants import (
    CONFIGURATION_PREFIX,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    Command,
    SectionType,
)

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader(Message):
    """First 8 bytes of the main stream (savevm.c:qemu_savevm_state_header)."""

    SCHEMA = Struct(
        field("magic", Int32ub, "0x5145564d, QEVM"),
        field("version", Int32ub, "version of the stream format, 3"),
    )
    SOURCE = "savevm.c:qemu_savevm_state_header"

    magic: int = QEMU_VM_FILE_MAGIC
    version: int = QEMU_VM_FILE_VERSION


# Sections.


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionStart(Message):
    """Header of a START or FULL section (savevm.c:save_section_header)."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.START, SectionType.FULL), "0x01 or 0x04"),
        field("section_id", Int32ub, "the source's number for this SaveVM entry"),
        field("idstr", counted_string(), "name of the entry"),
        field("instance_id", Int32ub, "number among entries with this idstr"),
        field("version_id", Int32ub, "version of the body's format"),
    )
    SOURCE = "savevm.c:save_section_header"

    type: SectionType
    section_id: int
    idstr: str
    instance_id: int = 0
    version_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionPart(Message):
    """Header of a PART or END section (savevm.c:save_section_header)."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.PART, SectionType.END), "0x02 or 0x03"),
        field("section_id", Int32ub, "the entry's number, as its START section says"),
    )
    SOURCE = "savevm.c:save_section_header"

    type: SectionType
    section_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionFooter(Message):
    """End of a section, unless ``send-section-footer`` is off (savevm.c:save_section_footer)."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.FOOTER), "0x7e"),
        field("section_id", Int32ub, "the section's id again"),
    )
    SOURCE = "savevm.c:save_section_footer"

    type: SectionType = SectionType.FOOTER
    section_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsectionHeader(Message):
    """Header of an optional part inside a vmstate body (vmstate.c:vmstate_subsection_save)."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.SUBSECTION), "0x05"),
        field("name", counted_string(), "name of the subsection, begins with its parent's"),
        field("version_id", Int32ub, "version of the subsection's format"),
    )
    SOURCE = "vmstate.c:vmstate_subsection_save"

    type: SectionType = SectionType.SUBSECTION
    name: str
    version_id: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDescriptionHeader(Message):
    """What precedes the vmdescription's JSON text, after the EOF element."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.VMDESCRIPTION), "0x06"),
        field("length", Int32ub, "bytes of JSON text that follow"),
    )
    SOURCE = "savevm.c:qemu_savevm_state_complete_precopy_non_iterable"

    type: SectionType = SectionType.VMDESCRIPTION
    length: int


# Configuration.


@dataclass(frozen=True, slots=True)
class TargetPageBits(Message):
    """Page size of targets that have more than one (savevm.c:vmstate_target_page_bits)."""

    SCHEMA = Struct(field("target_page_bits", Int32ub, "log2 of the target page size"))
    SOURCE = "savevm.c:vmstate_target_page_bits"

    target_page_bits: int


@dataclass(frozen=True, slots=True)
class Capabilities(Message):
    """Those capabilities that the destination must have too (savevm.c:vmstate_capabilites)."""

    SCHEMA = Struct(
        field(
            "capabilities",
            prefixed_tuple(Int32ub, counted_string()),
            "those of x-ignore-shared and mapped-ram that are on",
        )
    )
    SOURCE = "savevm.c:vmstate_capabilites"

    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigurationUuid(Message):
    """The VM's UUID, with capability validate-uuid (savevm.c:vmstate_uuid)."""

    SCHEMA = Struct(field("uuid", Bytes(16), "the VM's UUID"))
    SOURCE = "savevm.c:vmstate_uuid"

    uuid: bytes


ConfigurationBody: TypeAlias = TargetPageBits | Capabilities | ConfigurationUuid

_CONFIGURATION_BODIES: Final[Mapping[str, type[ConfigurationBody]]] = {
    "configuration/target-page-bits": TargetPageBits,
    "configuration/capabilities": Capabilities,
    "configuration/uuid": ConfigurationUuid,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationSubsection(Message):
    """One of the configuration's subsections; unknown names are rejected."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.SUBSECTION), "0x05"),
        field(
            "name",
            OneOf(counted_string(), frozenset(_CONFIGURATION_BODIES)),
            "which one, begins with configuration/",
        ),
        field("version_id", Int32ub, "1"),
        field(
            "body",
            Switch(this.name, {name: nested(body) for name, body in _CONFIGURATION_BODIES.items()}),
            "what the subsection holds",
        ),
    )
    SOURCE = "savevm.c:vmstate_configuration"

    type: SectionType = SectionType.SUBSECTION
    name: str
    version_id: int = 1
    body: ConfigurationBody


class _Subsections(Schema):
    """Subsections while there are any; the byte that follows decides."""

    word = "ConfigurationSubsection[]"
    _prefix: Final = CONFIGURATION_PREFIX.encode("ascii")

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> tuple[Any, ...]:
        schema = nested(ConfigurationSubsection)
        found = []
        while self._another(stream, may_end=context._params.may_end, path=path):
            found.append(schema._parsereport(stream, context, path))
        return tuple(found)

    def _another(self, stream: IO[bytes], *, may_end: bool, path: str) -> bool:
        """Look ahead, as vmstate.c:vmstate_subsection_load does, no further than it takes."""
        start = stream.tell()
        try:
            if may_end and not stream.read(1):
                return False
            stream.seek(start)
            if stream_read(stream, 1, path) != bytes([SectionType.SUBSECTION]):
                return False
            (length,) = stream_read(stream, 1, path)
            size = len(self._prefix)
            return length >= size and stream_read(stream, size, path) == self._prefix
        finally:
            stream.seek(start)

    def _build(self, obj: Any, stream: IO[bytes], context: Any, path: str) -> Any:
        schema = nested(ConfigurationSubsection)
        for subsection in obj:
            schema._build(subsection, stream, context, path)
        return obj


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration(Message):
    """Configuration section, directly after the file header; it has no id and no footer."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.CONFIGURATION), "0x07"),
        field("name", counted_string(Int32ub), "machine type; its length is a be32"),
        field("subsections", _Subsections(), "optional parts"),
    )
    SOURCE = "savevm.c:vmstate_configuration"

    type: SectionType = SectionType.CONFIGURATION
    name: str
    subsections: tuple[ConfigurationSubsection, ...] = ()

    @property
    def capabilities(self) -> frozenset[str]:
        """Names of the capabilities that are listed."""
        bodies = (subsection.body for subsection in self.subsections)
        return frozenset(
            name for body in bodies if isinstance(body, Capabilities) for name in body.capabilities
        )

    @classmethod
    def parse(cls, data: Buffer, *, channel: str = "", offset: int = 0) -> Self:
        """Decode ``data``, exactly one configuration section.

        Raises:
            TruncatedError: ``data`` ends inside the section.
            WireError: ``data`` is not one, goes on after it, or has an unknown subsection.
        """
        return cls._parse_whole(data, channel=channel, offset=offset, may_end=True)

    @classmethod
    def parse_prefix(
        cls, data: Buffer, *, channel: str = "", offset: int = 0, may_end: bool = False
    ) -> tuple[Self, int]:
        """Decode the section at the start of ``data``; give it and its length in bytes.

        Only the bytes that follow tell that the section ends: without them it counts as truncated,
        unless ``may_end`` says that nothing more will come.

        Raises:
            TruncatedError: ``data`` ends inside the section, or directly behind it.
            WireError: ``data`` does not begin with one, or has an unknown subsection.
        """
        return cls._parse_prefix(data, channel=channel, offset=offset, may_end=may_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationHeader(Message):
    """Configuration section up to the machine's name, to learn the name's length beforehand."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.CONFIGURATION), "0x07"),
        field("len", Int32ub, "length of the machine type's name"),
    )
    SOURCE = "savevm.c:vmstate_configuration"

    type: SectionType = SectionType.CONFIGURATION
    len: int


# Commands.


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandHeader(Message):
    """Header of a command (savevm.c:qemu_savevm_command_send)."""

    SCHEMA = Struct(
        field("type", member(Int8ub, SectionType.COMMAND), "0x08"),
        field("cmd", Int16ub, "which command"),
        field("len", Int16ub, "bytes of payload that follow"),
    )
    SOURCE = "savevm.c:qemu_savevm_command_send"

    type: SectionType = SectionType.COMMAND
    cmd: int
    len: int = 0

    @property
    def command(self) -> Command | None:
        """The command, or None if QEMU knows no such number."""
        return Command(self.cmd) if self.cmd in _COMMAND_NUMBERS else None


_COMMAND_NUMBERS: Final = frozenset(int(command) for command in Command)


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Payload of PING."""

    SCHEMA = Struct(field("value", Int32ub, "what PONG repeats; 1 after OPEN_RETURN_PATH"))
    SOURCE = "savevm.c:qemu_savevm_send_ping"

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PostcopyAdvise(Message):
    """Payload of POSTCOPY_ADVISE; empty if only dirty bitmaps will be postcopied."""

    SCHEMA = Struct(
        field("page_size_summary", Int64ub, "page sizes of all RAM blocks, or-ed"),
        field("page_size", Int64ub, "target page size"),
    )
    SOURCE = "savevm.c:qemu_savevm_send_postcopy_advise"

    page_size_summary: int
    page_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardRange(Message):
    """One range of POSTCOPY_RAM_DISCARD."""

    SCHEMA = Struct(
        field("start", Int64ub, "offset in the block"),
        field("length", Int64ub, "bytes to discard"),
    )
    SOURCE = "savevm.c:qemu_savevm_send_postcopy_ram_discard"

    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PostcopyRamDiscard(Message):
    """Payload of POSTCOPY_RAM_DISCARD."""

    SCHEMA = Struct(
        field("version", Int8ub, "format of this payload, 0"),
        field("name", counted_string(), "RAM block"),
        field("terminator", Int8ub, "0"),
        field("ranges", repeated(this._params.range_count, DiscardRange), "what to discard"),
    )
    SOURCE = "savevm.c:qemu_savevm_send_postcopy_ram_discard"

    version: int = 0
    name: str
    terminator: int = 0
    ranges: tuple[DiscardRange, ...]

    @classmethod
    def parse(cls, data: Buffer, *, channel: str = "", offset: int = 0) -> Self:
        """Decode ``data``, the whole payload.

        Raises:
            TruncatedError: ``data`` ends inside the payload.
            WireError: bytes are left that are not a whole range.
        """
        range_count = (len(data) - 3 - (data[1] if len(data) > 1 else 0)) // _RANGE_SIZE
        return cls._parse_whole(
            data, channel=channel, offset=offset, range_count=max(range_count, 0)
        )

    @classmethod
    def parse_prefix(cls, data: Buffer, *, channel: str = "", offset: int = 0) -> tuple[Self, int]:
        """Decode all of ``data``: only the command's ``len`` tells how many ranges there are.

        Raises:
            TruncatedError: ``data`` ends inside the payload.
            WireError: bytes are left that are not a whole range.
        """
        return cls.parse(data, channel=channel, offset=offset), len(data)

    def _context(self) -> dict[str, object]:
        return {"range_count": len(self.ranges)}


_RANGE_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Packaged(Message):
    """Payload of PACKAGED; the package follows the command and is not counted in its ``len``."""

    SCHEMA = Struct(field("length", Int32ub, "bytes of stream elements that follow"))
    SOURCE = "savevm.c:qemu_savevm_send_packaged"

    length: int


@dataclass(frozen=True, slots=True)
class RecvBitmap(Message):
    """Payload of RECV_BITMAP."""

    SCHEMA = Struct(field("block_name", counted_string(), "RAM block"))
    SOURCE = "savevm.c:qemu_savevm_send_recv_bitmap"

    block_name: str


CommandPayload: TypeAlias = Ping | PostcopyAdvise | PostcopyRamDiscard | Packaged | RecvBitmap

COMMAND_PAYLOADS: Final[Mapping[Command, type[CommandPayload]]] = {
    Command.PING: Ping,
    Command.POSTCOPY_ADVISE: PostcopyAdvise,
    Command.POSTCOPY_RAM_DISCARD: PostcopyRamDiscard,
    Command.PACKAGED: Packaged,
    Command.RECV_BITMAP: RecvBitmap,
}
"""What the commands carry that carry something."""


def parse_command_payload(
    command: Command, data: Buffer, *, channel: str = "", offset: int = 0
) -> CommandPayload | None:
    """Decode a command's payload; None if it is rightly empty.

    Raises:
        WireError: ``data`` is not what this command carries.
    """
    kind = COMMAND_PAYLOADS.get(command)
    if not data and (kind is None or kind is PostcopyAdvise):
        return None
    if kind is None:
        raise WireError(f"{command.name} has no payload", offset=offset, channel=channel)
    return kind.parse(data, channel=channel, offset=offset)


FILE_HEADER_LAYOUT: Final = Layout(FileHeader)
