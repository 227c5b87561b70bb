# SPDX-License-Identifier: GPL-2.0-or-later
"""IP and TCP headers: built and read back, real captures against tshark, every cut."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import pcap
from mfdtool.packets.ip import (
    IpProtocol,
    Skip,
    TcpHeader,
    checksum,
    segment_of,
    tcp_ipv4,
    tcp_ipv6,
    tcp_packet,
)
from mfdtool.packets.link import EtherType, LinkType, ethernet
from mfdtool.packets.values import (
    TCP_ACK,
    TCP_PSH,
    TCP_SYN,
    Endpoint,
    FlowKey,
    Record,
    Segment,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[1] / "golden" / "tshark"

FLOW4 = FlowKey(Endpoint(bytes([10, 0, 0, 1]), 40_000), Endpoint(bytes([10, 0, 0, 2]), 4444))
FLOW6 = FlowKey(
    Endpoint(bytes.fromhex("fd" + "00" * 14 + "01"), 40_000),
    Endpoint(bytes.fromhex("fd" + "00" * 14 + "02"), 4444),
)
HEADER = TcpHeader(
    FLOW4, sequence=0xFFFF_FFF0, acknowledgement=77, flags=TCP_ACK | TCP_PSH, options=b"\x01" * 12
)
HEADER6 = replace(HEADER, flow=FLOW6)


def parse(
    frame: bytes, *, linktype: int = LinkType.RAW, captured: int | None = None, before: int = 3
) -> Segment | Skip:
    """Read a frame that is somewhere in a buffer."""
    captured = len(frame) if captured is None else captured
    buffer = memoryview(b"\xee" * before + frame[:captured] + b"\xdd" * 50)
    return segment_of(Record(9, 1234, linktype, before, captured, len(frame)), buffer)


def segment(frame: bytes, **keywords: int) -> Segment:
    """Read a frame that has a segment."""
    found = parse(frame, **keywords)
    assert isinstance(found, Segment)
    return found


def with_extensions(protocols: list[int], extensions: list[bytes], tail: bytes) -> bytes:
    """Put extension headers, their first byte left out, before a TCP segment."""
    chain = b"".join(
        bytes([following]) + extension
        for following, extension in zip([*protocols[1:], IpProtocol.TCP], extensions, strict=True)
    )
    packet = tcp_ipv6(HEADER6, tail)
    length = int.from_bytes(packet[4:6], "big") + len(chain)
    return (
        packet[:4]
        + length.to_bytes(2, "big")
        + bytes([protocols[0]])
        + packet[7:40]
        + chain
        + packet[40:]
    )


@pytest.mark.parametrize("name", ["mtty-2dev-2ch-holes", "mtty-8ch-ipv6"])
def test_real_captures_equal_tshark(name: str, real_capture: Callable[[str], memoryview]) -> None:
    # tests/golden/tshark/NAME.tsv was made, with tshark 4.0.17, by
    #   tshark -r NAME.pcap -o tcp.relative_sequence_numbers:FALSE
    #     -o tcp.desegment_tcp_streams:FALSE -T fields -e frame.number -e frame.time_epoch
    #     -e frame.cap_len -e frame.len -e tcp.srcport -e tcp.dstport -e tcp.seq -e tcp.ack
    #     -e tcp.flags -e tcp.len
    buffer = real_capture(name)
    lines = []
    for record in pcap.read(buffer):
        found = segment_of(record, buffer)
        assert isinstance(found, Segment)
        assert found.record == record.number
        assert found.time_ns == record.time_ns
        assert found.captured == found.length - (record.original - record.captured)
        seconds, nanoseconds = divmod(record.time_ns, 1_000_000_000)
        columns = (
            record.number,
            f"{seconds}.{nanoseconds:09}",
            record.captured,
            record.original,
            found.flow.source.port,
            found.flow.destination.port,
            found.sequence,
            found.acknowledgement,
            f"0x{found.flags:04x}",
            found.length,
        )
        lines.append("\t".join(map(str, columns)))
    assert lines == (GOLDEN / f"{name}.tsv").read_text().splitlines()


@pytest.mark.parametrize("build", [tcp_ipv4, tcp_ipv6, tcp_packet])
@pytest.mark.parametrize("payload", [b"", b"x", b"hello!"])
def test_what_is_built_is_read(build: Callable[[TcpHeader, bytes], bytes], payload: bytes) -> None:
    header = HEADER6 if build is tcp_ipv6 else HEADER
    frame = build(header, payload)
    found = segment(frame)
    assert found == Segment(
        record=9,
        time_ns=1234,
        flow=header.flow,
        sequence=0xFFFF_FFF0,
        acknowledgement=77,
        flags=TCP_ACK | TCP_PSH,
        offset=3 + len(frame) - len(payload),
        captured=len(payload),
        length=len(payload),
    )


def test_rebuilt_real_segments_have_the_same_bytes(
    real_capture: Callable[[str], memoryview],
) -> None:
    """The kernel's loopback leaves TCP checksums unfinished; all else must agree."""
    buffer = real_capture("mtty-4ch-clean")
    record = next(
        record for record in pcap.read(buffer) if record.number > 3 and record.captured > 100
    )
    found = segment_of(record, buffer)
    assert isinstance(found, Segment)
    frame = bytes(buffer[record.offset : record.offset + record.captured])
    header = TcpHeader(
        found.flow,
        sequence=found.sequence,
        acknowledgement=found.acknowledgement,
        flags=found.flags,
        window=int.from_bytes(frame[48:50], "big"),
        options=frame[54:66],
    )
    built = bytearray(tcp_packet(header, frame[66:]))
    # The identification is the kernel's own count, and with it the header's checksum.
    built[4:6], built[10:12] = frame[18:20], b"\0\0"
    built[10:12] = checksum(bytes(built[:20])).to_bytes(2, "big")
    built[36:38] = frame[50:52]
    assert bytes(built) == frame[14:]


