# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies that do not say how long they are: all but those of RAM and VFIO devices.

The vmdescription at the end of the stream tells of those of FULL sections how long they are and
what they hold; the others consist of records, as their handler sends them. Where nothing of that
fits, the section's footer is searched, with a plausible element behind it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

from mfdtool.errors import TruncatedError, WireError
from mfdtool.stream.elements import find_behind_gaps, find_element, looks_like_element
from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.ram import RamFramer
from mfdtool.stream.reader import Reader, State
from mfdtool.stream.span import Span
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.constants import SECTION_FOOTER_SIZE
from mfdtool.wire.iterable import HANDLERS, RECORD_LIMIT
from mfdtool.wire.main_stream import SectionFooter
from mfdtool.wire.vmdesc import (
    DeviceDescription,
    VmDescription,
    body_sizes,
    find_vmdescription,
    parse_vmdescription,
)

DESCRIPTION_LIMIT: Final = 16 << 20
"""Longest vmdescription that is decoded; real ones have some ten thousand bytes."""

HOLD_LIMIT: Final = 256 << 20
"""Bytes of device sections that are held until the vmdescription comes."""

BODY_LIMIT: Final = 32 << 20
"""Longest body that is taken apart; real ones seldom have a hundred thousand bytes."""

_HOLES_ALLOWED: Final = 64
"""Missing bytes that a body may have beyond as many as it has of the others."""

_DESCRIPTION_HEADER: Final = 5


