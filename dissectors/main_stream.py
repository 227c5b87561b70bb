# SPDX-License-Identifier: GPL-2.0-or-later
"""Main stream: file header, configuration, sections, commands (savevm.c).

Its parts are flat: a section is a header, then what its body consists of, then a footer. They are
put together with ``/``, and computed lengths count their own part only::

    SectionEnd(section_id=33) / VFIOMarkerRecord() / SectionFooter(section_id=33)
    Command(cmd="PING", body=Ping(value=1))

:class:`MainStream` takes a stream apart again, as far as its bodies tell where they end.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from scapy.fields import (
    ByteEnumField,
    ByteField,
    ConditionalField,
    FieldLenField,
    IntField,
    LongField,
    ShortEnumField,
    UUIDField,
    XIntField,
    XLongField,
)
from scapy.packet import Packet

from dissectors.fields import (
    BodyField,
    CountedBytesField,
    DissectionError,
    ItemsField,
    Make,
    Message,
    PagedMessage,
    StreamField,
    TextField,
    symbols,
)
from dissectors.ram import RamRecord
from dissectors.vfio import MARKER_SIZE, VFIOMarkerRecord
from mfdtool.wire import constants
from mfdtool.wire.constants import (
    CONFIGURATION_PREFIX,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    RamFlag,
    SectionType,
    VFIOMarker,
)

_TYPES: Final = symbols(SectionType)
_FILE_MAGIC: Final = QEMU_VM_FILE_MAGIC.to_bytes(4)
_SUBSECTION_PREFIX: Final = CONFIGURATION_PREFIX.encode("ascii")
_TARGET_PAGE_BITS: Final = b"configuration/target-page-bits"
_CAPABILITIES: Final = b"configuration/capabilities"
_UUID: Final = b"configuration/uuid"
_KNOWN_SUBSECTIONS: Final = frozenset({_TARGET_PAGE_BITS, _CAPABILITIES, _UUID})
_MARKER_PREFIX: Final = VFIOMarker.END_OF_STATE.to_bytes(MARKER_SIZE)[:-2]
_BODY_ENDS: Final = frozenset(
    {
        VFIOMarker.END_OF_STATE,
        VFIOMarker.DEV_INIT_DATA_SENT,
        VFIOMarker.DEV_CONFIG_LOAD_READY,
    }
)


class FileHeader(Message):
    """First 8 bytes of the stream (savevm.c:qemu_savevm_state_header)."""

    fields_desc = [
        XIntField("magic", QEMU_VM_FILE_MAGIC),
        IntField("version", QEMU_VM_FILE_VERSION),
    ]


# Configuration.


class CountedString(Message):
    """Text behind its length (qemu_put_counted_string)."""

    fields_desc = [
        FieldLenField("len", None, "text", "B"),
        CountedBytesField("text", b"", lambda string: string.len),
    ]


class ConfigurationSubsection(Message):
    """Optional part of the configuration section; ``vmsd_name`` tells which."""

    fields_desc = [
        ByteEnumField("type", SectionType.SUBSECTION.value, _TYPES),
        FieldLenField("vmsd_name_len", None, "vmsd_name", "B"),
        CountedBytesField("vmsd_name", b"", lambda part: part.vmsd_name_len),
        IntField("version_id", 1),
        ConditionalField(
            IntField("target_page_bits", 12), lambda part: part.vmsd_name == _TARGET_PAGE_BITS
        ),
        ConditionalField(
            FieldLenField("caps_count", None, fmt="I", count_of="capabilities"),
            lambda part: part.vmsd_name == _CAPABILITIES,
        ),
        ConditionalField(
            ItemsField("capabilities", lambda part, found, _head: part.next_capability(found)),
            lambda part: part.vmsd_name == _CAPABILITIES,
        ),
        ConditionalField(UUIDField("uuid", 0), lambda part: part.vmsd_name == _UUID),
    ]

    def next_capability(self, found: list[Packet]) -> Make | None:
        """Another name, as many as were announced."""
        return CountedString if len(found) < self.caps_count else None

    def post_dissect(self, s: bytes) -> bytes:
        """Refuse unknown subsections: nothing tells where they end."""
        if self.vmsd_name not in _KNOWN_SUBSECTIONS:
            raise DissectionError(f"subsection {self.vmsd_name!r} is not known")
        return s


class Configuration(Message):
    """Configuration section (savevm.c:vmstate_configuration); it has no footer."""

    fields_desc = [
        ByteEnumField("type", SectionType.CONFIGURATION.value, _TYPES),
        FieldLenField("len", None, "machine_type", "I"),
        CountedBytesField("machine_type", b"", lambda section: section.len),
        ItemsField("subsections", lambda _section, _found, head: next_subsection(head)),
    ]


def next_subsection(head: bytes) -> Make | None:
    """A subsection, if this is one or too short to tell (vmstate.c:vmstate_subsection_load)."""
    if head[:1] != bytes((SectionType.SUBSECTION,)):
        return None
    length, name = head[1:2], head[2 : 2 + len(_SUBSECTION_PREFIX)]
    if length and (length[0] < len(_SUBSECTION_PREFIX) or not _SUBSECTION_PREFIX.startswith(name)):
        return None
    return ConfigurationSubsection


# Sections.


class SectionStart(Message):
    """Header of a START section (savevm.c:save_section_header)."""

    fields_desc = [
        ByteEnumField("type", SectionType.START.value, _TYPES),
        IntField("section_id", 0),
        FieldLenField("idstr_len", None, "idstr", "B"),
        CountedBytesField("idstr", b"", lambda section: section.idstr_len),
        IntField("instance_id", 0),
        IntField("version_id", 1),
    ]


class SectionFull(SectionStart):
    """Header of a FULL section, which has the same fields."""

    type = SectionType.FULL.value


class SectionPart(Message):
    """Header of a PART section (savevm.c:save_section_header)."""

    fields_desc = [
        ByteEnumField("type", SectionType.PART.value, _TYPES),
        IntField("section_id", 0),
    ]


class SectionEnd(SectionPart):
    """Header of an END section, which has the same fields."""

    type = SectionType.END.value


class SectionFooter(Message):
    """End of a section (savevm.c:save_section_footer)."""

    fields_desc = [
        ByteEnumField("type", SectionType.FOOTER.value, _TYPES),
        IntField("section_id", 0),
    ]


class SubsectionHeader(Message):
    """Header of an optional part inside a vmstate body (vmstate.c:vmstate_subsection_save)."""

    fields_desc = [
        ByteEnumField("type", SectionType.SUBSECTION.value, _TYPES),
        FieldLenField("vmsd_name_len", None, "vmsd_name", "B"),
        CountedBytesField("vmsd_name", b"", lambda part: part.vmsd_name_len),
        IntField("version_id", 1),
    ]


class EndOfStream(Message):
    """The byte that ends the stream (savevm.c:qemu_savevm_state_complete_precopy)."""

    fields_desc = [ByteEnumField("type", SectionType.EOF.value, _TYPES)]


class VmDescription(Message):
    """JSON text about the FULL sections, behind the stream's end (savevm.c)."""

    fields_desc = [
        ByteEnumField("type", SectionType.VMDESCRIPTION.value, _TYPES),
        FieldLenField("length", None, "vmdesc", "I"),
        TextField("vmdesc", b"", lambda description: description.length),
    ]


