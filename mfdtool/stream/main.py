# SPDX-License-Identifier: GPL-2.0-or-later
"""The main stream, cut into section headers, markers, records, commands and bodies.

No body says how long it is (savevm.c:qemu_loadvm_state_main). RAM and VFIO bodies end where their
own records say. Any other body is opaque here: the vmdescription at the end of the stream tells
its size, and where there is none, or it does not fit, the section's footer is searched.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from mfdtool.errors import WireError
from mfdtool.stream.elements import SECTION_ID_LIMIT
from mfdtool.stream.frames import ChannelId, Frame, Frames, Kind, Section
from mfdtool.stream.parsing import take
from mfdtool.stream.ram import is_plausible_word
from mfdtool.stream.reader import Reader, State
from mfdtool.stream.span import EndReason, Span
from mfdtool.stream.values import CommandRecord, MarkerRecord
from mfdtool.stream.vmstate_bodies import DESCRIPTION_LIMIT, BodyFramer
from mfdtool.wire.constants import (
    PAGE_SIZES,
    QEMU_VM_FILE_MAGIC,
    Command,
    SectionType,
    VFIOMarker,
)
from mfdtool.wire.main_stream import (
    FILE_HEADER_LAYOUT,
    CommandHeader,
    Configuration,
    PostcopyAdvise,
    SectionFooter,
    SectionPart,
    SectionStart,
    TargetPageBits,
    VmDescriptionHeader,
    parse_command_payload,
)
from mfdtool.wire.vendors.vendor import HEAD_SIZE
from mfdtool.wire.vfio import CONFIG_LIMIT, DEVICE_DATA_LAYOUT, MARKER_LAYOUT
from mfdtool.wire.vmdesc import VmDescription

_START_KINDS: Final = {
    SectionType.START: Kind.MAIN_SECTION_START,
    SectionType.FULL: Kind.MAIN_SECTION_FULL,
}
_PART_KINDS: Final = {
    SectionType.PART: Kind.MAIN_SECTION_PART,
    SectionType.END: Kind.MAIN_SECTION_END,
}
_END_OF_STATE: Final = VFIOMarker.END_OF_STATE.to_bytes(8)
_PAGE_BITS_LIMIT: Final = 20
_MARKERS: Final = frozenset(int(marker) for marker in VFIOMarker)
_BODY_ENDS: Final = frozenset(
    {
        VFIOMarker.END_OF_STATE,
        VFIOMarker.DEV_INIT_DATA_SENT,
        VFIOMarker.DEV_CONFIG_LOAD_READY,
    }
)
_MARKER_PREFIX: Final = VFIOMarker.END_OF_STATE >> 16
"""What all of QEMU's markers have in common: an unknown one is shown as such."""


