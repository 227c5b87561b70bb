# SPDX-License-Identifier: GPL-2.0-or-later
"""What the layers are made of, beyond scapy's own fields.

Scapy's string and list fields take what is there when bytes run out. Those here refuse, so that
a layer is either dissected from all of its bytes or not at all: scapy then shows ``Raw``.
Only payload-like data (pages, device bytes, JSON text) may be shorter than its length says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final

from scapy.error import Scapy_Exception
from scapy.fields import (
    BitField,
    Field,
    FieldListField,
    LenField,
    LongEnumField,
    LongField,
    PacketField,
    PacketLenField,
    PacketListField,
    StrFixedLenField,
    StrLenField,
)
from scapy.packet import Packet, Padding, Raw

from mfdtool.wire.constants import MULTIFD_PACKET_SIZE, X86_PAGE_SIZE

MAX_ITEMS: Final = 1024
"""Packets in one list; a list that goes on is not dissected further."""

LOOKAHEAD: Final = 128
"""Bytes by which the class of a list's next item is chosen."""

_WINDOW: Final = 512
_OFFSET_SIZE: Final = 8

NOTHING: Final[Any] = None
"""Default of a field that has no value; scapy's annotations know of integers and packets only."""

_SHOWN: Final = 32

Make = Callable[[bytes], Packet]
"""Dissects bytes: a class, or one with some arguments given."""


class DissectionError(Scapy_Exception):
    """Bytes are not what the layer describes."""


class TruncatedError(DissectionError):
    """Bytes end inside the layer."""


def shorten(data: bytes) -> str:
    """Write bytes in hex, and how many they are if that is not all of them."""
    shown = data[:_SHOWN].hex(" ", -4)
    return shown if len(data) <= _SHOWN else f"{shown} ... ({len(data)} bytes)"


def symbols(members: type[IntEnum]) -> dict[int, str]:
    """Give an enumeration's numbers and names, as scapy's enum fields want them."""
    return {member.value: member.name for member in members}


def flag_symbols(table: Mapping[Any, object]) -> dict[int, str]:
    """Give the numbers and names of a table of flags, as `FlagsField` wants them."""
    return {int(flag): str(flag.name) for flag in table}


class Message(Packet):
    """A layer that knows where it ends; what follows is ``Padding``, unless it has a payload.

    Raises:
        TruncatedError: it is dissected from too few bytes. As the payload of another layer it
            becomes ``Raw`` instead.
    """

    def do_dissect(self, s: bytes) -> bytes:
        """Dissect the fields."""
        try:
            return super().do_dissect(s)
        except struct.error as error:
            raise TruncatedError(f"{type(self).__name__}: {error}") from None

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Leave everything that follows to others."""
        return b"", s


class PagedMessage(Message):
    """A layer whose length follows from the target page size, which is not in its bytes.

    ``page_size`` (in bytes) is an argument and an attribute of it, not a field.
    """

    __slots__ = ["page_size"]

    def __init__(self, *args: Any, page_size: int = X86_PAGE_SIZE, **fields: Any) -> None:
        self.page_size = page_size
        super().__init__(*args, **fields)

    @property
    def page_count(self) -> int:
        """How many pages a RAM packet can hold."""
        return MULTIFD_PACKET_SIZE // self.page_size

    def clone_with(self, payload: Any = None, **kargs: Any) -> Any:
        """Copy for building: the page size too."""
        clone = super().clone_with(payload, **kargs)
        clone.page_size = self.page_size
        return clone

    def copy(self) -> Any:
        """Copy the layer, with its page size."""
        clone = super().copy()
        clone.page_size = self.page_size
        return clone


# Fields.


def _need(s: bytes, size: int, name: str) -> None:
    if len(s) < size:
        raise TruncatedError(f"{name}: {size - len(s)} bytes more wanted")


class FixedBytesField(StrFixedLenField):
    """Bytes of a fixed length, padded with NUL when built."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes]:
        """Take exactly so many bytes."""
        _need(s, self.sz, self.name)
        return super().getfield(pkt, s)

    def addfield(self, pkt: Packet, s: bytes, val: bytes | None) -> bytes:
        """Pad, but never cut; ValueError if the value is too long."""
        if val is not None and len(val) > self.sz:
            raise ValueError(f"{self.name}: {len(val)} bytes do not fit in {self.sz}")
        return super().addfield(pkt, s, val)


