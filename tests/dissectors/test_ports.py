# SPDX-License-Identifier: GPL-2.0-or-later
"""Segments on the ports that a user names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw

from dissectors import bind_ports
from dissectors.main_stream import Command, Configuration, FileHeader, MainStream
from dissectors.multifd import MultiFDChannel, MultiFDInit, MultiFDSync
from dissectors.ports import MigrationSegment
from dissectors.return_path import Pong, ReturnPath, ReturnPathMessage


@pytest.fixture(autouse=True)
def _ports() -> Iterator[None]:
    before = list(TCP.payload_guess)
    bind_ports(4444, 4445)
    yield
    TCP.payload_guess[:] = before


def segment(payload: Packet, *, sport: int = 40_000, dport: int = 4444) -> Packet:
    """Put a payload into a segment, and dissect that."""
    return IP(bytes(IP() / TCP(sport=sport, dport=dport) / payload))


@pytest.mark.parametrize("port", [4444, 4445])
def test_multifd_channel(port: int) -> None:
    packet = segment(MultiFDInit(id=2) / MultiFDSync(packet_num=9), dport=port)
    first, second = packet[MultiFDChannel].packets
    assert (first.id, second.packet_num) == (2, 9)
    assert packet[MultiFDSync] is second


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port(port: int) -> None:
    before = list(TCP.payload_guess)
    with pytest.raises(ValueError, match=f"not a TCP port: {port}"):
        bind_ports(4446, port)
    assert TCP.payload_guess == before


def test_main_stream() -> None:
    packet = segment(FileHeader() / Configuration(machine_type="pc") / Command())
    assert [type(part) for part in packet[MainStream].parts] == [FileHeader, Configuration, Command]


def test_return_path() -> None:
    message = ReturnPathMessage(type="PONG", body=Pong(value=7))
    packet = segment(message, sport=4444, dport=40_000)
    assert packet[ReturnPath].messages[0].body.value == 7


@pytest.mark.parametrize(("sport", "dport"), [(40_000, 4444), (4444, 40_000), (1, 2)])
def test_the_middle_of_something_stays_raw(sport: int, dport: int) -> None:
    packet = segment(Raw(b"\0\0 pages"), sport=sport, dport=dport)
    assert packet[TCP].payload == Raw(b"\0\0 pages")


def test_other_ports_are_left_alone() -> None:
    assert segment(MultiFDInit(), dport=4446)[TCP].payload == Raw(bytes(MultiFDInit()))


def test_empty() -> None:
    assert bytes(MigrationSegment()) == b""
