# SPDX-License-Identifier: GPL-2.0-or-later
"""Link layers: where in a frame the IP packet is.

LINKTYPE_ values are those of tcpdump.org/linktypes.html.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Finder = Callable[[memoryview, int, int], "int | Skip"]


class Skip(Enum):
    """Why a record gave no TCP segment."""

    UNKNOWN_LINK = "unknown link type"
    NOT_IP = "not IP"
    NOT_TCP = "not TCP"
    FRAGMENT = "IP fragment"
    TRUNCATED = "headers cut off"
    MALFORMED = "malformed headers"


class LinkType(IntEnum):
    """Link types that can be read."""

    NULL = 0
    ETHERNET = 1
    RAW_BSD = 12
    RAW_OPENBSD = 14
    RAW = 101
    LOOP = 108
    LINUX_SLL = 113
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276


class EtherType(IntEnum):
    """Protocol numbers of Ethernet that mean something here."""

    IPV4 = 0x0800
    VLAN = 0x8100
    IPV6 = 0x86DD
    QINQ = 0x88A8
    QINQ_OLD = 0x9100


VLAN_TYPES: Final = frozenset({EtherType.VLAN, EtherType.QINQ, EtherType.QINQ_OLD})
IP_TYPES: Final = frozenset({EtherType.IPV4, EtherType.IPV6})

BSD_FAMILIES: Final = frozenset({2, 24, 28, 30})
"""AF_INET everywhere, AF_INET6 on NetBSD and OpenBSD, FreeBSD, macOS."""

ETHERNET_SIZE: Final = 14
VLAN_SIZE: Final = 4
SLL_SIZE: Final = 16
SLL2_SIZE: Final = 20
BSD_SIZE: Final = 4

DEFAULT_DESTINATION: Final = bytes.fromhex("020000000002")
DEFAULT_SOURCE: Final = bytes.fromhex("020000000001")
"""Locally administered addresses, for frames that never had any."""

_BE16: Final = Struct(">H")


def find_ip(buffer: memoryview, start: int, stop: int, *, linktype: int) -> int | Skip:
    """Find the IP packet in the frame ``buffer[start:stop]``: its offset, or why there is none.

    What the link layer calls IP is not looked at; its version may still be neither 4 nor 6.
    """
    finder = _FINDERS.get(linktype)
    if finder is None:
        return Skip.UNKNOWN_LINK
    return finder(buffer, start, stop)


def ethernet(
    payload: bytes,
    *,
    ethertype: int,
    destination: bytes = DEFAULT_DESTINATION,
    source: bytes = DEFAULT_SOURCE,
    vlans: Iterable[tuple[int, int]] = (),
) -> bytes:
    """Build an Ethernet frame, without padding and check sequence.

    ``vlans`` are (tag protocol, tag control) pairs from the outermost inwards, for example
    ``[(EtherType.QINQ, 5), (EtherType.VLAN, 7)]``.
    """
    tags = b"".join(_BE16.pack(protocol) + _BE16.pack(control) for protocol, control in vlans)
    return destination + source + tags + _BE16.pack(ethertype) + payload


def _find_by_ethertype(
    buffer: memoryview, start: int, stop: int, *, type_at: int, size: int
) -> int | Skip:
    """Follow VLAN tags (a tag's control and the next type are the 4 bytes after the header)."""
    if start + size > stop:
        return Skip.TRUNCATED
    (ethertype,) = _BE16.unpack_from(buffer, start + type_at)
    offset = start + size
    while ethertype in VLAN_TYPES:
        if offset + VLAN_SIZE > stop:
            return Skip.TRUNCATED
        (ethertype,) = _BE16.unpack_from(buffer, offset + 2)
        offset += VLAN_SIZE
    return offset if ethertype in IP_TYPES else Skip.NOT_IP


def _find_in_ethernet(buffer: memoryview, start: int, stop: int) -> int | Skip:
    return _find_by_ethertype(buffer, start, stop, type_at=12, size=ETHERNET_SIZE)


def _find_in_sll(buffer: memoryview, start: int, stop: int) -> int | Skip:
    return _find_by_ethertype(buffer, start, stop, type_at=14, size=SLL_SIZE)


def _find_in_sll2(buffer: memoryview, start: int, stop: int) -> int | Skip:
    return _find_by_ethertype(buffer, start, stop, type_at=0, size=SLL2_SIZE)


def _find_in_bsd(buffer: memoryview, start: int, stop: int) -> int | Skip:
    """NULL has the family in the byte order of the capturing machine, LOOP in network order."""
    if start + BSD_SIZE > stop:
        return Skip.TRUNCATED
    family = bytes(buffer[start : start + BSD_SIZE])
    if any(int.from_bytes(family, order) in BSD_FAMILIES for order in ("little", "big")):
        return start + BSD_SIZE
    return Skip.NOT_IP


def _find_in_raw(buffer: memoryview, start: int, stop: int) -> int | Skip:
    del buffer
    return start if start < stop else Skip.TRUNCATED


_FINDERS: Final[dict[int, Finder]] = {
    LinkType.NULL: _find_in_bsd,
    LinkType.ETHERNET: _find_in_ethernet,
    LinkType.RAW_BSD: _find_in_raw,
    LinkType.RAW_OPENBSD: _find_in_raw,
    LinkType.RAW: _find_in_raw,
    LinkType.LOOP: _find_in_bsd,
    LinkType.LINUX_SLL: _find_in_sll,
    LinkType.IPV4: _find_in_raw,
    LinkType.IPV6: _find_in_raw,
    LinkType.LINUX_SLL2: _find_in_sll2,
}