@pytest.mark.parametrize("header", [HEADER, HEADER6])
@pytest.mark.parametrize("size", [0, 1, 2, 1448, 65_495])
def test_checksums_sum_to_nothing(header: TcpHeader, size: int) -> None:
    payload = Random(size).randbytes(size)
    packet = tcp_packet(header, payload[: 65_535 - 20 - 32])
    start = 20 if header is HEADER else 40
    if start == 20:
        assert checksum(packet[:20]) == 0
    addresses = header.flow.source.address + header.flow.destination.address
    tcp = packet[start:]
    assert checksum(addresses + len(tcp).to_bytes(4, "big") + b"\0\0\0\x06" + tcp) == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # The example of RFC 1071, section 3: the sum is ddf2.
        ("0001f203f4f5f6f7", 0xFFFF - 0xDDF2),
        ("", 0xFFFF),
        ("0000", 0xFFFF),
        ("ffff", 0),
        ("fffe0001", 0),
        ("ab", 0x54FF),
    ],
)
def test_checksum(data: str, expected: int) -> None:
    assert checksum(bytes.fromhex(data)) == expected


@pytest.mark.parametrize(
    "frame",
    [tcp_packet(HEADER, b"payload"), tcp_packet(HEADER6, b"payload")],
    ids=["ipv4", "ipv6"],
)
def test_every_cut(frame: bytes) -> None:
    whole = segment(frame)
    payload_at = len(frame) - 7
    options_at = payload_at - 12
    for captured in range(len(frame)):
        found = parse(frame, captured=captured)
        if captured < options_at:
            assert found is Skip.TRUNCATED
        else:
            expected = replace(
                whole,
                offset=3 + min(captured, payload_at),
                captured=max(captured - payload_at, 0),
            )
            assert found == expected


def test_padding_of_short_frames_is_no_payload() -> None:
    frame = ethernet(tcp_ipv4(replace(HEADER, options=b""), b"abc"), ethertype=EtherType.IPV4)
    found = segment(frame + bytes(60 - len(frame)), linktype=LinkType.ETHERNET)
    assert (found.captured, found.length) == (3, 3)


def test_packet_longer_than_its_frame_is_cut() -> None:
    """Some tools cut frames without keeping the length on the wire."""
    found = segment(tcp_ipv4(HEADER, b"abcdef")[:-4])
    assert (found.captured, found.length) == (2, 6)