class BodyFramer(RamFramer):
    """A framer that meets sections whose bodies have no structure of their own.

    ``description`` is a vmdescription kept from elsewhere, which is taken instead of the stream's
    own: the stream need not be held back for it.

    Attributes:
        description: the vmdescription, once it is known.
        sections: those whose header was seen, by id.
    """

    def __init__(
        self,
        reader: Reader,
        channel: ChannelId,
        *,
        page_size: int | None = None,
        description: VmDescription | None = None,
    ) -> None:
        super().__init__(reader, channel, page_size=page_size)
        self.description: VmDescription | None = None
        self.sections: dict[int, Section] = {}
        self._devices: Mapping[tuple[str, int], DeviceDescription] = {}
        self._sizes: Mapping[tuple[str, int], int | None] = {}
        self._searched = description is not None
        self._switched = False
        self._has_footers = True
        if description is not None:
            self._describe(description)

    def hurry(self) -> None:
        """Wait no longer for the vmdescription, and hold no other channel back."""
        self._searched = True
        self.waiting_since = None

    def _describe(self, description: VmDescription) -> None:
        self.description = description
        self._devices = {(each.name, each.instance_id): each for each in description.devices}
        self._sizes = body_sizes(description)

    # Bodies

    def _opaque(self, section: Section, *, is_full: bool) -> Generator[Frame | None, None, bool]:
        """Yield a body as one frame; False if its end was not found."""
        reader = self.reader
        yield from self._close_lost("not a record of the section")
        start = reader.position
        state = yield from reader.need(1)
        if state is State.END:
            return False
        first = reader.stamp()
        # What follows the body tells where it ends, and may come later than its last byte.
        self.waiting_since = first.record
        value: DeviceState | RecordsBody | None = None
        size = None if is_full else (yield from self._records_size(section))
        if size is not None:
            data = reader.peek_at(start, size) if size <= BODY_LIMIT else b""
            value = RecordsBody(section.idstr, data) if len(data) == size else None
        else:
            size = yield from self._body_size(section, is_full=is_full)
            if size and is_full:
                value = yield from self._device_state(section, size)
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
            value=value,
            payload=Span(start, start + size),
            section=section,
            reason="not captured" if missing else "",
        )
        yield from self._gaps()
        return True

    def _device_state(
        self, section: Section, size: int
    ) -> Generator[None, None, DeviceState | None]:
        """Give what is at the cursor as a device's state; None if nobody knows what it is."""
        device = self._devices.get((section.idstr, section.instance_id))
        if device is None or size > BODY_LIMIT:
            return None
        reader = self.reader
        start, stop = reader.position, reader.position + size
        while reader.fed < stop and reader.end is None:
            yield None
        stretches = reader.stretches(start, stop)
        present = sum(high - low for low, high in stretches)
        if size - present > present + _HOLES_ALLOWED:
            return None
        data = bytearray()
        holes = []
        for low, high in [*stretches, (stop, stop)]:
            hole = (len(data), low - start)
            if hole[0] < hole[1]:
                holes.append(hole)
                data += bytes(hole[1] - hole[0])
            data += reader.peek_at(low, high - low)
        return DeviceState(device, section.version_id, bytes(data), tuple(holes))

    # Where they end

    def _records_size(self, section: Section) -> Generator[None, None, int | None]:
        """Count the bytes of a handler's records; None if there are none, or not only these."""
        parse = HANDLERS.get(section.idstr)
        if parse is None:
            return None
        reader = self.reader
        start = at = reader.position
        while at - start <= HOLD_LIMIT:
            head = reader.peek_at(at, RECORD_LIMIT)
            try:
                step = parse(head, is_first=at == start)
            except TruncatedError:
                if reader.end is not None or at + len(head) < reader.fed:
                    return None
                yield None
                continue
            except WireError:
                return None
            at += step.header + step.data
            if step.is_last:
                return at - start if (yield from self._fits(at - start, section)) else None
            if step.may_be_last and (yield from self._is_footer(at, section)):
                return at - start
        return None

    def _body_size(self, section: Section, *, is_full: bool) -> Generator[None, None, int | None]:
        described = None
        if is_full:
            yield from self._await_description()
            described = self._sizes.get((section.idstr, section.instance_id))
            if described is not None and (yield from self._fits(described, section)):
                return described
        size = yield from self._size_by_footer(section)
        if size is None and described is not None and self._is_cut(described):
            # Nothing speaks against the vmdescription: the footer is among what is missing.
            return described
        return size

    def _fits(self, size: int, section: Section) -> Generator[None, None, bool]:
        """Tell whether the section's footer is behind a body of ``size`` bytes, if any is."""
        return not self._has_footers or (
            yield from self._is_footer(self.reader.position + size, section)
        )

    def _is_footer(self, at: int, section: Section) -> Generator[None, None, bool]:
        reader = self.reader
        while reader.fed < at + SECTION_FOOTER_SIZE and reader.end is None:
            yield None
        footer = reader.peek_at(at, SECTION_FOOTER_SIZE)
        return footer == SectionFooter(section_id=section.section_id).build()

    def _is_cut(self, size: int) -> bool:
        """Tell whether the capture lacks what is behind a body of ``size`` bytes.

        Another section's footer before that place tells that the body is not as long.
        """
        start = self.reader.position
        at = start + size
        found = self.reader.peek_at(at, SECTION_FOOTER_SIZE)
        if size > BODY_LIMIT or len(found) == SECTION_FOOTER_SIZE:
            return False
        other, _ = self.find_element(start)
        return other is None or other >= at

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

    def find_element(self, start: int) -> tuple[int | None, int]:
        """Search what was fed for a footer with a plausible element behind it.

        Gives the footer's position, or None; and where to search on when more was fed.
        """
        return find_element(self.reader, start, self.sections)

    def find_again(self, start: int) -> tuple[int | None, int]:
        """Search for where decoding can go on: what `find_element` finds, or behind a gap."""
        reader = self.reader
        found, search = self.find_element(start)
        stop = reader.fed if found is None else found
        behind, resume = find_behind_gaps(reader, start, stop, self.sections)
        if behind is not None or resume < stop:
            return behind, resume
        return found, search

    def _is_element(self, at: int) -> Generator[None, None, bool]:
        while (verdict := looks_like_element(self.reader, at, self.sections)) is None:
            yield None
        return verdict

    # The vmdescription

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
                self._find_description(start)
            elif reader.fed - start > HOLD_LIMIT:
                self._searched = True
            else:
                yield None

    def _find_description(self, start: int) -> None:
        """Decode the vmdescription that ends the stream, if one does."""
        reader = self.reader
        lowest = reader.fed - DESCRIPTION_LIMIT - _DESCRIPTION_HEADER
        whole = reader.stretches(max(start, lowest), reader.fed)
        if not whole:
            return
        low, high = whole[-1]
        place = find_vmdescription(reader.peek_at(low, high - low), limit=DESCRIPTION_LIMIT)
        if high == reader.fed and place is not None:
            self._read_description(low + place[0], place[1] - place[0])

    def _read_description(self, start: int, length: int) -> None:
        """Decode the vmdescription's text; one that is damaged is none."""
        if length > DESCRIPTION_LIMIT:
            return
        try:
            self._describe(parse_vmdescription(self.reader.peek_at(start, length)))
        except WireError:
            return