class CountedBytesField(StrLenField):
    """Bytes, as many as a field before says."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes]:
        """Take exactly so many bytes."""
        _need(s, self.length_from(pkt) if self.length_from else 0, self.name)
        return super().getfield(pkt, s)


class DataField(StrLenField):
    """Bytes that nobody reads one by one: shown in hex, and only the first of them."""

    def i2repr(self, pkt: Packet | None, x: bytes) -> str:
        """Show some bytes and their number."""
        return shorten(x)


class TextField(DataField):
    """Text that may be long."""

    def i2repr(self, pkt: Packet | None, x: bytes) -> str:
        """Show its beginning and its length."""
        return repr(x) if len(x) <= 2 * _SHOWN else f"{x[: 2 * _SHOWN]!r} ... ({len(x)} bytes)"


class BodyField(PacketLenField):
    """What a message carries, ``len`` bytes: a layer chosen by the value of a field before."""

    __slots__ = ["bodies", "key"]

    def __init__(self, name: str, key: str, bodies: Mapping[int, type[Packet]]) -> None:
        self.key = key
        self.bodies = bodies
        super().__init__(name, NOTHING, Raw, lambda message: message.len)

    def m2i(self, pkt: Any, m: bytes) -> Packet:
        """Dissect the body."""
        return self.bodies.get(pkt.getfieldval(self.key), Raw)(m)


class PayloadSizeField(LenField):
    """Size of the payload, without what is behind it; computed if it is None."""

    def i2m(self, pkt: Packet | None, x: int | None) -> int:
        """Count the payload's bytes if no number is given."""
        if x is None and pkt is not None:
            return len(pkt.do_build_payload())
        return super().i2m(pkt, x)


class XLongEnumField(LongEnumField):
    """A be64 enumeration; unknown values are shown in hex."""

    def _i2repr(self, pkt: Packet | None, x: Any) -> str:
        return f"{x:#x}"


class AddressField(BitField):
    """The high bits of a word whose low bits are flags; its value is the address, in bytes."""

    __slots__ = ["flag_bits"]

    def __init__(self, name: str, default: int, flag_bits: int) -> None:
        self.flag_bits = flag_bits
        super().__init__(name, default, 64 - flag_bits)

    def m2i(self, pkt: Packet | None, x: int) -> int:
        """Make an address of the bits."""
        return x << self.flag_bits

    def i2m(self, pkt: Packet | None, x: int | None) -> int:
        """Give the bits; ValueError if the address has others than those."""
        bits, rest = divmod(x or 0, 1 << self.flag_bits)
        if rest or not 0 <= bits < 1 << self.size:
            raise ValueError(f"{self.name}: {x:#x} is not an address without its low bits")
        return bits

    def i2repr(self, pkt: Packet | None, x: int) -> str:
        """Show it in hex."""
        return f"{x:#x}"