@pytest.mark.parametrize("header", [HEADER, HEADER6])
def test_length_zero_means_the_record_tells(header: TcpHeader) -> None:
    frame = tcp_packet(header, bytes(70_000))
    at = 2 if header is HEADER else 4
    assert frame[at : at + 2] == b"\0\0"
    found = segment(frame)
    assert (found.captured, found.length) == (70_000, 70_000)
    found = segment(frame, captured=100)
    assert found.length == 70_000
    assert 0 < found.captured < 100


@pytest.mark.parametrize("header", [HEADER, HEADER6])
def test_frame_without_its_payload(header: TcpHeader) -> None:
    packet = tcp_packet(header, length=1000)
    found = parse(packet)
    assert isinstance(found, Segment)
    assert (found.captured, found.length) == (0, 1000)
    whole = tcp_packet(header, bytes(1000))
    tcp_checksum_at = len(packet) - 12 - 4
    assert packet[tcp_checksum_at : tcp_checksum_at + 2] == b"\0\0"
    assert packet[:tcp_checksum_at] == whole[:tcp_checksum_at]


def test_ipv4_options_are_stepped_over() -> None:
    packet = bytearray(tcp_ipv4(HEADER, b"abc"))
    packet[0] = 0x46
    packet[2:4] = (len(packet) + 4).to_bytes(2, "big")
    found = segment(bytes(packet[:20]) + b"\x01\x01\x01\x00" + bytes(packet[20:]))
    assert (found.flow, found.sequence, found.length) == (FLOW4, HEADER.sequence, 3)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        pytest.param(0, 0x55, Skip.MALFORMED, id="IP version 5"),
        pytest.param(0, 0x44, Skip.MALFORMED, id="header of 16 bytes"),
        pytest.param(6, 0x20, Skip.FRAGMENT, id="more fragments"),
        pytest.param(7, 0x01, Skip.FRAGMENT, id="fragment offset"),
        pytest.param(9, 17, Skip.NOT_TCP, id="UDP"),
        pytest.param(32, 0x40, Skip.MALFORMED, id="TCP header of 16 bytes"),
        pytest.param(32, 0xF0, Skip.MALFORMED, id="TCP header longer than the packet"),
    ],
)
def test_ipv4_that_gives_no_segment(at: int, value: int, reason: Skip) -> None:
    packet = bytearray(tcp_ipv4(HEADER, b"abc"))
    packet[at] = value
    assert parse(bytes(packet)) is reason


def test_ipv4_shorter_than_its_header_is_malformed() -> None:
    packet = bytearray(tcp_ipv4(HEADER, b"abc"))
    packet[2:4] = b"\0\x13"
    assert parse(bytes(packet)) is Skip.MALFORMED


def test_udp_fragment_is_not_tcp() -> None:
    packet = bytearray(tcp_ipv4(HEADER, b"abc"))
    packet[6], packet[9] = 0x20, 17
    assert parse(bytes(packet)) is Skip.NOT_TCP


