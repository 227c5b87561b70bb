# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire format, described twice: construct schemas against scapy layers.

Each message is built by one side and parsed by the other, whole and cut off at every byte. Both
must then say that it is truncated, or both must give the same values.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from scapy.fields import FlagValue
from scapy.packet import Packet, Padding, Raw

import dissectors
from dissectors import main_stream as their_main
from dissectors import multifd as their_multifd
from dissectors import ram as their_ram
from dissectors import return_path as their_return_path
from dissectors import vfio as their_vfio
from dissectors.captured import Missing, Undecoded
from dissectors.fields import TruncatedError as TheirTruncatedError
from mfdtool import errors
from mfdtool.packets import pcap
from mfdtool.stream.connections import ScalarStreams
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.migration import Decoder
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord, ReturnPathRecord
from mfdtool.wire import main_stream, multifd, ram, return_path, vfio
from mfdtool.wire.catalog import CATALOG
from mfdtool.wire.codec import Message
from mfdtool.wire.constants import RamFlag, SectionType
from mfdtool.wire.text import escape, unescape
from mfdtool.workflows.reading import Input, Reading

ROOT = Path(__file__).parents[2]
VECTORS = sorted((ROOT / "tests" / "data" / "vectors").glob("*.pcap.gz"))
CAPTURES = sorted((ROOT / "captures").glob("*.pcap.gz")) + VECTORS
SEEDS = range(12)

Rng = random.Random


def number(rng: Rng, bits: int) -> int:
    """Draw an integer, often one at an edge."""
    top = (1 << bits) - 1
    return rng.choice([0, 1, top, rng.randint(0, top)])


def text(rng: Rng, *, longest: int = 255) -> str:
    """Draw a name as our side writes it, of any bytes."""
    return escape(rng.randbytes(rng.choice([0, 1, 17, longest])))


@dataclass(frozen=True)
class Case:
    """One message on both sides.

    ``draw`` makes a random value of ours; ``make`` is their class. ``renamed`` maps our field
    names to theirs; None for those that have no field there.
    """

    draw: Callable[[Rng], Message]
    make: Callable[..., Packet]
    renamed: Mapping[str, str | None] = field(default_factory=dict)
    parse: Callable[[bytes], Message] | None = None


def ram_packet(rng: Rng, *, page_size: int, flags: int) -> multifd.MultiFDPacket:
    """Draw a RAM or SYNC packet."""
    return multifd.MultiFDPacket(
        flags=flags,
        pages_alloc=number(rng, 32),
        normal_pages=number(rng, 32),
        next_packet_size=number(rng, 32),
        packet_num=number(rng, 64),
        zero_pages=number(rng, 32),
        unused32=number(rng, 32),
        unused64=rng.randbytes(24),
        ramblock=rng.randbytes(256),
        offset=tuple(number(rng, 64) for _ in range(multifd.page_count_for(page_size))),
    )


def configuration(rng: Rng) -> main_stream.Configuration:
    """Draw a configuration section with any of its subsections."""
    bodies: dict[str, main_stream.ConfigurationBody] = {
        "configuration/target-page-bits": main_stream.TargetPageBits(number(rng, 32)),
        "configuration/capabilities": main_stream.Capabilities(
            tuple(text(rng, longest=40) for _ in range(rng.randint(0, 3)))
        ),
        "configuration/uuid": main_stream.ConfigurationUuid(rng.randbytes(16)),
    }
    names = rng.sample(sorted(bodies), rng.randint(0, 3))
    return main_stream.Configuration(
        name=text(rng, longest=300),
        subsections=tuple(
            main_stream.ConfigurationSubsection(
                name=name, version_id=number(rng, 32), body=bodies[name]
            )
            for name in names
        ),
    )