# Commands.


class Ping(Message):
    """Payload of PING (savevm.c:qemu_savevm_send_ping)."""

    fields_desc = [IntField("value", 0)]


class PostcopyAdvise(Message):
    """Payload of POSTCOPY_ADVISE (savevm.c:qemu_savevm_send_postcopy_advise)."""

    fields_desc = [XLongField("page_size_summary", 0), LongField("page_size", 0)]


class DiscardRange(Message):
    """One range of POSTCOPY_RAM_DISCARD."""

    fields_desc = [XLongField("start", 0), XLongField("length", 0)]


class PostcopyRamDiscard(Message):
    """Payload of POSTCOPY_RAM_DISCARD (savevm.c:qemu_savevm_send_postcopy_ram_discard)."""

    fields_desc = [
        ByteField("version", 0),
        FieldLenField("block_name_len", None, "block_name", "B"),
        CountedBytesField("block_name", b"", lambda discard: discard.block_name_len),
        ByteField("terminator", 0),
        ItemsField("ranges", lambda _discard, _found, head: DiscardRange if head else None),
    ]


class Packaged(Message):
    """Payload of PACKAGED; the package itself follows the command."""

    fields_desc = [IntField("length", 0)]


class RecvBitmap(Message):
    """Payload of RECV_BITMAP (savevm.c:qemu_savevm_send_recv_bitmap)."""

    fields_desc = [
        FieldLenField("block_name_len", None, "block_name", "B"),
        CountedBytesField("block_name", b"", lambda request: request.block_name_len),
    ]


