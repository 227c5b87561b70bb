# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proxy's connections would have looked like on a network: blocks of a capture file.

A proxy sees bytes, no packets. Each stretch that it forwards becomes a TCP segment from the real
client to the real destination, as if there were no proxy. Segments have raw IP headers and no
link layer (LINKTYPE_RAW); TCP checksums are 0, which says that the card was to compute them.

All connections share one pcapng interface: TCP ports tell them apart, as in any other capture, and
a recording may have more connections than a reader accepts interfaces.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from mfdtool.live.proxy.tap import Interleaved, Tapped
from mfdtool.packets.ip import TCP_SIZE, TcpHeader, tcp_packet
from mfdtool.packets.pcapng_build import enhanced_packet_ends
from mfdtool.packets.values import TCP_ACK, TCP_PSH, Endpoint, FlowKey

FRAME_PAYLOAD: Final = 0xFF00
"""Payload bytes of a segment: with all headers it is no longer than an IP packet may be."""

FIRST_SEQUENCE: Final = 1000

UNIX_CLIENT: Final = bytes((192, 0, 2, 1))
UNIX_SERVER: Final = bytes((192, 0, 2, 2))
"""Addresses for documentation (RFC 5737): unix sockets have none."""
UNIX_PORT: Final = 4444
_FIRST_UNIX_CLIENT_PORT: Final = 1024
_UNIX_CLIENT_PORTS: Final = 64000

_MASK: Final = 0xFFFF_FFFF
_TCP_NUMBERS: Final = Struct(">HHIIBBHI")
_HEADER_WORDS: Final = TCP_SIZE // 4 << 4
_WINDOW: Final = 0xFFFF
_SEQUENCE_AT: Final = 4

_TcpName = tuple[str, int] | tuple[str, int, int, int]
SocketName = _TcpName | str | bytes
"""A socket's own name or its peer's, as the system gives it; that of a unix socket is no tuple."""

Part = bytes | memoryview | Interleaved
Payload = memoryview | Tapped


def client_endpoint(name: SocketName, number: int) -> Endpoint:
    """Give the far end of an accepted connection; ``number`` stands in for a unix socket's port."""
    if not isinstance(name, tuple):
        return Endpoint(UNIX_CLIENT, _FIRST_UNIX_CLIENT_PORT + number % _UNIX_CLIENT_PORTS)
    return _endpoint(name)


def server_endpoint(name: SocketName) -> Endpoint:
    """Give the far end of a connection to the destination."""
    if not isinstance(name, tuple):
        return Endpoint(UNIX_SERVER, UNIX_PORT)
    return _endpoint(name)


def _endpoint(name: _TcpName) -> Endpoint:
    host = name[0].partition("%")[0]
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Endpoint(address.packed, name[1])


def flow_between(client: Endpoint, server: Endpoint) -> FlowKey:
    """Give the flow from client to server; an IPv4 end becomes an IPv6 one if the other is one."""
    if len(client.address) != len(server.address):
        client, server = _mapped(client), _mapped(server)
    return FlowKey(client, server)