def discard(rng: Rng) -> main_stream.PostcopyRamDiscard:
    """Draw the payload of POSTCOPY_RAM_DISCARD."""
    ranges = (
        main_stream.DiscardRange(start=number(rng, 64), length=number(rng, 64))
        for _ in range(rng.randint(1, 4))
    )
    return main_stream.PostcopyRamDiscard(
        version=number(rng, 8), name=text(rng), terminator=number(rng, 8), ranges=tuple(ranges)
    )


def entry(rng: Rng, *, parts: tuple[str, ...]) -> ram.MemSizeEntry:
    """Draw one RAM block with some optional fields."""
    header = ram.MappedRamHeader(
        version=number(rng, 32),
        page_size=number(rng, 64),
        bitmap_offset=number(rng, 64),
        pages_offset=number(rng, 64),
    )
    values: dict[str, Any] = {
        "page_size": number(rng, 64),
        "address": number(rng, 64),
        "mapped_ram": header,
    }
    return ram.MemSizeEntry(
        idstr=text(rng),
        used_length=number(rng, 64),
        **{name: values[name] for name in parts},
    )


def entry_case(*parts: str) -> Case:
    """Describe a RAM block with some optional fields, which both sides must be told."""
    told: dict[str, Any] = {f"with_{part}": True for part in parts}
    return Case(
        partial(entry, parts=parts),
        partial(their_ram.MemSizeEntry, parts=parts),
        parse=lambda data: ram.MemSizeEntry.parse(data, **told),
    )


def packet_case(name: str, *, page_size: int, flags: int) -> tuple[str, Case]:
    """Describe RAM packets of one page size."""
    kind = their_multifd.MultiFDSync if flags & 1 else their_multifd.MultiFDPacket
    return f"{name}, pages of {page_size}", Case(
        partial(ram_packet, page_size=page_size, flags=flags),
        partial(kind, page_size=page_size),
        parse=partial(multifd.MultiFDPacket.parse, page_count=multifd.page_count_for(page_size)),
    )


def section(rng: Rng, kind: SectionType) -> main_stream.SectionStart:
    """Draw a START or FULL header."""
    return main_stream.SectionStart(
        type=kind,
        section_id=number(rng, 32),
        idstr=text(rng),
        instance_id=number(rng, 32),
        version_id=number(rng, 32),
    )


