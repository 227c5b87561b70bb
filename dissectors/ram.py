# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of RAM sections (ram.c:ram_save_iterate), and of the postcopy preempt channel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from scapy.fields import (
    ByteField,
    ConditionalField,
    FieldLenField,
    FlagsField,
    IntField,
    LongField,
    XLongField,
)
from scapy.packet import Packet

from dissectors.fields import (
    NOTHING,
    AddressField,
    CountedBytesField,
    DataField,
    DissectionError,
    ItemsField,
    LayerField,
    Make,
    Message,
    PagedMessage,
    flag_symbols,
)
from mfdtool.wire.constants import (
    MAPPED_RAM_HDR_VERSION,
    RAM_FLAGS,
    X86_PAGE_SIZE,
    XBZRLE_ENCODING,
    RamFlag,
)

WORD_SIZE: Final = 8
FLAG_BITS: Final = 10
"""Bits that flags ever used; the address has none of them at any page size."""

OPTIONAL_PARTS: Final = ("page_size", "address", "mapped_ram")
"""Fields of a RAM block that depend on capabilities, in their order."""

_FLAG_MASK: Final = (1 << FLAG_BITS) - 1


def _has_block_id(record: Packet) -> bool:
    return not int(record.flags) & RamFlag.CONTINUE


class RamRecord(PagedMessage):
    """A record that is only a word: EOS, MULTIFD_FLUSH or HOOK (ram.c:ram_load_precopy).

    Dissecting with this class gives that of the record's kind.
    """

    fields_desc = [
        AddressField("addr", 0, FLAG_BITS),
        FlagsField("flags", RamFlag.EOS.value, FLAG_BITS, flag_symbols(RAM_FLAGS)),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_args: Any, **_kargs: Any) -> type[Packet]:
        """Choose the class by the flags."""
        return record_class(_pkt)


class RamBlockRecord(PagedMessage):
    """A record that names its RAM block, unless it has CONTINUE (ram.c:save_page_header)."""

    fields_desc = [
        *RamRecord.fields_desc,
        ConditionalField(FieldLenField("idstr_len", None, "idstr", "B"), _has_block_id),
        ConditionalField(
            CountedBytesField("idstr", b"", lambda record: record.idstr_len), _has_block_id
        ),
    ]


class RamZero(PagedMessage):
    """A page of zeroes (ram.c:save_zero_page)."""

    fields_desc = [*RamBlockRecord.fields_desc, ByteField("ch", 0)]
    flags = RamFlag.ZERO.value


class RamPage(PagedMessage):
    """A page as it is (ram.c:save_normal_page)."""

    fields_desc = [
        *RamBlockRecord.fields_desc,
        DataField("data", b"", lambda record: record.page_size),
    ]
    flags = RamFlag.PAGE.value


class RamXbzrle(PagedMessage):
    """A page as the difference to its last copy (ram.c:save_xbzrle_page)."""

    fields_desc = [
        *RamBlockRecord.fields_desc,
        ByteField("encoding", XBZRLE_ENCODING),
        FieldLenField("len", None, "data", "H"),
        DataField("data", b"", lambda record: record.len),
    ]
    flags = RamFlag.XBZRLE.value


class RamCompressedPage(PagedMessage):
    """A deflated page, until 9.0 (ram.c:ram_load_precopy)."""

    fields_desc = [
        *RamBlockRecord.fields_desc,
        FieldLenField("len", None, "data", "I"),
        DataField("data", b"", lambda record: record.len),
    ]
    flags = RamFlag.COMPRESS_PAGE.value


class MappedRamHeader(Message):
    """Where a block's pages are in a mapped-ram file (ram.c:MappedRamHeader)."""

    fields_desc = [
        IntField("version", MAPPED_RAM_HDR_VERSION),
        LongField("page_size", X86_PAGE_SIZE),
        XLongField("bitmap_offset", 0),
        XLongField("pages_offset", 0),
    ]


class MemSizeEntry(Message):
    """One RAM block of a MEM_SIZE record (ram.c:ram_save_setup, parse_ramblock).

    Nothing in its bytes tells which of the last three fields it has. ``parts`` names them for
    dissecting; a field with a value is built.
    """

    __slots__ = ["parts"]

    fields_desc = [
        FieldLenField("idstr_len", None, "idstr", "B"),
        CountedBytesField("idstr", b"", lambda entry: entry.idstr_len),
        XLongField("used_length", 0),
        ConditionalField(LongField("page_size", NOTHING), lambda entry: entry.has("page_size")),
        ConditionalField(XLongField("address", NOTHING), lambda entry: entry.has("address")),
        ConditionalField(
            LayerField("mapped_ram", None, MappedRamHeader), lambda entry: entry.has("mapped_ram")
        ),
    ]

    def __init__(self, *args: Any, parts: tuple[str, ...] = (), **fields: Any) -> None:
        self.parts = parts
        super().__init__(*args, **fields)

    def has(self, part: str) -> bool:
        """Tell whether the entry has an optional field."""
        return part in self.parts or self.fields.get(part) is not None


class RamMemSize(PagedMessage):
    """List of RAM blocks; ``addr`` is the sum of their lengths (ram.c:ram_save_setup).

    ``parts`` names the optional fields of each entry, for dissecting; none if it is too short.
    """

    __slots__ = ["parts"]

    fields_desc = [
        *RamRecord.fields_desc,
        ItemsField("entries", lambda record, found, _head: record.next_entry(found)),
    ]
    flags = RamFlag.MEM_SIZE.value

    def __init__(self, *args: Any, parts: Sequence[tuple[str, ...]] = (), **fields: Any) -> None:
        self.parts = parts
        super().__init__(*args, **fields)

    def next_entry(self, found: list[Packet]) -> Make | None:
        """Another entry, until the lengths add up."""
        missing = self.addr - sum(entry.fields["used_length"] for entry in found)
        if missing < 0:
            raise DissectionError("block lengths add up to more than the record says")
        if not missing:
            return None
        number = len(found)
        return partial(MemSizeEntry, parts=self.parts[number] if number < len(self.parts) else ())


_KINDS: Final[dict[int, type[PagedMessage]]] = {
    RamFlag.ZERO: RamZero,
    RamFlag.PAGE: RamPage,
    RamFlag.MEM_SIZE: RamMemSize,
    RamFlag.XBZRLE: RamXbzrle,
    RamFlag.COMPRESS_PAGE: RamCompressedPage,
}


def record_class(head: bytes) -> type[PagedMessage]:
    """Choose the class of the record that begins with ``head``."""
    flags = int.from_bytes(head[:WORD_SIZE]) & _FLAG_MASK
    return _KINDS.get(flags & ~RamFlag.CONTINUE, RamRecord)
