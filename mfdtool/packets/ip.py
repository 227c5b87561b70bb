# SPDX-License-Identifier: GPL-2.0-or-later
"""IPv4, IPv6 and TCP headers: from a record to its TCP segment, and from a segment to a packet.

What the headers say about the length is what counts: Ethernet pads short frames, and a snap
length cuts long ones. Only the length 0 is replaced, by the record's own: a capture of a
sender that leaves segmentation to its network card (TSO, BIG TCP) says 0 for "too long to say".

IP fragments are reported and not put together: TCP avoids them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from mfdtool.packets.link import Skip, find_ip
from mfdtool.packets.values import TCP_ACK, Endpoint, FlowKey, Segment

if TYPE_CHECKING:
    from mfdtool.packets.values import Record

__all__ = [
    "IpProtocol",
    "Skip",
    "TcpHeader",
    "checksum",
    "segment_of",
    "tcp_ipv4",
    "tcp_ipv6",
    "tcp_packet",
]


class IpProtocol(IntEnum):
    """Protocol and next-header numbers that mean something here."""

    HOP_BY_HOP = 0
    TCP = 6
    ROUTING = 43
    FRAGMENT = 44
    AUTHENTICATION = 51
    DESTINATION_OPTIONS = 60
    MOBILITY = 135
    HIP = 139
    SHIM6 = 140


IPV4_SIZE: Final = 20
IPV6_SIZE: Final = 40
TCP_SIZE: Final = 20
MAX_TOTAL_LENGTH: Final = 0xFFFF

_IPV6_EXTENSIONS: Final = frozenset(IpProtocol) - {IpProtocol.TCP}
_EXTENSION_SIZE: Final = 8
"""The least that an IPv6 extension header has."""

_IPV4_MORE_OR_OFFSET: Final = 0x3FFF
_IPV6_MORE_OR_OFFSET: Final = 0xFFF9

_IPV4: Final = Struct(">BBHHHBBH4s4s")
_IPV4_LENGTHS: Final = Struct(">BxH2xHxB")
_IPV6: Final = Struct(">IHBB16s16s")
_IPV6_LENGTHS: Final = Struct(">HB")
_TCP: Final = Struct(">HHIIBBHHH")
_TCP_NUMBERS: Final = Struct(">4sIIBB")
_PSEUDO_TAIL: Final = Struct(">I3xB")
_PORTS: Final = Struct(">HH")
_BE16: Final = Struct(">H")

_HOPS: Final = 64
_DONT_FRAGMENT: Final = 0x4000

_Found = tuple[bytes, int, int]
"""Both addresses, offset of the TCP header, offset after the packet (on the wire)."""


def segment_of(record: Record, buffer: memoryview) -> Segment | Skip:
    """Give the TCP segment in a record of ``buffer``, or why there is none.

    The segment has all that the first 20 bytes of its TCP header say, even if the options
    or the payload after them are cut off: then ``captured`` is less than ``length``.
    """
    stop = min(record.offset + record.captured, len(buffer))
    start = find_ip(buffer, record.offset, stop, linktype=record.linktype)
    if isinstance(start, Skip):
        return start
    if start >= stop:
        return Skip.TRUNCATED
    version = buffer[start] >> 4
    if version == 4:
        found = _find_tcp_in_ipv4(buffer, start, stop, frame_end=record.offset + record.original)
    elif version == 6:
        found = _find_tcp_in_ipv6(buffer, start, stop, frame_end=record.offset + record.original)
    else:
        return Skip.MALFORMED
    if isinstance(found, Skip):
        return found

    addresses, tcp, end = found
    if tcp + TCP_SIZE > stop:
        return Skip.TRUNCATED
    ports, sequence, acknowledgement, data_offset, flags = _TCP_NUMBERS.unpack_from(buffer, tcp)
    header_size = (data_offset >> 4) * 4
    payload = tcp + header_size
    if header_size < TCP_SIZE or payload > end:
        return Skip.MALFORMED
    return Segment(
        record=record.number,
        time_ns=record.time_ns,
        flow=_flow(addresses, ports),
        sequence=sequence,
        acknowledgement=acknowledgement,
        flags=flags,
        offset=min(payload, stop),
        captured=max(min(end, stop) - payload, 0),
        length=end - payload,
    )


@dataclass(frozen=True, slots=True)
class TcpHeader:
    """What a built segment says; ``options`` is a multiple of 4 bytes, at most 40."""

    flow: FlowKey
    sequence: int
    acknowledgement: int = 0
    flags: int = TCP_ACK
    window: int = 0xFFFF
    options: bytes = b""


def tcp_packet(header: TcpHeader, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Build an IP packet with one TCP segment: IPv4 or IPv6, as the flow's addresses are.

    ``length`` is the payload's length if not all of it is given. Its checksum is not known
    then and written as 0. A packet of more than 65535 bytes says 0 for its length, as captures
    of TSO senders do.

    Raises:
        ValueError: addresses are not both of 4 or both of 16 bytes.
    """
    sizes = {len(header.flow.source.address), len(header.flow.destination.address)}
    if sizes == {4}:
        return tcp_ipv4(header, payload, length=length)
    if sizes == {16}:
        return tcp_ipv6(header, payload, length=length)
    raise ValueError(f"not a pair of IPv4 or of IPv6 addresses: {header.flow!r}")


