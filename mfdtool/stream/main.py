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
from mfdtool.stream.elements import SECTION_ID_LIMIT, find_element, looks_like_element
from mfdtool.stream.frames import ChannelId, Frame, Frames, Kind, Section
from mfdtool.stream.parsing import take
from mfdtool.stream.ram import RamFramer, is_plausible_word
from mfdtool.stream.reader import Reader, State
from mfdtool.stream.span import EndReason, Span
from mfdtool.stream.values import CommandRecord, MarkerRecord
from mfdtool.wire.constants import (
    QEMU_VM_FILE_MAGIC,
    SECTION_FOOTER_SIZE,
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
from mfdtool.wire.vfio import DEVICE_DATA_LAYOUT, MARKER_LAYOUT
from mfdtool.wire.vmdesc import VmDescription, body_sizes, parse_vmdescription

DESCRIPTION_LIMIT: Final = 16 << 20
"""Longest vmdescription that is decoded; real ones have some ten thousand bytes."""

HOLD_LIMIT: Final = 256 << 20
"""Bytes of device sections that are held until the vmdescription comes."""

_START_KINDS: Final = {
    SectionType.START: Kind.MAIN_SECTION_START,
    SectionType.FULL: Kind.MAIN_SECTION_FULL,
}
_PART_KINDS: Final = {
    SectionType.PART: Kind.MAIN_SECTION_PART,
    SectionType.END: Kind.MAIN_SECTION_END,
}
_END_OF_STATE: Final = VFIOMarker.END_OF_STATE.to_bytes(8)
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
_DESCRIPTION_HEADER: Final = 5


class MainFramer(RamFramer):
    """Cuts a main stream.

    ``from_start`` is False if the capture may have missed the stream's first bytes.
    ``description`` is a vmdescription kept from elsewhere, for a stream that has none.

    Attributes:
        sections: those whose header was seen, by id.
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
        super().__init__(reader, channel, page_size=page_size)
        self.description = description
        self._sizes = body_sizes(description) if description is not None else {}
        self.sections: dict[int, Section] = {}
        self.ended = False
        self._from_start = from_start
        self._searched = description is not None
        self._switched = False
        self._has_footers = True
        self._patient = True

    def hurry(self) -> None:
        """Wait no longer for the vmdescription, and hold no other channel back."""
        self._searched = True
        self.waiting_since = None

    def frames(self) -> Frames:
        """Yield everything up to the end of the stream."""
        if self._from_start:
            yield from self._header()
        else:
            yield from self._lose(self.find_element, "the stream's start is not captured")
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
                self.page_size = 1 << min(subsection.body.target_page_bits, 20)
        yield self._frame(Kind.MAIN_CONFIGURATION, start, first, value=configuration)

    # Elements

    def _element(self) -> Generator[Frame | None, None, bool]:
        """Yield the frames of one element; False if the stream has no more."""
        reader = self.reader
        state = yield from reader.need(1)
        if state is State.END:
            return False
        if state is State.GAP:
            yield from self._lose(self.find_element, "a section header is missing")
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
            yield from self._lose(self.find_element, self._why_lost())
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
            self.page_size = payload.page_size
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
            header = MARKER_LAYOUT.size
            if marker == VFIOMarker.DEV_DATA_STATE:
                header = DEVICE_DATA_LAYOUT.size
                state = yield from reader.need(header)
                if state is not State.READY:
                    return False
                size = DEVICE_DATA_LAYOUT.parse(reader.peek(header)).size
            elif marker == VFIOMarker.DEV_CONFIG_STATE:
                size = yield from self._config_size(section)
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

    def _search(self, pattern: bytes, start: int) -> Generator[None, None, int | None]:
        """Wait until ``pattern`` is found behind ``start``; None if it never comes."""
        reader = self.reader
        search = start
        while (at := reader.find(pattern, search)) < 0:
            if reader.end is not None or reader.fed - start > HOLD_LIMIT:
                return None
            search = max(start, reader.fed - len(pattern) + 1)
            yield None
        return at

    # Opaque bodies

    def _opaque(self, section: Section, *, is_full: bool) -> Generator[Frame | None, None, bool]:
        """Yield a body as one frame; False if its end was not found."""
        reader = self.reader
        yield from self._close_lost("not a record of the section")
        start = reader.position
        state = yield from reader.need(1)
        if state is State.END:
            return False
        first = reader.stamp()
        size = None
        # What follows the body tells where it ends, and may come later than its last byte.
        self.waiting_since = first.record if self._patient else None
        if is_full:
            yield from self._await_description()
            size = yield from self._described_size(section)
        if size is None:
            size = yield from self._size_by_footer(section)
        self.waiting_since = None
        if size is None:
            return False
        if not size:
            return True
        missing = yield from reader.skip(size)
        yield self._frame(
            Kind.MAIN_OPAQUE,
            start,
            first,
            length=size,
            missing=missing,
            payload=Span(start, start + size),
            section=section,
            reason="not captured" if missing else "",
        )
        yield from self._gaps()
        return True

    def _await_description(self) -> Generator[None, None, None]:
        """Wait for the stream's end and read the vmdescription there, once.

        Before the switchover that would be a long wait; the few FULL sections there are found by
        their footers.
        """
        reader = self.reader
        if not self._switched:
            return
        start = reader.position
        while not self._searched:
            if reader.end is not None:
                self._searched = True
                self._read_description(start)
            elif reader.fed - start > HOLD_LIMIT:
                self._searched = True
            else:
                yield None

    def _read_description(self, start: int) -> None:
        """Decode the vmdescription that ends the stream, if one does."""
        reader = self.reader
        pattern = bytes((SectionType.EOF, SectionType.VMDESCRIPTION, 0))
        at = reader.find(pattern, start)
        while at >= 0:
            body = at + 1 + _DESCRIPTION_HEADER
            length = int.from_bytes(reader.peek_at(body - 4, 4))
            if length == reader.fed - body and length <= DESCRIPTION_LIMIT:
                try:
                    self.description = parse_vmdescription(reader.peek_at(body, length))
                except WireError:
                    return
                self._sizes = body_sizes(self.description)
                return
            at = reader.find(pattern, at + 1)

    def _described_size(self, section: Section) -> Generator[None, None, int | None]:
        """Give the body's size by the vmdescription, if the section's footer is there indeed."""
        size = self._sizes.get((section.idstr, section.instance_id))
        if size is None or not self._has_footers:
            return size
        fits = yield from self._is_footer(self.reader.position + size, section)
        return size if fits else None

    def _is_footer(self, at: int, section: Section) -> Generator[None, None, bool]:
        reader = self.reader
        while reader.fed < at + SECTION_FOOTER_SIZE and reader.end is None:
            yield None
        footer = reader.peek_at(at, SECTION_FOOTER_SIZE)
        return footer == SectionFooter(section_id=section.section_id).build()

    def _size_by_footer(self, section: Section) -> Generator[None, None, int | None]:
        """Search the section's footer, with a plausible element behind it."""
        start = self.reader.position
        footer = SectionFooter(section_id=section.section_id).build()
        search = start
        while True:
            at = yield from self._search(footer, search)
            if at is None:
                return None
            if (yield from self._is_element(at + SECTION_FOOTER_SIZE)):
                return at - start
            search = at + 1

    # Resynchronisation

    def find_element(self, start: int) -> tuple[int | None, int]:
        """Search what was fed for a footer with a plausible element behind it.

        Gives the footer's position, or None; and where to search on when more was fed.
        """
        return find_element(self.reader, start, self.sections)

    def _is_element(self, at: int) -> Generator[None, None, bool]:
        while (verdict := looks_like_element(self.reader, at, self.sections)) is None:
            yield None
        return verdict

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
