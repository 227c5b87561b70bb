# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture is made of: records, and the TCP segments found in them.

Both refer to the capture by file offset: no byte of payload is copied or even touched.
Times are integer nanoseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

NO_TIME: Final = -1
"""The time of a record that carries none (pcapng simple packet blocks)."""

TCP_FIN: Final = 0x01
TCP_SYN: Final = 0x02
TCP_RST: Final = 0x04
TCP_PSH: Final = 0x08
TCP_ACK: Final = 0x10


class Endpoint(NamedTuple):
    """One end of a TCP connection; ``address`` has 4 or 16 bytes, network order."""

    address: bytes
    port: int

    def __str__(self) -> str:
        return format_endpoint(self)


class FlowKey(NamedTuple):
    """One direction of a TCP connection."""

    source: Endpoint
    destination: Endpoint

    def reversed(self) -> FlowKey:
        """Give the other direction."""
        return FlowKey(self.destination, self.source)

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"


@dataclass(frozen=True, slots=True)
class Record:
    """One captured frame: ``captured`` bytes at ``offset`` of the file.

    ``number`` counts from 1; ``original`` is the frame's length on the wire, never less than
    ``captured``; ``linktype`` is a LINKTYPE_ value of the interface it came from.
    """

    number: int
    time_ns: int
    linktype: int
    offset: int
    captured: int
    original: int
    interface: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment: ``captured`` of its ``length`` payload bytes are at ``offset``.

    ``sequence`` and ``acknowledgement`` are the header's 32-bit numbers; the latter means
    something only if ``flags`` has TCP_ACK. ``captured < length`` when the snap length cut it.
    """

    record: int
    time_ns: int
    flow: FlowKey
    sequence: int
    acknowledgement: int
    flags: int
    offset: int
    captured: int
    length: int


def format_endpoint(endpoint: Endpoint) -> str:
    """Write an endpoint the way QEMU's URIs do: ``127.0.0.1:4444``, ``[::1]:4444``."""
    # ipaddress costs 4 ms to import and is wanted by reports only.
    from ipaddress import ip_address

    address = ip_address(endpoint.address)
    if address.version == 6:
        return f"[{address}]:{endpoint.port}"
    return f"{address}:{endpoint.port}"