EXTENSIONS = {
    "hop by hop": ([0], [bytes([0]) + bytes(6)]),
    "jumbo size": ([0], [bytes([1]) + bytes(14)]),
    "routing": ([43], [bytes([2]) + bytes(22)]),
    "destination options": ([60], [bytes([0]) + bytes(6)]),
    "authentication": ([51], [bytes([4]) + bytes(22)]),
    "atomic fragment": ([44], [bytes(7)]),
    "mobility": ([135], [bytes([0]) + bytes(6)]),
    "all of them": (
        [0, 60, 43, 44, 51, 60],
        [
            bytes([0]) + bytes(6),
            bytes([0]) + bytes(6),
            bytes([2]) + bytes(22),
            bytes(7),
            bytes([4]) + bytes(22),
            bytes([0]) + bytes(6),
        ],
    ),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_ipv6_extension_headers_are_stepped_over(name: str) -> None:
    protocols, extensions = EXTENSIONS[name]
    frame = with_extensions(list(protocols), extensions, b"payload")
    found = segment(frame)
    assert (found.flow, found.sequence, found.captured, found.length) == (
        FLOW6,
        HEADER.sequence,
        7,
        7,
    )
    assert found.offset == 3 + len(frame) - 7
    for captured in range(len(frame) - 7 - 12):
        assert parse(frame, captured=captured) is Skip.TRUNCATED


@pytest.mark.parametrize("field", ["0001", "0008", "fff8"])
def test_ipv6_fragments_are_reported(field: str) -> None:
    extension = bytes([0]) + bytes.fromhex(field) + bytes(4)
    assert parse(with_extensions([44], [extension], b"payload")) is Skip.FRAGMENT


@pytest.mark.parametrize("protocol", [17, 50, 58, 59])
def test_ipv6_of_other_protocols(protocol: int) -> None:
    packet = bytearray(tcp_ipv6(HEADER6, b"abc"))
    packet[6] = protocol
    assert parse(bytes(packet)) is Skip.NOT_TCP


def test_ipv6_extension_beyond_the_packet_is_malformed() -> None:
    short = bytearray(tcp_ipv6(HEADER6)[:46])
    short[4:7] = b"\0\x06\x3c"
    assert parse(bytes(short)) is Skip.MALFORMED
    assert parse(with_extensions([60], [b"\xff" + bytes(6)], b"")) is Skip.MALFORMED


def test_record_that_claims_more_than_the_buffer_has() -> None:
    packet = tcp_ipv4(HEADER, b"abcdef")
    record = Record(9, 1234, LinkType.RAW, 0, len(packet), len(packet))
    for size in range(len(packet)):
        found = segment_of(record, memoryview(packet[:size]))
        assert found == parse(packet, captured=size, before=0)


def test_link_reasons_are_passed_on() -> None:
    assert parse(b"\x45", linktype=147) is Skip.UNKNOWN_LINK
    assert parse(ethernet(b"", ethertype=0x0806), linktype=LinkType.ETHERNET) is Skip.NOT_IP
    assert parse(ethernet(b"", ethertype=0x0800), linktype=LinkType.ETHERNET) is Skip.TRUNCATED


def test_segments_of_a_flow_share_its_key() -> None:
    first, second = segment(tcp_ipv4(HEADER, b"a")), segment(tcp_ipv4(HEADER, b"b"))
    assert first.flow is second.flow


def test_builder_wants_two_addresses_of_a_kind() -> None:
    mixed = TcpHeader(FlowKey(FLOW4.source, FLOW6.destination), sequence=1, flags=TCP_SYN)
    with pytest.raises(ValueError, match="not a pair"):
        tcp_packet(mixed)


@pytest.mark.parametrize("seed", range(30))
def test_any_bytes_give_a_segment_inside_the_record_or_a_reason(seed: int) -> None:
    rng = Random(seed)
    for linktype in LinkType:
        frame = bytearray(rng.choice([tcp_packet(HEADER, b"xyz"), tcp_packet(HEADER6, b"xyz")]))
        if linktype is LinkType.ETHERNET:
            ethertype = EtherType.IPV4 if frame[0] == 0x45 else EtherType.IPV6
            frame[:0] = ethernet(b"", ethertype=ethertype)
        for _ in range(rng.randrange(6)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        captured = rng.randrange(len(frame) + 1)
        found = parse(bytes(frame), linktype=linktype, captured=captured)
        if isinstance(found, Segment):
            assert 0 <= found.captured <= found.length
            assert 3 <= found.offset <= found.offset + found.captured <= 3 + captured


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["mtty-2dev-2ch-holes", "mtty-8ch-ipv6"])
def test_flipped_bits_of_a_real_capture(
    name: str, seed: int, real_capture: Callable[[str], memoryview]
) -> None:
    rng = Random(seed)
    data = bytearray(real_capture(name)[:3000])
    for _ in range(rng.randrange(1, 60)):
        data[rng.randrange(pcap.FILE_HEADER_SIZE, len(data))] ^= 1 << rng.randrange(8)
    buffer = memoryview(data)
    with suppress(CaptureError):
        for record in pcap.read(buffer):
            found = segment_of(record, buffer)
            if isinstance(found, Segment):
                end = record.offset + record.captured
                assert 0 <= found.captured <= found.length
                assert record.offset <= found.offset <= found.offset + found.captured <= end
            else:
                assert found in Skip