BLOCK_NAME = {"name": "block_name"}
VMSD_NAME = {"name": "vmsd_name"}
CASES: dict[str, Case] = {
    "MultiFDInit": Case(
        lambda rng: multifd.MultiFDInit(
            magic=number(rng, 32),
            version=number(rng, 32),
            uuid=rng.randbytes(16),
            id=number(rng, 8),
            unused1=rng.randbytes(7),
            unused2=rng.randbytes(32),
        ),
        their_multifd.MultiFDInit,
    ),
    "MultiFDPacketHdr": Case(
        lambda rng: multifd.MultiFDPacketHdr(
            magic=number(rng, 32), version=number(rng, 32), flags=number(rng, 32)
        ),
        their_multifd.MultiFDPacketHdr,
    ),
    **dict(
        packet_case(name, page_size=page_size, flags=flags)
        for page_size in (65536, 4096)
        for name, flags in (("RAM", 0), ("zlib", 2), ("SYNC", 1))
    ),
    "MultiFDPacketDeviceState": Case(
        lambda rng: multifd.MultiFDPacketDeviceState(
            flags=number(rng, 32),
            idstr=rng.randbytes(256),
            instance_id=number(rng, 32),
            next_packet_size=number(rng, 32),
        ),
        their_multifd.MultiFDPacketDeviceState,
    ),
    "VFIODeviceStatePacket": Case(
        lambda rng: vfio.VFIODeviceStatePacket(
            version=number(rng, 32), idx=number(rng, 32), flags=number(rng, 32)
        ),
        their_vfio.VFIODeviceStatePacket,
    ),
    "Marker": Case(
        lambda rng: vfio.Marker(rng.choice([0xFFFFFFFFEF100001, 0xFFFFFFFFEF100002, 7])),
        their_vfio.VFIOMarkerRecord,
        {"value": "marker"},
    ),
    "DeviceData": Case(
        lambda rng: vfio.DeviceData(size=number(rng, 64)), their_vfio.VFIODeviceData
    ),
    "FileHeader": Case(
        lambda rng: main_stream.FileHeader(magic=number(rng, 32), version=number(rng, 32)),
        their_main.FileHeader,
    ),
    "Configuration": Case(configuration, their_main.Configuration, {"name": "machine_type"}),
    "START": Case(lambda rng: section(rng, SectionType.START), their_main.SectionStart),
    "FULL": Case(lambda rng: section(rng, SectionType.FULL), their_main.SectionFull),
    "PART": Case(
        lambda rng: main_stream.SectionPart(type=SectionType.PART, section_id=number(rng, 32)),
        their_main.SectionPart,
    ),
    "END": Case(
        lambda rng: main_stream.SectionPart(type=SectionType.END, section_id=number(rng, 32)),
        their_main.SectionEnd,
    ),
    "SectionFooter": Case(
        lambda rng: main_stream.SectionFooter(section_id=number(rng, 32)),
        their_main.SectionFooter,
    ),
    "SubsectionHeader": Case(
        lambda rng: main_stream.SubsectionHeader(name=text(rng), version_id=number(rng, 32)),
        their_main.SubsectionHeader,
        VMSD_NAME,
    ),
    "VmDescriptionHeader": Case(
        lambda rng: main_stream.VmDescriptionHeader(length=number(rng, 32)),
        their_main.VmDescription,
    ),
    "CommandHeader": Case(
        lambda rng: main_stream.CommandHeader(cmd=number(rng, 16), len=number(rng, 16)),
        their_main.Command,
    ),
    "Ping": Case(lambda rng: main_stream.Ping(number(rng, 32)), their_main.Ping),
    "PostcopyAdvise": Case(
        lambda rng: main_stream.PostcopyAdvise(
            page_size_summary=number(rng, 64), page_size=number(rng, 64)
        ),
        their_main.PostcopyAdvise,
    ),
    "DiscardRange": Case(
        lambda rng: main_stream.DiscardRange(start=number(rng, 64), length=number(rng, 64)),
        their_main.DiscardRange,
    ),
    "PostcopyRamDiscard": Case(discard, their_main.PostcopyRamDiscard, BLOCK_NAME),
    "Packaged": Case(lambda rng: main_stream.Packaged(number(rng, 32)), their_main.Packaged),
    "RecvBitmap": Case(lambda rng: main_stream.RecvBitmap(text(rng)), their_main.RecvBitmap),
    "MappedRamHeader": Case(
        lambda rng: ram.MappedRamHeader(
            version=number(rng, 32),
            page_size=number(rng, 64),
            bitmap_offset=number(rng, 64),
            pages_offset=number(rng, 64),
        ),
        their_ram.MappedRamHeader,
    ),
    "MemSizeEntry": entry_case(),
    "MemSizeEntry, huge pages": entry_case("page_size"),
    "MemSizeEntry, shared": entry_case("page_size", "address"),
    "MemSizeEntry, mapped-ram": entry_case("mapped_ram"),
    "RamRecordHeader": Case(
        lambda rng: ram.RamRecordHeader(
            addr=rng.randrange(0, 1 << 64, 4096), flags=rng.choice([0x10, 0x80, 0x200, 0])
        ),
        their_ram.RamRecord,
    ),
    "ReturnPathMessage": Case(
        lambda rng: return_path.ReturnPathMessage(type=rng.choice([1, 7, 99]), len=number(rng, 16)),
        their_return_path.ReturnPathMessage,
    ),
    "Shut": Case(lambda rng: return_path.Shut(number(rng, 32)), their_return_path.Shut),
    "Pong": Case(lambda rng: return_path.Pong(number(rng, 32)), their_return_path.Pong),
    "ReqPages": Case(
        lambda rng: return_path.ReqPages(start=number(rng, 64), length=number(rng, 32)),
        their_return_path.ReqPages,
    ),
    "ReqPagesId": Case(
        lambda rng: return_path.ReqPagesId(
            start=number(rng, 64), length=number(rng, 32), block_name=text(rng)
        ),
        their_return_path.ReqPagesId,
    ),
    "RecvBitmapReply": Case(
        lambda rng: return_path.RecvBitmapReply(text(rng)), their_return_path.RecvBitmapReply
    ),
    "ResumeAck": Case(
        lambda rng: return_path.ResumeAck(number(rng, 32)), their_return_path.ResumeAck
    ),
}

