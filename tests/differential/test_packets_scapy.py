# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and headers, ours against scapy's: two programs that never saw each other."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapNgReader, RawPcapReader

from mfdtool.packets import pcap, pcapng
from mfdtool.packets.info import ByteOrder, Interface
from mfdtool.packets.ip import Skip, TcpHeader, segment_of, tcp_packet
from mfdtool.packets.link import EtherType, LinkType, ethernet
from mfdtool.packets.pcapng_build import enhanced_packet, interface_description, section_header
from mfdtool.packets.values import TCP_ACK, TCP_PSH, Endpoint, FlowKey, Record, Segment

CAPTURES = sorted((Path(__file__).parents[2] / "captures").glob("*.pcap.gz"))

SCAPY_LONGEST = 0xFFFF
"""scapy's readers cut frames here, without a word."""

PAYLOAD = b"the payload"
SEGMENT = TCP(
    sport=40_000, dport=4444, seq=0xFFFF_FFF0, ack=77, flags="PA", options=[("NOP", None)] * 4
)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IPV4 = IP(src="10.0.0.1", dst="10.0.0.2")
IPV6 = IPv6(src="fd00::1", dst="fd00::2")
FLOW4 = FlowKey(Endpoint(bytes([10, 0, 0, 1]), 40_000), Endpoint(bytes([10, 0, 0, 2]), 4444))
FLOW6 = FlowKey(
    Endpoint(bytes.fromhex("fd00" + "00" * 13 + "01"), 40_000),
    Endpoint(bytes.fromhex("fd00" + "00" * 13 + "02"), 4444),
)

FRAMES: dict[str, tuple[int, Packet, FlowKey]] = {
    "ethernet": (LinkType.ETHERNET, ETHER / IPV4, FLOW4),
    "ethernet, ipv6": (LinkType.ETHERNET, ETHER / IPV6, FLOW6),
    "vlan": (LinkType.ETHERNET, ETHER / Dot1Q(vlan=5) / IPV4, FLOW4),
    "qinq": (LinkType.ETHERNET, ETHER / Dot1AD(vlan=5) / Dot1Q(vlan=6) / IPV6, FLOW6),
    "linux cooked": (LinkType.LINUX_SLL, CookedLinux() / IPV4, FLOW4),
    "linux cooked 2": (LinkType.LINUX_SLL2, CookedLinuxV2() / IPV6, FLOW6),
    "null": (LinkType.NULL, Loopback(type=2) / IPV4, FLOW4),
    "raw": (LinkType.RAW, IPV4, FLOW4),
    "options": (LinkType.RAW, IPV4.copy(), FLOW4),
    "hop by hop": (LinkType.RAW, IPV6 / IPv6ExtHdrHopByHop(), FLOW6),
    "routing": (LinkType.RAW, IPV6 / IPv6ExtHdrRouting(), FLOW6),
    "several": (
        LinkType.RAW,
        IPV6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(),
        FLOW6,
    ),
}
FRAMES["options"][1].options = [IPOption_NOP()] * 5


def load(path: Path) -> bytes:
    """Read a compressed capture."""
    return gzip.decompress(path.read_bytes())


def frames_of(data: bytes, records: list[Record]) -> list[bytes]:
    """Cut the frames out of a file."""
    return [data[record.offset : record.offset + record.captured] for record in records]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_pcap_records_and_payloads(path: Path) -> None:
    data = load(path)
    view = memoryview(data)
    records = list(pcap.read(view))
    with RawPcapReader(str(path)) as reader:
        theirs: list[tuple[bytes, Any]] = list(reader)
    ours = frames_of(data, records)
    assert [frame[:SCAPY_LONGEST] for frame in ours] == [frame for frame, _ in theirs]
    assert [(record.time_ns // 1000, record.captured, record.original) for record in records] == [
        (meta.sec * 1_000_000 + meta.usec, meta.caplen, meta.wirelen) for _, meta in theirs
    ]
    for record, (frame, _) in zip(records[:60], theirs, strict=False):
        found = segment_of(record, view)
        assert isinstance(found, Segment)
        tcp = Ether(frame)[TCP]
        assert (found.sequence, found.acknowledgement, found.flags) == (
            tcp.seq,
            tcp.ack,
            int(tcp.flags),
        )
        payload = data[found.offset : found.offset + found.captured]
        assert payload == bytes(tcp.payload)


@pytest.mark.parametrize("order", ByteOrder)
def test_built_pcapng(tmp_path: Path, order: ByteOrder) -> None:
    interface = Interface(index=0, linktype=LinkType.RAW, name="proxy", snaplen=65_535)
    data = (
        section_header(comments=["c"], byte_order=order)
        + interface_description(interface, byte_order=order)
        + enhanced_packet(b"abc", ticks=(1 << 60) + 1, comments=["p"], byte_order=order)
        + enhanced_packet(b"defgh", ticks=2, original=70, flags=1, byte_order=order)
    )
    records = list(pcapng.read(memoryview(data)))
    path = tmp_path / "built.pcapng"
    path.write_bytes(data)
    with RawPcapNgReader(str(path)) as reader:
        theirs: list[tuple[bytes, Any]] = list(reader)
    assert frames_of(data, records) == [frame for frame, _ in theirs]
    assert [(record.time_ns, record.original, record.linktype) for record in records] == [
        ((meta.tshigh << 32) + meta.tslow, meta.wirelen, meta.linktype) for _, meta in theirs
    ]
    assert [meta.comments for _, meta in theirs] == [[b"p"], None]


@pytest.mark.parametrize("name", FRAMES)
def test_headers_that_scapy_built(name: str) -> None:
    linktype, link, flow = FRAMES[name]
    frame = bytes(link / SEGMENT / Raw(PAYLOAD))
    padded = frame + bytes(20)
    record = Record(1, 5, linktype, 0, len(padded), len(padded))
    assert segment_of(record, memoryview(padded)) == Segment(
        record=1,
        time_ns=5,
        flow=flow,
        sequence=0xFFFF_FFF0,
        acknowledgement=77,
        flags=TCP_PSH | TCP_ACK,
        offset=len(frame) - len(PAYLOAD),
        captured=len(PAYLOAD),
        length=len(PAYLOAD),
    )


@pytest.mark.parametrize("flow", [FLOW4, FLOW6])
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(1000)])
def test_packets_that_scapy_reads(flow: FlowKey, payload: bytes) -> None:
    header = TcpHeader(flow, sequence=5, acknowledgement=6, options=b"\x01" * 4)
    built = tcp_packet(header, payload)
    ethertype, layer = (EtherType.IPV4, IP) if flow is FLOW4 else (EtherType.IPV6, IPv6)
    packet = Ether(ethernet(built, ethertype=ethertype, vlans=[(EtherType.VLAN, 3)]))
    assert packet[Dot1Q].vlan == 3
    assert bytes(packet[layer]) == built
    assert (packet[TCP].sport, packet[TCP].dport, packet[TCP].seq) == (40_000, 4444, 5)
    assert bytes(packet[TCP].payload) == payload
    # Without them scapy works the checksums out by itself.
    again = packet[layer].copy()
    del again[TCP].chksum
    if layer is IP:
        del again.chksum
    assert bytes(again) == built


def test_fragments_of_scapy() -> None:
    for packet in (IP(src="10.0.0.1", flags="MF") / SEGMENT, IP(frag=3) / SEGMENT):
        frame = bytes(packet)
        record = Record(1, 5, LinkType.RAW, 0, len(frame), len(frame))
        assert segment_of(record, memoryview(frame)) is Skip.FRAGMENT