class MainFramer(BodyFramer):
    """Cuts a main stream.

    ``from_start`` is False if the capture may have missed the stream's first bytes.
    ``description`` is a vmdescription kept from elsewhere, for a stream that has none.

    Attributes:
        ended: whether the stream's own end was seen.
    """

    def __init__(
        self,
        reader: Reader,
        channel: ChannelId,
        *,
        from_start: bool = True,
        page_size: int | None = None,
        description: VmDescription | None = None,
    ) -> None:
        super().__init__(reader, channel, page_size=page_size, description=description)
        self.ended = False
        self._from_start = from_start
        self._iterated = False

    def frames(self) -> Frames:
        """Yield everything up to the end of the stream."""
        if self._from_start:
            yield from self._header()
        else:
            yield from self._lose(self.find_again, "the stream's start is not captured")
        while (yield from self._element()):
            yield from self._gaps()
        yield from self._after_eof()
        yield from self._gaps()

    # Header and configuration

    def _header(self) -> Frames:
        reader = self.reader
        state = yield from reader.need(FILE_HEADER_LAYOUT.size)
        if state is not State.READY:
            return
        first = reader.stamp()
        header = FILE_HEADER_LAYOUT.parse(reader.peek(FILE_HEADER_LAYOUT.size))
        if header.magic != QEMU_VM_FILE_MAGIC:
            return
        reader.advance(FILE_HEADER_LAYOUT.size)
        yield self._frame(Kind.MAIN_HEADER, 0, first, value=header)
        state = yield from reader.need(1)
        if state is not State.READY or reader.peek(1)[0] != SectionType.CONFIGURATION:
            return
        start, first = reader.position, reader.stamp()
        # What follows tells that it is over, and may come later than its last byte.
        self.waiting_since = first.record
        configuration = yield from take(reader, Configuration.parse_prefix)
        self.waiting_since = None
        if configuration is None:
            return
        self.capabilities = configuration.capabilities
        for subsection in configuration.subsections:
            if isinstance(subsection.body, TargetPageBits):
                self._learn(1 << min(subsection.body.target_page_bits, _PAGE_BITS_LIMIT))
        yield self._frame(Kind.MAIN_CONFIGURATION, start, first, value=configuration)

    def _learn(self, page_size: int) -> None:
        """Take the page size that the stream tells, if a target can have it."""
        if page_size in PAGE_SIZES:
            self.page_size = page_size

    # Elements

    def _element(self) -> Generator[Frame | None, None, bool]:
        """Yield the frames of one element; False if the stream has no more."""
        reader = self.reader
        state = yield from reader.need(1)
        if state is State.END:
            return False
        if state is State.GAP:
            yield from self._lose(self.find_again, "a section header is missing")
            return True
        kind = reader.peek(1)[0]
        if kind == SectionType.EOF:
            start, first = reader.position, reader.stamp()
            reader.advance(1)
            yield self._frame(Kind.MAIN_EOF, start, first)
            self.ended = True
            return False
        if kind in _START_KINDS:
            known = yield from self._start()
        elif kind in _PART_KINDS:
            known = yield from self._part()
        elif kind == SectionType.COMMAND:
            known = yield from self._command()
        elif kind == SectionType.FOOTER:
            known = yield from self._footer(None)
        else:
            known = False
        if not known:
            yield from self._lose(self.find_again, self._why_lost())
        return True

    def _why_lost(self) -> str:
        reader = self.reader
        if reader.state(1) is State.READY and reader.end is None:
            return "not an element of a main stream"
        if reader.end is not None and reader.end.reason is EndReason.CAPTURE:
            return "the capture ends inside a section"
        return "not a whole element of a main stream"

    def _start(self) -> Generator[Frame | None, None, bool]:
        reader = self.reader
        start, first = reader.position, reader.stamp()
        header = yield from take(reader, SectionStart.parse_prefix)
        if header is None:
            return False
        section = Section(header.section_id, header.idstr, header.instance_id, header.version_id)
        self.sections[header.section_id] = section
        if header.type is SectionType.FULL:
            # Of a background snapshot, or what tells of the switchover is lost.
            self._switched |= self._iterated
        yield self._frame(_START_KINDS[header.type], start, first, value=header, section=section)
        return (yield from self._body(section, header.type))

    def _part(self) -> Generator[Frame | None, None, bool]:
        reader = self.reader
        start, first = reader.position, reader.stamp()
        header = yield from take(reader, _parse_part)
        if header is None:
            return False
        section = self.sections.get(header.section_id)
        if section is None:
            # Its START was not captured: what it is must show in the body.
            section = Section(header.section_id, "", 0, 0)
        self._iterated = True
        self._switched |= header.type is SectionType.END
        yield self._frame(_PART_KINDS[header.type], start, first, value=header, section=section)
        return (yield from self._body(section, header.type))

    def _body(
        self, section: Section, header_type: SectionType
    ) -> Generator[Frame | None, None, bool]:
        """Yield a section's body and footer; False if its end was not found."""
        idstr = section.idstr or (yield from self._guess())
        if idstr == "ram" and header_type is not SectionType.FULL:
            followed = yield from self._ram_records(section)
        elif idstr == "vfio" or idstr.endswith("/vfio"):
            followed = yield from self._vfio_records(section)
        else:
            followed = yield from self._opaque(section, is_full=header_type is SectionType.FULL)
        if not followed:
            followed = yield from self._opaque(section, is_full=False)
        return followed and (yield from self._footer(section))

    def _guess(self) -> Generator[None, None, str]:
        """Tell by its first word what a body is whose START was not captured."""
        state = yield from self.reader.need(8)
        if state is not State.READY:
            return ""
        word = int.from_bytes(self.reader.peek(8))
        if word in _MARKERS:
            return "vfio"
        return "ram" if is_plausible_word(word) else ""

    def _footer(self, section: Section | None) -> Generator[Frame | None, None, bool]:
        """Yield a section's footer; without ``section``, one that is found at the cursor."""
        reader = self.reader
        if section is not None and not self._has_footers:
            return True
        state = yield from reader.need(1)
        if state is not State.READY:
            return state is State.END
        start, first = reader.position, reader.stamp()
        if reader.peek(1)[0] != SectionType.FOOTER:
            # The machine may have send-section-footer off: then the next element is right here.
            self._has_footers = not (yield from self._is_element(start))
            return not self._has_footers
        footer = yield from take(reader, SectionFooter.parse_prefix)
        if footer is None:
            return False
        section = section or self.sections.get(footer.section_id)
        yield self._frame(Kind.MAIN_SECTION_FOOTER, start, first, value=footer, section=section)
        return True

    def _command(self) -> Generator[Frame | None, None, bool]:
        reader = self.reader
        start, first = reader.position, reader.stamp()
        header = yield from take(reader, CommandHeader.parse_prefix)
        if header is None:
            return False
        payload = None
        body = reader.position
        state = yield from reader.need(header.len)
        if state is State.READY and header.command is not None:
            try:
                payload = parse_command_payload(header.command, reader.peek(header.len))
            except WireError:
                payload = None
        if isinstance(payload, PostcopyAdvise):
            self._learn(payload.page_size)
        self._switched |= header.command is Command.SWITCHOVER_START
        missing = yield from reader.skip(header.len)
        yield self._frame(
            Kind.MAIN_COMMAND,
            start,
            first,
            length=body - start + header.len,
            missing=missing,
            value=CommandRecord(header, payload),
            payload=Span(body, body + header.len) if header.len else None,
            reason="not captured" if missing else "",
        )
        # A package is elements like those around it: they are simply cut next.
        return True

    # VFIO

    def _vfio_records(self, section: Section) -> Generator[Frame | None, None, bool]:
        """Yield the markers of a VFIO body (vfio/migration.c:vfio_load_state)."""
        reader = self.reader
        while True:
            start = reader.position
            state = yield from reader.need(MARKER_LAYOUT.size)
            if state is not State.READY:
                return False
            first = reader.stamp()
            (marker,) = MARKER_LAYOUT.unpack(reader.peek(MARKER_LAYOUT.size))
            size = 0
            config = head = b""
            header = MARKER_LAYOUT.size
            if marker == VFIOMarker.DEV_DATA_STATE:
                header = DEVICE_DATA_LAYOUT.size
                state = yield from reader.need(header)
                if state is not State.READY:
                    return False
                size = DEVICE_DATA_LAYOUT.parse(reader.peek(header)).size
                yield from reader.need(header + min(size, HEAD_SIZE))
                head = reader.peek_at(start + header, min(size, HEAD_SIZE))
            elif marker == VFIOMarker.DEV_CONFIG_STATE:
                size = yield from self._config_size(section)
                config = reader.peek_at(start + header, size) if size <= CONFIG_LIMIT else b""
            elif marker not in _MARKERS and marker >> 16 != _MARKER_PREFIX:
                return False
            reader.advance(header)
            missing = yield from reader.skip(size)
            body = start + header
            yield self._frame(
                Kind.VFIO_MARKER,
                start,
                first,
                length=header + size,
                missing=missing,
                value=MarkerRecord(marker, size),
                payload=Span(body, body + size) if size else None,
                section=section,
                reason="not captured" if missing else "",
                config=b"" if missing else config,
                head=head,
            )
            yield from self._gaps()
            if marker in _BODY_ENDS:
                return True

    def _config_size(self, section: Section) -> Generator[None, None, int]:
        """Count the config bytes before END_OF_STATE and the section's footer; 0 if not found."""
        footer = SectionFooter(section_id=section.section_id).build()
        start = self.reader.position + MARKER_LAYOUT.size
        self.waiting_since = self.reader.stamp().record
        at = yield from self._search(_END_OF_STATE + footer, start)
        self.waiting_since = None
        return 0 if at is None else at - start

    # After EOF

    def _after_eof(self) -> Frames:
        """Yield the vmdescription, and whatever else follows the end."""
        reader = self.reader
        state = yield from reader.need(1)
        if state is State.READY and reader.peek(1)[0] == SectionType.VMDESCRIPTION:
            start, first = reader.position, reader.stamp()
            header = yield from take(reader, VmDescriptionHeader.parse_prefix)
            if header is not None:
                body = reader.position
                if self.description is None and header.length <= DESCRIPTION_LIMIT:
                    state = yield from reader.need(header.length)
                    if state is State.READY:
                        self._read_description(body, header.length)
                missing = yield from reader.skip(header.length)
                yield self._frame(
                    Kind.MAIN_VMDESCRIPTION,
                    start,
                    first,
                    length=body - start + header.length,
                    missing=missing,
                    value=header,
                    payload=Span(body, body + header.length),
                    reason="not captured" if missing else "",
                )
        state = yield from reader.need(1)
        if reader.position < reader.fed:
            yield from self._lose_rest("bytes behind the end of the stream")


def _parse_part(data: bytes) -> tuple[SectionPart, int]:
    """Decode a PART or END header, and refuse an id that no source would reach."""
    header, used = SectionPart.parse_prefix(data)
    if header.section_id >= SECTION_ID_LIMIT:
        raise WireError(f"section id {header.section_id:#x}", path="section_id")
    return header, used
