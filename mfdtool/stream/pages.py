# SPDX-License-Identifier: GPL-2.0-or-later
"""The last content of one page of guest RAM that was transferred.

Pages travel in multifd packets, whose offsets are listed in front of the data (multifd-nocomp.c:
multifd_ram_unfill_packet), or as records of the main stream (ram.c:ram_load_precopy), or they lie
in a mapped-ram file at their own places. A record with XBZRLE is a difference to the copy before,
so every copy is kept until the next one comes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from mfdtool.errors import WireError
from mfdtool.stream.decompress import PageDecompressor
from mfdtool.stream.extraction import Extractor, Hole, Piece, Pieces, pieces_of
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.mapped_ram import mapped_block
from mfdtool.stream.span import Span
from mfdtool.stream.values import RamRecord
from mfdtool.stream.xbzrle import apply_xbzrle
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_RAM_FIXED_SIZE,
    X86_PAGE_SIZE,
    RamFlag,
)
from mfdtool.wire.multifd import MultiFDPacketCounts, MultiFDPacketFixed, page_size_for

if TYPE_CHECKING:
    from mfdtool.stream.migration import Migration
    from mfdtool.wire.ram import MemSizeEntry

_OFFSET_SIZE: Final = 8
_LOSSES: Final = frozenset({Kind.GAP, Kind.UNDECODED})
_BLOCKS_LISTED: Final = 64


class PageExtractor(Extractor):
    """The page at ``offset`` of RAM block ``block``.

    ``page_size`` is the target page size if it is known; otherwise the stream tells it.
    """

    def __init__(
        self, migration: int, block: str, offset: int, *, page_size: int | None = None
    ) -> None:
        super().__init__(migration)
        self._page_size = page_size or 0
        self._block = block
        self._offset = offset
        self._name = f"{block}:{offset:#x}"
        self._blocks: dict[str, None] = {}
        self._decompressors: dict[str, PageDecompressor] = {}
        self._content: list[Piece] = []
        self._origin = ""
        self._transfers = 0
        self._lost = ""

    def add(self, frame: Frame) -> Pieces:
        """Remember the content if the frame has the page."""
        value = frame.value
        if isinstance(value, MultiFDPacketCounts):
            self._packet(frame, value)
        elif isinstance(value, RamRecord):
            self._record(frame, value)
        elif frame.kind is Kind.UNDECODED and frame.channel.name in self._decompressors:
            self._decompressors[frame.channel.name].lose(_place(frame))
        elif frame.kind in _LOSSES:
            self._lost = self._lost or f"{frame.channel.name}, offset {frame.offset}"
        return iter(())

    def finish(self, migration: Migration | None) -> Pieces:
        """Give the last content."""
        if self._transfers:
            times = f", the last of {self._transfers} transfers" if self._transfers > 1 else ""
            self.remarks.note(f"{self._name} is from {self._origin}{times}")
        return iter(self._content)

    def wanted(self) -> str:
        """List the RAM blocks."""
        blocks = ", ".join(self._blocks) or "none"
        inside = self._offset % (self._page_size or X86_PAGE_SIZE)
        if inside and self._block in self._blocks:
            begin = f"{self._block}:{self._offset - inside:#x}"
            return f"no page begins at {self._name}; the one that has it begins at {begin}"
        return f"page {self._name} was not transferred; pages of these RAM blocks were: {blocks}"

    def _packet(self, frame: Frame, packet: MultiFDPacketCounts) -> None:
        pages = packet.normal_pages + packet.zero_pages
        table_start = frame.offset + MULTIFD_RAM_FIXED_SIZE
        payload = frame.payload
        if not pages or payload is None or payload.start <= table_start:
            return
        content: bytes | str = ""
        page_size = page_size_for((payload.start - table_start) // _OFFSET_SIZE)
        self._page_size = page_size
        if packet.flags & MULTIFD_COMPRESSION_MASK and packet.normal_pages:
            content = self._decompress(frame, packet, packet.normal_pages * page_size)
        table = frame.data(
            Span(table_start, min(table_start + pages * _OFFSET_SIZE, payload.start))
        )
        if not isinstance(packet, MultiFDPacketFixed) or len(table) < pages * _OFFSET_SIZE:
            self.remarks.problem(f"{_place(frame)}: its header is not whole, the page may be in it")
            return
        if not self._is_block(packet.ramblock_text):
            return
        index = _find(table, self._offset.to_bytes(_OFFSET_SIZE))
        if index is None:
            return
        if index >= packet.normal_pages:
            self._found(frame, [bytes(page_size)], "a zero page")
        elif content:
            self._compressed(frame, content, Span(index * page_size, (index + 1) * page_size))
        elif packet.flags & MULTIFD_COMPRESSION_MASK == 0:
            start = payload.start + index * page_size
            span = Span(start, start + page_size)
            self._found(frame, list(pieces_of(frame, span, _place(frame))), "normal")

    def _decompress(self, frame: Frame, packet: MultiFDPacketCounts, size: int) -> bytes | str:
        """Give a packet's pages, or why they cannot be had."""
        name = frame.channel.name
        try:
            decompressor = self._decompressors.get(name)
            if decompressor is None:
                decompressor = self._decompressors[name] = PageDecompressor(packet.flags)
            if not frame.complete:
                decompressor.lose(f"{_place(frame)} is not complete")
            return decompressor.feed(frame.data(frame.payload), flags=packet.flags, size=size)
        except WireError as error:
            return error.reason

    def _compressed(self, frame: Frame, content: bytes | str, span: Span) -> None:
        if isinstance(content, str):
            hole = Hole(f"{self._name} in {_place(frame)}: {content}", span.size)
            self._found(frame, [hole], "compressed")
        else:
            self._found(frame, [content[span.start : span.stop]], "compressed")

    def _record(self, frame: Frame, record: RamRecord) -> None:
        for entry in record.entries:
            if entry.mapped_ram is not None and self._is_block(entry.idstr):
                self._mapped(frame, entry, record.origin)
        if not record.ramblock or not self._is_block(record.ramblock):
            return
        if record.addr != self._offset:
            return
        payload = frame.payload
        size = self._page_size or X86_PAGE_SIZE
        if record.fill is not None:
            self._found(frame, [bytes([record.fill]) * size], f"filled with {record.fill}")
        elif payload is None:
            return
        elif record.flags & RamFlag.PAGE:
            self._page_size = payload.size
            self._found(frame, list(pieces_of(frame, payload, _place(frame))), "normal")
        elif record.flags & RamFlag.COMPRESS_PAGE:
            self._found(frame, [self._inflate(frame, payload, size)], "compressed")
        else:
            self._found(frame, [self._changed(frame, payload, size)], "XBZRLE")

    def _mapped(self, frame: Frame, entry: MemSizeEntry, origin: int) -> None:
        """Find the page at its own place, if the block's bitmap has it."""
        try:
            block = mapped_block(entry, origin=origin)
        except WireError:
            return
        place = block.bit_of(self._offset) if block is not None else None
        if block is None or place is None:
            return
        self._page_size = block.page_size
        at, mask = place
        byte = frame.data(Span(at, at + 1))
        if not byte:
            what = f"{self._name} in {_place(frame)}: the bitmap's byte for it"
            self._found(frame, [Hole(what, None)], "mapped")
        elif byte[0] & mask:
            pieces = pieces_of(frame, block.page_at(self._offset), _place(frame))
            self._found(frame, list(pieces), "mapped")
        else:
            self._found(frame, [bytes(block.page_size)], "not in the bitmap: a zero page")

    def _changed(self, frame: Frame, payload: Span, size: int) -> Piece:
        """Apply an XBZRLE difference to the copy before (ram.c:load_xbzrle)."""
        what = f"{self._name} in {_place(frame)}"
        if not self._transfers:
            return Hole(f"{what}: an XBZRLE difference to a copy that is not there", size)
        if any(isinstance(piece, Hole) for piece in self._content):
            return Hole(f"{what}: an XBZRLE difference to a copy that is not whole", size)
        page = b"".join(piece for piece in self._content if not isinstance(piece, Hole))
        if not frame.complete:
            return Hole(f"{what}: an XBZRLE difference that is not whole", len(page))
        if self._lost:
            self.remarks.problem(
                f"{what} is an XBZRLE difference, and the copy that it is for may have been lost"
                f" at {self._lost}"
            )
        try:
            return apply_xbzrle(page, frame.data(payload))
        except WireError as error:
            return Hole(f"{what}: {error.reason}", len(page))

    def _inflate(self, frame: Frame, payload: Span, size: int) -> Piece:
        what = f"{self._name} in {_place(frame)}"
        try:
            content = zlib.decompressobj().decompress(frame.data(payload), size + 1)
        except zlib.error as error:
            return Hole(f"{what}: {error}", size)
        return content if len(content) == size else Hole(f"{what}: not {size} bytes", size)

    def _is_block(self, name: str) -> bool:
        if len(self._blocks) < _BLOCKS_LISTED:
            self._blocks.setdefault(name)
        return name == self._block

    def _found(self, frame: Frame, content: list[Piece], how: str) -> None:
        self.found = True
        if how != "XBZRLE":
            self._lost = ""
        self._transfers += 1
        self._content = content
        self._origin = f"{_place(frame)}, {how}"


def _place(frame: Frame) -> str:
    return f"{frame.channel.name} #{frame.number}"


def _find(table: bytes, entry: bytes) -> int | None:
    """Find an entry in a table of entries as long as it."""
    at = table.find(entry)
    while at >= 0:
        index, rest = divmod(at, len(entry))
        if not rest:
            return index
        at = table.find(entry, at + 1)
    return None