class OffsetsField(FieldListField):
    """One be64 for each page that a RAM packet can hold; those not given are 0 when built."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [], LongField("", 0))

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, list[int]]:
        """Take as many as the stream's page size demands."""
        size = _OFFSET_SIZE * pkt.page_count
        _need(s, size, self.name)
        return s[size:], list(struct.unpack_from(f">{pkt.page_count}Q", s))

    def addfield(self, pkt: Any, s: bytes, val: list[int] | None) -> bytes:
        """Write all; ValueError if there are more than fit."""
        offsets = val or []
        unused = pkt.page_count - len(offsets)
        if unused < 0:
            raise ValueError(f"{self.name}: {len(offsets)} do not fit in {pkt.page_count}")
        return super().addfield(pkt, s, offsets) + bytes(_OFFSET_SIZE * unused)

    def i2repr(self, pkt: Packet | None, x: list[int]) -> str:
        """Show them in hex, and the zeroes at the end as a number."""
        used = len(x)
        while used and not x[used - 1]:
            used -= 1
        shown = [f"{offset:#x}" for offset in x[:used]]
        if used < len(x):
            shown.append(f"{len(x) - used} times 0")
        return f"[{', '.join(shown)}]"


class NoteField(Field[Any, Any]):
    """Something that is known about a layer, but has no bytes in it."""

    def __init__(self, name: str, default: Any = None) -> None:
        super().__init__(name, default, "B")

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, Any]:
        """Take nothing."""
        return s, self.default

    def addfield(self, pkt: Packet, s: bytes, val: Any) -> bytes:
        """Add nothing."""
        return s

    def i2repr(self, pkt: Packet | None, x: Any) -> str:
        """Show the value, without the quotes of text."""
        return str(x) if x else repr(x)


# Lists of layers.


def take_padding(packet: Packet) -> bytes:
    """Take off the bytes that a dissected packet left over, and give them."""
    last = packet.lastlayer()
    if not isinstance(last, Padding) or last.underlayer is None:
        return b""
    last.underlayer.remove_payload()
    return bytes(last.load)


def take(make: Make, data: bytes, at: int) -> tuple[Packet, int]:
    """Dissect what is at ``data[at]``; give it and its length.

    Scapy copies the rest of its input with every field. So it gets a short piece first, and a
    longer one only if the layer took all of that: the cost stays proportional to the length.

    Raises:
        DissectionError: the bytes are not that layer, or not all of it.
    """
    size = _WINDOW
    while True:
        piece = data[at : at + size]
        is_rest = at + size >= len(data)
        if not piece:
            raise TruncatedError("nothing left")
        try:
            packet = make(piece)
        except TruncatedError:
            if is_rest:
                raise
        else:
            rest = take_padding(packet)
            if rest or is_rest:
                return packet, len(piece) - len(rest)
        size *= 2


class LayerField(PacketField):
    """One layer inside another."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, Any]:
        """Take the layer, which must be whole."""
        layer, used = take(self.cls, s, 0)
        return s[used:], layer


Choose = Callable[[Any, list[Any], bytes], "Make | None"]
"""Chooses what comes next: of the layer, its items so far, and the first bytes of the rest."""


class ItemsField(PacketListField):
    """Layers one behind another, until ``choose`` gives None.

    It is asked at the end of the input too: an item that must come makes the list truncated.
    """

    __slots__ = ["choose"]

    def __init__(self, name: str, choose: Choose) -> None:
        self.choose = choose
        super().__init__(name, [], Packet)

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, list[Any]]:
        """Take the items; all of them must be whole."""
        items: list[Any] = []
        at = 0
        while (make := self.choose(pkt, items, s[at : at + LOOKAHEAD])) is not None:
            if len(items) == MAX_ITEMS:
                raise DissectionError(f"{self.name}: more than {MAX_ITEMS}")
            item, used = take(make, s, at)
            items.append(item)
            at += used
        return s[at:], items


class StreamField(ItemsField):
    """Layers one behind another, as far as they can be told; the rest is the list's payload."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, list[Any]]:
        """Take whole items while there are any."""
        items: list[Any] = []
        at = 0
        while at < len(s) and len(items) < MAX_ITEMS:
            make = self.choose(pkt, items, s[at : at + LOOKAHEAD])
            if make is None:
                break
            try:
                item, used = take(make, s, at)
            except DissectionError:
                break
            items.append(item)
            at += used
        return s[at:], items