def tcp_ipv4(header: TcpHeader, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Build an IPv4 packet with one TCP segment and right checksums; see `tcp_packet`."""
    source, destination = header.flow.source.address, header.flow.destination.address
    tcp, tcp_size = _tcp(header, payload, length, pseudo=source + destination)
    total = IPV4_SIZE + tcp_size
    ip = _IPV4.pack(
        0x45,
        0,
        total if total <= MAX_TOTAL_LENGTH else 0,
        0,
        _DONT_FRAGMENT,
        _HOPS,
        IpProtocol.TCP,
        0,
        source,
        destination,
    )
    return ip[:10] + _BE16.pack(checksum(ip)) + ip[12:] + tcp


def tcp_ipv6(header: TcpHeader, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Build an IPv6 packet with one TCP segment and right checksum; see `tcp_packet`."""
    source, destination = header.flow.source.address, header.flow.destination.address
    tcp, tcp_size = _tcp(header, payload, length, pseudo=source + destination)
    ip = _IPV6.pack(
        6 << 28,
        tcp_size if tcp_size <= MAX_TOTAL_LENGTH else 0,
        IpProtocol.TCP,
        _HOPS,
        source,
        destination,
    )
    return ip + tcp


def checksum(data: bytes) -> int:
    """Give the internet checksum (RFC 1071): the complement of the ones' complement sum."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 0xFFFF, so a number leaves the same rest as the sum of its 16-bit
    # digits; only an all-zero input has the sum 0, any other multiple of 0xFFFF has 0xFFFF.
    number = int.from_bytes(data, "big")
    rest = number % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if number else 0))


def _tcp(
    header: TcpHeader, payload: bytes, length: int | None, *, pseudo: bytes
) -> tuple[bytes, int]:
    """Build the TCP part; give it and its size on the wire.

    The size precedes the protocol in both IP versions' pseudo headers; leading zeros add
    nothing to a sum, so one form serves both.
    """
    header_size = TCP_SIZE + len(header.options)
    size = header_size + (len(payload) if length is None else length)
    segment = (
        _TCP.pack(
            header.flow.source.port,
            header.flow.destination.port,
            header.sequence & 0xFFFF_FFFF,
            header.acknowledgement & 0xFFFF_FFFF,
            header_size // 4 << 4,
            header.flags,
            header.window,
            0,
            0,
        )
        + header.options
        + payload
    )
    if len(segment) == size:
        covered = pseudo + _PSEUDO_TAIL.pack(size, IpProtocol.TCP) + segment
        segment = segment[:16] + _BE16.pack(checksum(covered)) + segment[18:]
    return segment, size


@lru_cache(maxsize=1024)
def _flow(addresses: bytes, ports: bytes) -> FlowKey:
    """Make a flow's key once: millions of segments share it."""
    half = len(addresses) // 2
    source_port, destination_port = _PORTS.unpack(ports)
    return FlowKey(
        Endpoint(addresses[:half], source_port), Endpoint(addresses[half:], destination_port)
    )


def _find_tcp_in_ipv4(
    buffer: memoryview, start: int, stop: int, *, frame_end: int
) -> _Found | Skip:
    if start + IPV4_SIZE > stop:
        return Skip.TRUNCATED
    first, total, fragment, protocol = _IPV4_LENGTHS.unpack_from(buffer, start)
    if protocol != IpProtocol.TCP:
        return Skip.NOT_TCP
    if fragment & _IPV4_MORE_OR_OFFSET:
        return Skip.FRAGMENT
    header_size = (first & 0x0F) * 4
    end = start + total if total else frame_end
    tcp = start + header_size
    if header_size < IPV4_SIZE or tcp > end:
        return Skip.MALFORMED
    return bytes(buffer[start + 12 : start + 20]), tcp, end


def _find_tcp_in_ipv6(
    buffer: memoryview, start: int, stop: int, *, frame_end: int
) -> _Found | Skip:
    offset = start + IPV6_SIZE
    if offset > stop:
        return Skip.TRUNCATED
    length, protocol = _IPV6_LENGTHS.unpack_from(buffer, start + 4)
    end = offset + length if length else frame_end
    while protocol in _IPV6_EXTENSIONS:
        if offset + _EXTENSION_SIZE > end:
            return Skip.MALFORMED
        if offset + _EXTENSION_SIZE > stop:
            return Skip.TRUNCATED
        kind, protocol, size = protocol, buffer[offset], buffer[offset + 1]
        if kind == IpProtocol.FRAGMENT:
            (fragment,) = _BE16.unpack_from(buffer, offset + 2)
            if fragment & _IPV6_MORE_OR_OFFSET:
                return Skip.FRAGMENT
            offset += _EXTENSION_SIZE
        elif kind == IpProtocol.AUTHENTICATION:
            offset += (size + 2) * 4
        else:
            offset += (size + 1) * _EXTENSION_SIZE
    if protocol != IpProtocol.TCP:
        return Skip.NOT_TCP
    if offset > end:
        return Skip.MALFORMED
    return bytes(buffer[start + 8 : start + IPV6_SIZE]), offset, end
