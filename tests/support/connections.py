# SPDX-License-Identifier: GPL-2.0-or-later
"""Small captures of TCP connections that carry anything."""

from __future__ import annotations

from collections.abc import Mapping

from mfdtool.packets.info import Interface
from mfdtool.packets.ip import TcpHeader, tcp_packet
from mfdtool.packets.link import EtherType, ethernet
from mfdtool.packets.pcapng_build import enhanced_packet, interface_description, section_header
from mfdtool.packets.values import TCP_ACK, TCP_SYN, Endpoint, FlowKey

CLIENT = bytes((192, 0, 2, 1))
SERVER = bytes((192, 0, 2, 2))


def capture_of(connections: Mapping[tuple[int, int], bytes], *, size: int = 65000) -> bytes:
    """Make a pcapng file; keys are (client port, server port), values what the client sends.

    It comes in segments of the given size.
    """
    blocks = [section_header(), interface_description(Interface(0, linktype=1))]
    for (client, server), content in connections.items():
        flow = FlowKey(Endpoint(CLIENT, client), Endpoint(SERVER, server))
        segments = [(TcpHeader(flow, 999, flags=TCP_SYN), b"")]
        for at in range(0, max(len(content), 1), size):
            header = TcpHeader(flow, 1000 + at, flags=TCP_ACK)
            segments.append((header, content[at : at + size]))
        for header, payload in segments:
            frame = ethernet(tcp_packet(header, payload), ethertype=EtherType.IPV4)
            blocks.append(enhanced_packet(frame, ticks=len(blocks) * 1_000_000_000))
    return b"".join(blocks)
