# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of RAM sections, version 4 (ram.c:ram_save_iterate, ram_load_precopy).

A body is records until one with flag EOS. Each begins with a be64: an offset in the RAM block,
and flags in the bits below the page size. What follows depends on the flags::

    ZERO           [BlockId] ZeroFill
    MEM_SIZE       MemSizeEntry*, until their lengths add up to the record's address
    PAGE           [BlockId] page
    XBZRLE         [BlockId] XbzrleHeader data
    COMPRESS_PAGE  [BlockId] CompressedPageHeader data
    EOS, HOOK, MULTIFD_FLUSH

BlockId is absent with flag CONTINUE: the block is that of the record before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from construct import Computed, Int8ub, Int16ub, Int32ub, Int64ub, Rebuild, Struct, this

from mfdtool.wire.codec import (
    Buffer,
    Message,
    counted_string,
    field,
    nested,
    optional,
)
from mfdtool.wire.constants import (
    MAPPED_RAM_HDR_VERSION,
    X86_PAGE_SIZE,
    XBZRLE_ENCODING,
    RamFlag,
)

if TYPE_CHECKING:
    from typing import Self

_WITH_BLOCK: Final = RamFlag.ZERO | RamFlag.PAGE | RamFlag.XBZRLE | RamFlag.COMPRESS_PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class RamRecordHeader(Message):
    """First word of a RAM record, taken apart at the target page size."""

    SCHEMA = Struct(
        field("word", Rebuild(Int64ub, lambda fields: fields.addr | int(fields.flags)), "in one"),
        field("addr", Computed(this.word & -this._params.page_size), "offset in the RAM block"),
        field("flags", Computed(this.word & (this._params.page_size - 1)), "kind of record"),
    )
    SOURCE = "ram.c:save_page_header"

    addr: int = 0
    flags: int

    @property
    def has_block_id(self) -> bool:
        """Whether the name of the RAM block follows."""
        return bool(self.flags & _WITH_BLOCK) and not self.flags & RamFlag.CONTINUE

    @classmethod
    def parse(
        cls,
        data: Buffer,
        *,
        channel: str = "",
        offset: int = 0,
        page_size: int = X86_PAGE_SIZE,
    ) -> Self:
        """Decode the 8 bytes of ``data``; ``page_size`` is the target's, a power of two.

        Raises:
            TruncatedError: ``data`` is shorter.
            WireError: ``data`` is longer.
        """
        return cls._parse_whole(data, channel=channel, offset=offset, page_size=page_size)

    @classmethod
    def parse_prefix(
        cls,
        data: Buffer,
        *,
        channel: str = "",
        offset: int = 0,
        page_size: int = X86_PAGE_SIZE,
    ) -> tuple[Self, int]:
        """Decode the first 8 bytes of ``data``; ``page_size`` is the target's, a power of two.

        Raises:
            TruncatedError: ``data`` is shorter.
        """
        return cls._parse_prefix(data, channel=channel, offset=offset, page_size=page_size)

    def _context(self) -> dict[str, object]:
        # What the schema then takes apart again is not used.
        return {"page_size": X86_PAGE_SIZE}


@dataclass(frozen=True, slots=True)
class BlockId(Message):
    """Name of the RAM block that a record is about (ram.c:save_page_header)."""

    SCHEMA = Struct(field("idstr", counted_string(), "RAM block"))
    SOURCE = "ram.c:save_page_header"

    idstr: str


@dataclass(frozen=True, slots=True)
class ZeroFill(Message):
    """What fills a ZERO page (ram.c:save_zero_page); the destination demands 0."""

    SCHEMA = Struct(field("ch", Int8ub, "what the page is filled with, 0"))
    SOURCE = "ram.c:save_zero_page"

    ch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class XbzrleHeader(Message):
    """What precedes the data of an XBZRLE record (ram.c:save_xbzrle_page)."""

    SCHEMA = Struct(
        field("encoding", Int8ub, "1"),
        field("len", Int16ub, "bytes of encoded data that follow"),
    )
    SOURCE = "ram.c:save_xbzrle_page"

    encoding: int = XBZRLE_ENCODING
    len: int


@dataclass(frozen=True, slots=True)
class CompressedPageHeader(Message):
    """What precedes the data of a COMPRESS_PAGE record, until 9.0."""

    SCHEMA = Struct(field("len", Int32ub, "bytes of zlib data that follow"))
    SOURCE = "ram.c:ram_load_precopy"

    len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRamHeader(Message):
    """Where a block's pages are in a mapped-ram file (ram.c:MappedRamHeader).

    Offsets count from the start of the file.
    """

    SCHEMA = Struct(
        field("version", Int32ub, "1"),
        field("page_size", Int64ub, "target page size"),
        field("bitmap_offset", Int64ub, "where the bitmap of present pages is"),
        field("pages_offset", Int64ub, "where the pages are"),
    )
    SOURCE = "ram.c:MappedRamHeader"

    version: int = MAPPED_RAM_HDR_VERSION
    page_size: int
    bitmap_offset: int
    pages_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemSizeEntry(Message):
    """One RAM block in the list of a MEM_SIZE record (ram.c:ram_save_setup, parse_ramblock).

    Nothing in the entry tells which optional parts it has: that follows from the capabilities.
    """

    SCHEMA = Struct(
        field("idstr", counted_string(), "RAM block"),
        field("used_length", Int64ub, "its length in bytes"),
        field(
            "page_size",
            optional(this._params.with_page_size, Int64ub),
            "its page size, with postcopy-ram if that is not the normal one",
        ),
        field(
            "address",
            optional(this._params.with_address, Int64ub),
            "its guest physical address, with x-ignore-shared",
        ),
        field(
            "mapped_ram",
            optional(this._params.with_mapped_ram, nested(MappedRamHeader)),
            "where its pages are, with mapped-ram",
        ),
    )
    SOURCE = "ram.c:ram_save_setup"

    idstr: str
    used_length: int
    page_size: int | None = None
    address: int | None = None
    mapped_ram: MappedRamHeader | None = None

    @classmethod
    def parse(
        cls,
        data: Buffer,
        *,
        channel: str = "",
        offset: int = 0,
        with_page_size: bool = False,
        with_address: bool = False,
        with_mapped_ram: bool = False,
    ) -> Self:
        """Decode ``data``, exactly one entry with the optional parts that are named.

        Raises:
            TruncatedError: ``data`` ends inside the entry.
            WireError: ``data`` goes on after it.
        """
        return cls._parse_whole(
            data,
            channel=channel,
            offset=offset,
            with_page_size=with_page_size,
            with_address=with_address,
            with_mapped_ram=with_mapped_ram,
        )

    @classmethod
    def parse_prefix(
        cls,
        data: Buffer,
        *,
        channel: str = "",
        offset: int = 0,
        with_page_size: bool = False,
        with_address: bool = False,
        with_mapped_ram: bool = False,
    ) -> tuple[Self, int]:
        """Decode the entry at the start of ``data``; give it and its length in bytes.

        Raises:
            TruncatedError: ``data`` ends inside the entry.
        """
        return cls._parse_prefix(
            data,
            channel=channel,
            offset=offset,
            with_page_size=with_page_size,
            with_address=with_address,
            with_mapped_ram=with_mapped_ram,
        )

    def _context(self) -> dict[str, object]:
        return {
            "with_page_size": self.page_size is not None,
            "with_address": self.address is not None,
            "with_mapped_ram": self.mapped_ram is not None,
        }