def _mapped(endpoint: Endpoint) -> Endpoint:
    if len(endpoint.address) == 16:
        return endpoint
    return Endpoint(bytes(10) + b"\xff\xff" + endpoint.address, endpoint.port)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a direction.

    Attributes:
        time_ns: when its last byte came.
        position: where in the stream it begins; -1 for a SYN.
        acknowledged: position up to which the other direction was recorded; None: no ACK.
        flags: TCP flags besides ACK.
        comments: shown with the packet.
    """

    time_ns: int
    position: int
    acknowledged: int | None
    flags: int = 0
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """One or more whole blocks of a capture file, which are written together.

    Attributes:
        parts: what they consist of, one behind the other.
        size: how many bytes that is.
        frames: how many blocks.
    """

    parts: tuple[Part, ...]
    size: int
    frames: int = 1


class Builder:
    """Builds the blocks of one direction of a connection."""

    def __init__(self, flow: FlowKey) -> None:
        self.flow = flow
        self._ports = (flow.source.port, flow.destination.port)
        self._ip_headers: dict[int, bytes] = {}

    def block(self, segment: Segment, length: int, *, drops: int | None = None) -> Block:
        """Build a block without any of its ``length`` payload bytes."""
        head, tail = self._ends(segment, 0, length, drops)
        return Block((head, tail), len(head) + len(tail))

    def blocks(self, segment: Segment, data: Payload, *, drops: int | None = None) -> Block:
        """Build as many blocks as it takes to hold ``data``."""
        whole, rest = divmod(len(data), FRAME_PAYLOAD)
        sizes = [FRAME_PAYLOAD] * whole + [rest] * bool(rest)
        texts = self._around(segment, sizes, drops)
        size = sum(map(len, texts)) + len(data)
        if isinstance(data, Tapped):
            return Block((Interleaved(texts, data, sizes),), size, len(sizes))
        parts: list[Part] = [texts[0]]
        for number, text in enumerate(texts[1:]):
            at = number * FRAME_PAYLOAD
            parts += (data[at : at + FRAME_PAYLOAD], text)
        return Block(tuple(parts), size, len(sizes))

    def _around(self, segment: Segment, sizes: Sequence[int], drops: int | None) -> list[bytes]:
        """Build what stands before, between and behind the payloads of blocks."""
        head, tail = self._ends(segment, sizes[0], sizes[0], drops)
        texts = [head]
        position, known = segment.position, 0
        before = behind = following = b""
        for size in sizes[1:]:
            position += FRAME_PAYLOAD
            if size != known:
                # Most have the same size: their headers differ in one number only.
                known = size
                before, behind, following = self._around_sequence(segment, size)
            sequence = FIRST_SEQUENCE + 1 + position & _MASK
            texts.append(tail + before + sequence.to_bytes(4) + behind)
            tail = following
        texts.append(tail)
        return texts

    def _ends(
        self, segment: Segment, captured: int, length: int, drops: int | None
    ) -> tuple[bytes, bytes]:
        """Build what goes before and behind the payload of a block that has ``captured`` of it."""
        packet = self._headers(segment, segment.position, length)
        head, tail = enhanced_packet_ends(
            ticks=segment.time_ns,
            captured=len(packet) + captured,
            original=len(packet) + length,
            comments=segment.comments,
            drops=drops,
        )
        return head + packet, tail

    def _around_sequence(self, segment: Segment, length: int) -> tuple[bytes, bytes, bytes]:
        """Build a block without options: what goes before and behind its sequence number."""
        packet = self._headers(segment, 0, length)
        head, tail = enhanced_packet_ends(
            ticks=segment.time_ns, captured=len(packet) + length, original=len(packet) + length
        )
        at = len(packet) - TCP_SIZE + _SEQUENCE_AT
        return head + packet[:at], packet[at + 4 :], tail

    def _headers(self, segment: Segment, position: int, length: int) -> bytes:
        """Build IP and TCP headers."""
        flags = segment.flags | (TCP_PSH if length else 0)
        acknowledgement = 0
        if segment.acknowledged is not None:
            flags |= TCP_ACK
            acknowledgement = FIRST_SEQUENCE + 1 + segment.acknowledged & _MASK
        return self._ip_header(length) + _TCP_NUMBERS.pack(
            *self._ports,
            FIRST_SEQUENCE + 1 + position & _MASK,
            acknowledgement,
            _HEADER_WORDS,
            flags,
            _WINDOW,
            0,
        )

    def _ip_header(self, length: int) -> bytes:
        """Give the IP header for a payload of some length; there are few different ones."""
        known = self._ip_headers.get(length)
        if known is None:
            packet = tcp_packet(TcpHeader(self.flow, 0), length=length)
            known = packet[:-TCP_SIZE]
            if len(self._ip_headers) >= _HEADERS_KEPT:
                self._ip_headers.clear()
            self._ip_headers[length] = known
        return known


_HEADERS_KEPT: Final = 256