_COMMAND_BODIES: Final[dict[int, type[Packet]]] = {
    constants.Command.PING: Ping,
    constants.Command.POSTCOPY_ADVISE: PostcopyAdvise,
    constants.Command.POSTCOPY_RAM_DISCARD: PostcopyRamDiscard,
    constants.Command.PACKAGED: Packaged,
    constants.Command.RECV_BITMAP: RecvBitmap,
}


class Command(Message):
    """An order to the destination (savevm.c:qemu_savevm_command_send)."""

    fields_desc = [
        ByteEnumField("type", SectionType.COMMAND.value, _TYPES),
        ShortEnumField("cmd", constants.Command.OPEN_RETURN_PATH.value, symbols(constants.Command)),
        FieldLenField("len", None, "body", "H"),
        BodyField("body", "cmd", _COMMAND_BODIES),
    ]


# The stream.


class MainStream(PagedMessage):
    """A main stream's parts, one behind another; what cannot be told apart is the payload.

    Bodies of RAM and VFIO sections say where they end. Those of other devices do not: the
    vmdescription at the end of the stream does, and ``dissectors.read`` looks there.
    """

    fields_desc = [StreamField("parts", lambda stream, found, head: stream.next_part(found, head))]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """The rest cannot be told apart, so it is payload."""
        return s, b""

    def next_part(self, found: list[Packet], head: bytes) -> Make | None:
        """Choose what begins with ``head``; None if that cannot be told."""
        if not found and head.startswith(_FILE_MAGIC):
            return FileHeader
        section = _open_section(found)
        if section is None:
            return _ELEMENTS.get(head[0])
        if _is_body_over(found[-1]):
            return SectionFooter if head[0] == SectionType.FOOTER else _ELEMENTS.get(head[0])
        idstr = _idstr(section, found)
        if idstr == b"ram":
            return partial(RamRecord, page_size=self.page_size)
        if head.startswith(_MARKER_PREFIX) and (not idstr or idstr.endswith(b"vfio")):
            return VFIOMarkerRecord
        return None


_ELEMENTS: Final[dict[int, type[Message]]] = {
    SectionType.EOF: EndOfStream,
    SectionType.START: SectionStart,
    SectionType.PART: SectionPart,
    SectionType.END: SectionEnd,
    SectionType.FULL: SectionFull,
    SectionType.VMDESCRIPTION: VmDescription,
    SectionType.CONFIGURATION: Configuration,
    SectionType.COMMAND: Command,
    SectionType.FOOTER: SectionFooter,
}


def _open_section(found: list[Packet]) -> Packet | None:
    """Give the header of the section whose footer is still to come."""
    for part in reversed(found):
        if isinstance(part, SectionStart | SectionPart):
            return part
        if isinstance(part, tuple(_ELEMENTS.values())):
            return None
    return None


def _is_body_over(last: Packet) -> bool:
    if isinstance(last, VFIOMarkerRecord):
        return last.marker in _BODY_ENDS
    return isinstance(last, RamRecord) and bool(int(last.flags) & RamFlag.EOS)


def _idstr(section: Packet, found: list[Packet]) -> bytes:
    """Find a section's name, which only START and FULL spell out; empty if neither was seen."""
    for part in reversed(found):
        if isinstance(part, SectionStart) and part.section_id == section.section_id:
            return bytes(part.idstr)
    return b""
