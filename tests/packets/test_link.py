# SPDX-License-Identifier: GPL-2.0-or-later
"""Link layers: where the IP packet is, for every link type and every cut."""

from __future__ import annotations

import pytest

from mfdtool.packets.link import EtherType, LinkType, Skip, ethernet, find_ip

IPV4 = EtherType.IPV4
PACKET = b"\x45 the IP packet"

# Headers as the capturing systems write them, each before an IP packet.
SLL = bytes.fromhex("0000 0304 0006 000000000000 0000 0800")
SLL2 = bytes.fromhex("0800 0000 00000001 0304 00 06 0000000000000000")
LINKS = {
    "ethernet": (LinkType.ETHERNET, ethernet(b"", ethertype=IPV4)),
    "ethernet ipv6": (LinkType.ETHERNET, ethernet(b"", ethertype=EtherType.IPV6)),
    "vlan": (LinkType.ETHERNET, ethernet(b"", ethertype=IPV4, vlans=[(EtherType.VLAN, 7)])),
    "qinq": (
        LinkType.ETHERNET,
        ethernet(b"", ethertype=IPV4, vlans=[(EtherType.QINQ, 5), (EtherType.VLAN, 7)]),
    ),
    "three tags": (
        LinkType.ETHERNET,
        ethernet(b"", ethertype=IPV4, vlans=[(EtherType.QINQ_OLD, 1), (0x88A8, 2), (0x8100, 3)]),
    ),
    "linux cooked": (LinkType.LINUX_SLL, SLL),
    "linux cooked, tagged": (LinkType.LINUX_SLL, SLL[:14] + bytes.fromhex("8100 0005 0800")),
    "linux cooked 2": (LinkType.LINUX_SLL2, SLL2),
    "null, little endian": (LinkType.NULL, bytes.fromhex("02000000")),
    "null, big endian": (LinkType.NULL, bytes.fromhex("00000002")),
    "null, ipv6 on FreeBSD": (LinkType.NULL, bytes.fromhex("1c000000")),
    "null, ipv6 on macOS": (LinkType.NULL, bytes.fromhex("0000001e")),
    "loop, ipv6 on OpenBSD": (LinkType.LOOP, bytes.fromhex("00000018")),
    "raw": (LinkType.RAW, b""),
    "raw on BSD": (LinkType.RAW_BSD, b""),
    "raw on OpenBSD": (LinkType.RAW_OPENBSD, b""),
    "raw IPv4": (LinkType.IPV4, b""),
    "raw IPv6": (LinkType.IPV6, b""),
}

NOT_IP = {
    "arp": (LinkType.ETHERNET, ethernet(b"", ethertype=0x0806)),
    "arp in a vlan": (LinkType.ETHERNET, ethernet(b"", ethertype=0x0806, vlans=[(0x8100, 1)])),
    "a length, 802.3": (LinkType.ETHERNET, ethernet(b"", ethertype=38)),
    "linux cooked arp": (LinkType.LINUX_SLL, SLL[:14] + b"\x08\x06"),
    "linux cooked 2 arp": (LinkType.LINUX_SLL2, b"\x08\x06" + SLL2[2:]),
    "null, appletalk": (LinkType.NULL, bytes.fromhex("10000000")),
}


@pytest.mark.parametrize("name", LINKS)
def test_ip_packet_is_found(name: str) -> None:
    linktype, header = LINKS[name]
    buffer = memoryview(b"before" + header + PACKET + b"after")
    start, stop = 6, len(buffer) - 5
    assert find_ip(buffer, start, stop, linktype=linktype) == 6 + len(header)


@pytest.mark.parametrize("name", LINKS)
def test_every_cut_inside_the_header_is_reported(name: str) -> None:
    linktype, header = LINKS[name]
    buffer = memoryview(header + PACKET)
    for stop in range(len(header)):
        assert find_ip(buffer, 0, stop, linktype=linktype) is Skip.TRUNCATED


@pytest.mark.parametrize("name", NOT_IP)
def test_other_protocols_are_not_ip(name: str) -> None:
    linktype, header = NOT_IP[name]
    buffer = memoryview(header + PACKET)
    assert find_ip(buffer, 0, len(buffer), linktype=linktype) is Skip.NOT_IP


@pytest.mark.parametrize("linktype", [2, 105, 147, 0xFFFF])
def test_unknown_link_types_are_named_as_such(linktype: int) -> None:
    assert find_ip(memoryview(PACKET), 0, 4, linktype=linktype) is Skip.UNKNOWN_LINK


def test_ethernet_frame_bytes() -> None:
    frame = ethernet(
        b"xyz",
        ethertype=EtherType.IPV6,
        destination=bytes.fromhex("0a0b0c0d0e0f"),
        source=bytes.fromhex("010203040506"),
        vlans=[(EtherType.QINQ, 0x2005), (EtherType.VLAN, 7)],
    )
    assert frame.hex(" ", -2) == "0a0b 0c0d 0e0f 0102 0304 0506 88a8 2005 8100 0007 86dd 7879 7a"
