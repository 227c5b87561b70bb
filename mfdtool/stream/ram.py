# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM records, as main stream and postcopy preempt channel carry them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from mfdtool.errors import TruncatedError, WireError
from mfdtool.stream.frames import ChannelId, Frame, Framer, Frames, Kind, Section
from mfdtool.stream.mapped_ram import MappedBlock, mapped_block
from mfdtool.stream.parsing import take
from mfdtool.stream.reader import Reader, Stamp, State
from mfdtool.stream.span import Span
from mfdtool.stream.values import RamRecord
from mfdtool.wire.constants import X86_PAGE_SIZE, RamFlag
from mfdtool.wire.ram import BlockId, CompressedPageHeader, MemSizeEntry, XbzrleHeader

FLAG_BITS: Final = 0x3FF
"""Every flag that ever was; the address has no bit here at any target page size."""

_WORD_SIZE: Final = 8
_PAGE_SIZES: Final = (4096, 65536, 16384, 8192, 32768, 2048, 1024)
_KINDS: Final = frozenset(
    {
        RamFlag.ZERO,
        RamFlag.MEM_SIZE,
        RamFlag.PAGE,
        RamFlag.EOS,
        RamFlag.XBZRLE,
        RamFlag.COMPRESS_PAGE,
        RamFlag.MULTIFD_FLUSH,
    }
)
_SMALLEST_ODD_PAGE: Final = 8192
_NO_POSTCOPY: Final = frozenset({"x-ignore-shared", "mapped-ram"})
_MAX_ENTRIES: Final = 65536
_BITMAP_PIECE: Final = 1 << 16


def is_plausible_word(word: int) -> bool:
    """Tell whether a be64 could begin a record: exactly one kind, besides CONTINUE."""
    return (word & FLAG_BITS & ~RamFlag.CONTINUE) in _KINDS