ELSEWHERE = {
    # Bodies that no layer takes apart: to scapy they are bytes of a section.
    "DirtyBitmapRecord",
    "HtabHeader",
    "HtabChunk",
    "StorageAttributes",
    # Parts of our messages that are a few fields of one layer, see PARTS and the captures.
    "ConfigurationHeader",
    "ConfigurationSubsection",
    "TargetPageBits",
    "Capabilities",
    "ConfigurationUuid",
    "SectionStart",
    "SectionPart",
    "MultiFDPacket",
    "MultiFDPacketCounts",
    "MultiFDPacketFixed",
    "DeviceStateHeader",
    "BlockId",
    "ZeroFill",
    "XbzrleHeader",
    "CompressedPageHeader",
    "RecvBitmapSize",
    "RecvBitmapEnd",
}


def test_every_message_has_a_case() -> None:
    ours = {message.__name__ for messages in CATALOG.values() for message in messages}
    assert ours == {name.partition(",")[0] for name in CASES if name in ours} | ELSEWHERE


# One side builds, the other parses.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_both_sides(name: str, seed: int) -> None:
    case = CASES[name]
    value = case.draw(random.Random(f"{name} {seed}"))
    data = value.build()
    packet = case.make(data)
    check(packet, value, case.renamed)
    assert bytes(packet) == data
    assert bytes(translate(value, case)) == data


@pytest.mark.parametrize("name", CASES)
def test_every_truncation(name: str) -> None:
    case = CASES[name]
    value = case.draw(random.Random(name))
    data = value.build()
    parse: Callable[[bytes], Message] = case.parse or type(value).parse
    for length in range(1, len(data)):
        try:
            ours: Message | None = parse(data[:length])
        except errors.WireError:
            ours = None
        try:
            theirs: Packet | None = case.make(data[:length])
        except TheirTruncatedError:
            theirs = None
        assert (ours is None) == (theirs is None), length
        if ours is not None and theirs is not None:
            check(theirs, ours, case.renamed)


def check(packet: Packet, value: Message, renamed: Mapping[str, str | None]) -> None:
    """Compare all fields of a message with those of a layer."""
    for name, ours in value.to_mapping().items():
        theirs = getattr(packet, renamed.get(name) or name)
        assert normal(theirs) == normal(ours), name


def normal(value: Any) -> Any:
    """Give a field's value in a form that both sides share."""
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, FlagValue):
        return int(value)
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    if isinstance(value, main_stream.ConfigurationSubsection):
        return [value.type, unescape(value.name), value.version_id, *normal(value.body)]
    if isinstance(value, their_main.CountedString):
        return bytes(value.text)
    if isinstance(value, Message):
        return [normal(item) for item in value.to_mapping().values()]
    if isinstance(value, Packet):
        names = [
            item.name for item in value.fields_desc if not item.name.endswith(("_len", "_count"))
        ]
        values = (getattr(value, name) for name in names)
        return [normal(item) for item in values if item is not None]
    return value


def translate(value: Message, case: Case) -> Packet:
    """Build their layer from our values, with all lengths left to it."""
    fields = {case.renamed.get(name) or name: item for name, item in value.to_mapping().items()}
    return case.make(**{name: theirs_of(item) for name, item in fields.items() if item is not None})


