# SPDX-License-Identifier: GPL-2.0-or-later
"""Where pages are in a mapped-ram file.

See QEMU ram.c:mapped_ram_setup_ramblock and parse_ramblock_mapped_ram.

Each block of the list is followed by a bitmap with a bit for each page, then by the block itself,
at places that count from the start of the file. A page whose bit is not set is zero, whatever the
file has at its place. The bitmap is an array of the source's ``unsigned long``: of 64 bits, the
lowest one first, and little-endian as far as it is known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mfdtool.errors import UnsupportedError, WireError
from mfdtool.stream.span import Span
from mfdtool.wire.constants import MAPPED_RAM_HDR_VERSION, PAGE_SIZES
from mfdtool.wire.ram import MemSizeEntry

_WORD_BITS: Final = 64
_WORD_SIZE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedBlock:
    """One block.

    Attributes:
        idstr: its name.
        page_size: bytes of a page.
        bitmap: where the bitmap is, in the stream.
        pages: where the block is, in the stream.
    """

    idstr: str
    page_size: int
    bitmap: Span
    pages: Span

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return self.pages.size

    @property
    def page_count(self) -> int:
        """Pages of the block."""
        return -(-self.size // self.page_size)

    def bit_of(self, offset: int) -> tuple[int, int] | None:
        """Give where in the stream the byte with a page's bit is, and its mask; None: no page."""
        index, rest = divmod(offset, self.page_size)
        if rest or offset >= self.size:
            return None
        return self.bitmap.start + index // 8, 1 << index % 8

    def page_at(self, offset: int) -> Span:
        """Give where in the stream the page at an offset of the block is."""
        start = self.pages.start + offset
        return Span(start, min(start + self.page_size, self.pages.stop))


def mapped_block(entry: MemSizeEntry, *, origin: int = 0) -> MappedBlock | None:
    """Give where an entry's pages are; None if it does not say.

    ``origin`` is where in the file the stream begins.

    Raises:
        UnsupportedError: it is of a version that is not known.
        WireError: its parts overlap, or pages have a size that no target has.
    """
    header = entry.mapped_ram
    if header is None:
        return None
    if header.version > MAPPED_RAM_HDR_VERSION:
        raise UnsupportedError(f"mapped-ram version {header.version}", path="mapped_ram.version")
    size = header.page_size
    if size not in PAGE_SIZES:
        raise WireError(f"pages of {size} bytes", path="mapped_ram.page_size")
    pages = -(-entry.used_length // size)
    bitmap_size = -(-pages // _WORD_BITS) * _WORD_SIZE
    if header.bitmap_offset + bitmap_size > header.pages_offset:
        raise WireError("the bitmap reaches into the pages", path="mapped_ram.bitmap_offset")
    if header.bitmap_offset < origin:
        raise WireError("the bitmap is before the stream", path="mapped_ram.bitmap_offset")
    bitmap = header.bitmap_offset - origin
    start = header.pages_offset - origin
    return MappedBlock(
        idstr=entry.idstr,
        page_size=size,
        bitmap=Span(bitmap, bitmap + bitmap_size),
        pages=Span(start, start + entry.used_length),
    )