class RamFramer(Framer):
    """A framer that meets RAM records.

    Attributes:
        page_size: target page size in bytes, 0 as long as nobody knows it.
        capabilities: those that the configuration section lists.
        origin: where in its file the stream begins: places in mapped-ram headers count from the
            file's start.
    """

    def __init__(self, reader: Reader, channel: ChannelId, *, page_size: int | None = None) -> None:
        super().__init__(reader, channel)
        self.page_size = page_size or 0
        self.capabilities: frozenset[str] = frozenset()
        self.origin = 0
        self._block = ""
        self._lacking = 0
        self._mapped: list[int] = []

    def _ram_records(self, section: Section | None) -> Generator[Frame | None, None, bool]:
        """Yield the records up to EOS; False if the body could not be followed to its end."""
        reader = self.reader
        while True:
            start = reader.position
            state = yield from reader.need(_WORD_SIZE)
            if state is not State.READY:
                return False
            first = reader.stamp()
            word = int.from_bytes(reader.peek(_WORD_SIZE))
            if not is_plausible_word(word):
                return False
            reader.advance(_WORD_SIZE)
            if not (yield from self._ram_record(start, first, word, section)):
                self._abandon(start, first, missing=self._lacking)
                return False
            if word & RamFlag.EOS:
                return True

    def _ram_record(
        self, start: int, first: Stamp, word: int, section: Section | None
    ) -> Generator[Frame | None, None, bool]:
        """Yield the record whose first word was read; False if it could not be followed."""
        reader = self.reader
        flags, addr = word & FLAG_BITS, word & ~FLAG_BITS
        kind = RamFlag(flags & ~RamFlag.CONTINUE)
        entries: tuple[MemSizeEntry, ...] = ()
        fill: int | None = None
        size = 0
        self._lacking = 0
        has_block = kind not in {RamFlag.EOS, RamFlag.MEM_SIZE, RamFlag.MULTIFD_FLUSH}
        if has_block and not flags & RamFlag.CONTINUE:
            block = yield from take(reader, BlockId.parse_prefix)
            if block is None:
                return False
            self._block = block.idstr
        if kind is RamFlag.MEM_SIZE:
            self.waiting_since = first.record
            listed = yield from self._entries(addr)
            self.waiting_since = None
            if listed is None:
                return False
            entries = listed
        elif kind is RamFlag.ZERO:
            state = yield from reader.need(1)
            if state is not State.READY:
                return False
            fill = reader.read(1)[0]
        elif has_block:
            data_size = yield from self._page_data_size(kind, first)
            if data_size is None:
                return False
            size = data_size
        body = reader.position
        missing = self._lacking + (yield from reader.skip(size))
        yield self._frame(
            Kind.RAM_RECORD,
            start,
            first,
            length=body + size - start,
            missing=missing,
            value=RamRecord(
                flags,
                addr,
                self._block if has_block else "",
                entries,
                fill,
                tuple(self._mapped) if entries else (),
                self.origin if self._mapped else 0,
            ),
            payload=Span(body, body + size) if size else None,
            section=section,
            reason="not captured" if missing else "",
        )
        yield from self._gaps()
        return True

    def _page_data_size(self, kind: RamFlag, first: Stamp) -> Generator[None, None, int | None]:
        """Move to a page record's data; give its length, None if it cannot be known."""
        if kind is RamFlag.XBZRLE:
            xbzrle = yield from take(self.reader, XbzrleHeader.parse_prefix)
            return xbzrle.len if xbzrle else None
        if kind is RamFlag.COMPRESS_PAGE:
            compressed = yield from take(self.reader, CompressedPageHeader.parse_prefix)
            return compressed.len if compressed else None
        if not self.page_size:
            yield from self._learn_page_size(first)
        return self.page_size

    def _learn_page_size(self, first: Stamp) -> Generator[None, None, None]:
        """Find the page size behind which another record begins."""
        reader = self.reader
        self.waiting_since = first.record
        for size in _PAGE_SIZES:
            state = yield from reader.need(size + _WORD_SIZE)
            if state is not State.READY:
                continue
            word = reader.peek_at(reader.position + size, _WORD_SIZE)
            if is_plausible_word(int.from_bytes(word)):
                self.page_size = size
                break
        self.waiting_since = None
        self.page_size = self.page_size or X86_PAGE_SIZE

    def _entries(self, total: int) -> Generator[None, None, tuple[MemSizeEntry, ...] | None]:
        """Read the block list of a MEM_SIZE record."""
        entries: list[MemSizeEntry] = []
        self._mapped = []
        while total > 0:
            entry = yield from take(self.reader, self._parse_entry)
            if entry is None or entry.used_length > total or len(entries) == _MAX_ENTRIES:
                return None
            entries.append(entry)
            total -= entry.used_length
            if entry.mapped_ram is not None and not (yield from self._mapped_pages(entry)):
                return None
        return tuple(entries)

    def _mapped_pages(self, entry: MemSizeEntry) -> Generator[None, None, bool]:
        """Move over the pages that follow an entry, and count those that are there."""
        reader = self.reader
        try:
            block = mapped_block(entry, origin=self.origin)
        except WireError:
            return False
        if block is None or block.bitmap.start < reader.position:
            return False
        self.page_size = block.page_size
        count = yield from self._count_bits(block)
        self._mapped.append(min(count, block.page_count))
        end = block.pages.stop
        skipped = yield from reader.skip(end - reader.position)
        beyond = end - reader.position
        self._lacking += skipped - beyond
        return not beyond

    def _count_bits(self, block: MappedBlock) -> Generator[None, None, int]:
        """Count the pages that a block's bitmap names, as far as the bitmap is there."""
        reader = self.reader
        count = 0
        for start in range(block.bitmap.start, block.bitmap.stop, _BITMAP_PIECE):
            stop = min(start + _BITMAP_PIECE, block.bitmap.stop)
            while reader.fed < stop and reader.end is None:
                yield None
            if start >= reader.fed:
                break
            for low, high in reader.stretches(start, stop):
                count += int.from_bytes(reader.peek_at(low, high - low)).bit_count()
        return count

    def _parse_entry(self, data: bytes) -> tuple[MemSizeEntry, int]:
        """Decode one block, whose optional parts no byte announces.

        A block's page size (only with postcopy-ram, only if it is not the normal one) is told
        from what else may follow: a name's length is never 0, and a record's flags never are.
        Neither of the other parts goes with postcopy-ram (options.c:migrate_caps_check).
        """
        _, used = MemSizeEntry.parse_prefix(data)
        tail = data[used : used + _WORD_SIZE]
        if len(tail) < _WORD_SIZE:
            raise TruncatedError(_WORD_SIZE - len(tail))
        word = int.from_bytes(tail)
        odd = word >= _SMALLEST_ODD_PAGE and not word & (word - 1) and not tail[0]
        return MemSizeEntry.parse_prefix(
            data,
            with_page_size=odd and self.capabilities.isdisjoint(_NO_POSTCOPY),
            with_address="x-ignore-shared" in self.capabilities,
            with_mapped_ram="mapped-ram" in self.capabilities,
        )


class PreemptFramer(RamFramer):
    """Cuts a postcopy preempt channel: bare page records, no sections (ram.c:ram_load_postcopy)."""

    def frames(self) -> Frames:
        """Yield the records; after a byte that belongs to none, the rest is undecoded."""
        while (yield from self._ram_records(None)):
            pass
        cut_off = self.reader.state(_WORD_SIZE) is State.END
        yield from self._lose_rest(
            "the channel ends inside a record" if cut_off else "not a RAM record"
        )