def theirs_of(value: Any) -> Any:
    """Give a value as scapy's fields take it."""
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, main_stream.ConfigurationSubsection):
        body = {name: theirs_of(item) for name, item in value.body.to_mapping().items()}
        return their_main.ConfigurationSubsection(
            vmsd_name=value.name, version_id=value.version_id, **body
        )
    if isinstance(value, main_stream.DiscardRange):
        return their_main.DiscardRange(**value.to_mapping())
    if isinstance(value, ram.MappedRamHeader):
        return their_ram.MappedRamHeader(**value.to_mapping())
    if isinstance(value, tuple):
        items = [theirs_of(item) for item in value]
        return [their_main.CountedString(text=i) if isinstance(i, bytes) else i for i in items]
    return value


# Several of our messages are one layer there.

HEADER = ram.RamRecordHeader
NAMED = ram.BlockId("pc.ram").build()
PARTS: dict[str, tuple[bytes, Packet]] = {
    "zero page": (
        HEADER(addr=0x2000, flags=RamFlag.ZERO).build() + NAMED + ram.ZeroFill(0).build(),
        their_ram.RamZero(addr=0x2000, idstr="pc.ram"),
    ),
    "zero page, same block": (
        HEADER(addr=0x2000, flags=RamFlag.ZERO | RamFlag.CONTINUE).build()
        + ram.ZeroFill(9).build(),
        their_ram.RamZero(addr=0x2000, flags="ZERO+CONTINUE", ch=9),
    ),
    "page": (
        HEADER(addr=0x1000, flags=RamFlag.PAGE).build() + NAMED + bytes(4096),
        their_ram.RamPage(addr=0x1000, idstr="pc.ram", data=bytes(4096)),
    ),
    "xbzrle": (
        HEADER(addr=0x1000, flags=RamFlag.XBZRLE).build()
        + NAMED
        + ram.XbzrleHeader(len=3).build()
        + b"abc",
        their_ram.RamXbzrle(addr=0x1000, idstr="pc.ram", data=b"abc"),
    ),
    "compressed page": (
        HEADER(addr=0x1000, flags=RamFlag.COMPRESS_PAGE).build()
        + NAMED
        + ram.CompressedPageHeader(4).build()
        + b"zlib",
        their_ram.RamCompressedPage(addr=0x1000, idstr="pc.ram", data=b"zlib"),
    ),
    "block list": (
        HEADER(addr=0x3000, flags=RamFlag.MEM_SIZE).build()
        + ram.MemSizeEntry(idstr="pc.ram", used_length=0x2000).build()
        + ram.MemSizeEntry(idstr="pc.bios", used_length=0x1000).build(),
        their_ram.RamMemSize(
            addr=0x3000,
            entries=[
                their_ram.MemSizeEntry(idstr="pc.ram", used_length=0x2000),
                their_ram.MemSizeEntry(idstr="pc.bios", used_length=0x1000),
            ],
        ),
    ),
    "device state": (
        vfio.DeviceStateHeader(
            idstr=b"0000:00:05.0/vfio".ljust(256, b"\0"), next_packet_size=16, idx=7
        ).build()
        + b"data",
        their_multifd.MultiFDPacketDeviceState(idstr="0000:00:05.0/vfio")
        / their_vfio.VFIODeviceStatePacket(idx=7)
        / b"data",
    ),
    "config": (
        multifd.MultiFDPacketDeviceState(idstr=bytes(256), next_packet_size=34).build()
        + vfio.VFIODeviceStatePacket(idx=1, flags=1).build()
        + vfio.wrap_config(b"config"),
        their_multifd.MultiFDPacketDeviceState()
        / their_vfio.VFIODeviceStatePacket(idx=1, flags="CONFIG_STATE")
        / their_vfio.VFIOConfigState(config=b"config"),
    ),
    "command": (
        main_stream.CommandHeader(cmd=2, len=4).build() + main_stream.Ping(1).build(),
        their_main.Command(cmd="PING", body=their_main.Ping(value=1)),
    ),
    "received bitmap": (
        return_path.ReturnPathMessage(type=5, len=7).build()
        + return_path.RecvBitmapReply("pc.ram").build()
        + return_path.RecvBitmapSize(8).build()
        + b"12345678"
        + return_path.RecvBitmapEnd().build(),
        their_return_path.ReturnPathMessage(
            type="RECV_BITMAP",
            body=their_return_path.RecvBitmapReply(block_name="pc.ram"),
            bitmap=b"12345678",
        ),
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_messages_that_are_one_layer(name: str) -> None:
    data, packet = PARTS[name]
    assert bytes(packet) == data
    again = type(packet)(data)
    assert bytes(again) == data
    assert not again.haslayer(Padding)
    assert [type(layer) for layer in again.iterpayloads()] == [
        type(layer) for layer in packet.iterpayloads()
    ]


@pytest.mark.parametrize("name", PARTS)
def test_every_truncation_of_one_layer(name: str) -> None:
    data, packet = PARTS[name]
    for length in range(1, len(data)):
        try:
            part = type(packet)(data[:length])
        except TheirTruncatedError:
            continue
        # Payload-like bytes may be cut off; their length is still there, and nothing is made up.
        assert bytes(part) == data[:length]
        if isinstance(packet, their_multifd.MultiFDPacketDeviceState):
            check_cut_device_state(part, data[:length])


def check_cut_device_state(packet: Packet, data: bytes) -> None:
    """Compare a packet whose payload is cut off."""
    try:
        value = vfio.DEVICE_STATE_HEADER_LAYOUT.parse(data)
    except errors.TruncatedError:
        check(packet, multifd.MultiFDPacketDeviceState.parse_prefix(data)[0], {})
        assert not packet.haslayer(their_vfio.VFIODeviceStatePacket)
    else:
        assert packet.idx == value.idx
        assert packet.next_packet_size == value.next_packet_size


# Real migrations: construct on increments, arrays, and scapy.


@pytest.fixture(scope="module", params=CAPTURES, ids=lambda path: path.name.partition(".")[0])
def capture(request: pytest.FixtureRequest) -> Path:
    """Give each capture in turn: recordings, and streams that were made for a destination."""
    path: Path = request.param
    return path


def incremental(path: Path) -> list[Frame]:
    """Decode a capture record by record."""
    view = memoryview(gzip.decompress(path.read_bytes()))
    decoder = Decoder(keep_extents=True)
    streams = ScalarStreams(view, pcap.read(view))
    frames = [frame for window in streams.windows(every=1) for frame in decoder.feed(window)]
    return [*frames, *decoder.finish()]


def test_three_ways(capture: Path) -> None:
    one = incremental(capture)
    with Reading(Input(capture=str(capture))) as reading:
        two = list(reading.frames())
    three = list(dissectors.read(capture))
    kinds = {frame.kind for frame in one}
    assert Kind.MAIN_EOF in kinds
    has_multifd = any(str(frame.channel).startswith("multifd") for frame in one)
    assert (Kind.MULTIFD_INIT in kinds) is has_multifd
    assert by_channel(one) == by_channel(two)
    keys = [(str(frame.channel), frame.number, frame.offset) for frame in two]
    assert [(packet.channel, packet.number, packet.offset) for packet in three] == keys
    packets = dict(zip(keys, three, strict=True))
    for frame in one:
        packet = packets[str(frame.channel), frame.number, frame.offset]
        if frame.complete:
            assert bytes(packet) == frame.data()
        else:
            check_incomplete(packet, frame)
        check_construct(frame)
        check_frame(packet.payload, frame)


def check_incomplete(packet: Packet, frame: Frame) -> None:
    """What is not captured is said, and what is captured is there."""
    missing = packet[Missing]
    assert (missing.length, missing.reason) == (frame.missing, frame.reason)
    with pytest.raises(ValueError, match=f"{frame.missing} bytes are missing"):
        bytes(packet)
    missing.underlayer.remove_payload()
    assert bytes(packet) == frame.data()


def by_channel(frames: list[Frame]) -> list[Frame]:
    """Sort frames by channel; in a channel their order stays."""
    return sorted(frames, key=lambda frame: str(frame.channel))


def check_construct(frame: Frame) -> None:
    """Parse a frame's header with the schema itself, which the fast path goes around."""
    value = frame.value
    if isinstance(value, Message):
        context: dict[str, Any] = (
            {"may_end": True} if isinstance(value, main_stream.Configuration) else {}
        )
        again, used = type(value).parse_prefix(frame.data(), **context)
        assert again == value
        assert again.build() == frame.data()[:used]


def check_frame(packet: Packet, frame: Frame) -> None:
    """Compare a layer with what the decoder says."""
    value = frame.value
    if isinstance(value, vfio.DeviceStateHeader):
        inner = packet[their_vfio.VFIODeviceStatePacket]
        assert (packet.version, packet.flags) == (value.packet_version, value.packet_flags)
        assert (inner.version, inner.idx, inner.flags) == (value.version, value.idx, value.flags)
        check_names(packet, value, "magic", "idstr", "instance_id", "next_packet_size")
        check_config(inner, value)
    elif isinstance(value, main_stream.Configuration):
        check(packet, value, {"name": "machine_type"})
    elif isinstance(value, CommandRecord):
        check(packet, value.header, {})
        assert normal(packet.body) == normal(value.payload)
    elif isinstance(value, MarkerRecord):
        assert packet.marker == value.marker
        data = packet.data if isinstance(packet, their_vfio.VFIODeviceData) else packet.payload
        assert len(data or b"") == value.data_length
    elif isinstance(value, RamRecord):
        assert (packet.addr, packet.flags) == (value.addr, value.flags)
        assert normal(getattr(packet, "entries", [])) == [
            [
                unescape(entry.idstr),
                entry.used_length,
                *([] if entry.address is None else [entry.address]),
            ]
            for entry in value.entries
        ]
    elif isinstance(value, ReturnPathRecord):
        check(packet, value.header, {})
        assert normal(packet.body) == normal(value.payload)
    elif isinstance(value, Message):
        check(packet, value, {})
    else:
        assert isinstance(packet, Raw | Undecoded | their_main.EndOfStream)


def check_config(packet: Packet, header: vfio.DeviceStateHeader) -> None:
    """A config is one for both or for neither."""
    data = bytes(packet.payload)
    try:
        bounds = vfio.locate_config(data)
    except errors.WireError:
        bounds = None
    assert bool(packet.haslayer(their_vfio.VFIOConfigState)) == (header.is_config and bool(bounds))
    if header.is_config and bounds:
        assert packet.config == data[bounds.start : bounds.stop]


def check_names(packet: Packet, value: Message, *names: str) -> None:
    """Compare fields that both sides call alike."""
    for name in names:
        assert normal(getattr(packet, name)) == normal(getattr(value, name))


def test_scapy_alone_cuts_the_same_packets(capture: Path) -> None:
    packets = [p for p in dissectors.read(capture) if p.channel.startswith("multifd-")]
    packets.sort(key=lambda packet: (packet.channel, packet.offset))
    for _, group in groupby(packets, key=lambda packet: str(packet.channel)):
        whole = [packet.payload for packet in group if not packet.haslayer(Missing)]
        expected = list(takewhile(lambda packet: not isinstance(packet, Undecoded), whole))
        channel = their_multifd.MultiFDChannel(b"".join(map(bytes, whole)))
        assert [type(packet) for packet in channel.packets] == list(map(type, expected))
        assert channel.packets == expected
        assert bytes(channel.payload) == b"".join(map(bytes, whole[len(expected) :]))
