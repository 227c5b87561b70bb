# SPDX-License-Identifier: GPL-2.0-or-later
"""Main streams, cut: elements, VFIO records, bodies whose length nothing tells."""

from __future__ import annotations

import json

import pytest

from mfdtool.stream import vmstate_bodies as bodies_module
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import EndReason, Span, run_of
from mfdtool.stream.values import CommandRecord, MarkerRecord
from mfdtool.wire.constants import Command, VFIOMarker
from mfdtool.wire.main_stream import (
    Capabilities,
    Configuration,
    ConfigurationSubsection,
    ConfigurationUuid,
    DiscardRange,
    FileHeader,
    Packaged,
    Ping,
    PostcopyAdvise,
    PostcopyRamDiscard,
    RecvBitmap,
    SectionFooter,
    SectionStart,
    TargetPageBits,
    VmDescriptionHeader,
)
from mfdtool.wire.vmdesc import parse_vmdescription
from tests.support.framing import Hole, assert_accounts, check, cut, run, stretches
from tests.support.streams import (
    DEVICE,
    END_OF_STATE,
    EOF,
    RAM_EOS,
    SETUP,
    command,
    device_data,
    footer,
    full,
    main_start,
    marker,
    part,
    start,
)

CHANNEL = ChannelId(0, "main")
SWITCHOVER = command(Command.SWITCHOVER_START)

# The worked examples of a main stream, machine pc-q35-10.0, device 0000:00:05.0/vfio.
START = bytes.fromhex("5145564d 00000003 07 0000000b 70632d7133352d31302e30")
RETURN_PATH = bytes.fromhex("0800010000 080002000400000001")
VFIO_START = bytes.fromhex(
    "01 00000021 11 303030303a30303a30352e302f7666696f 00000000 00000001"
    "ffffffffef100003 ffffffffef100001 7e 00000021"
)
VFIO_PART = bytes.fromhex(
    "02 00000021 ffffffffef100004 0000000000000004 01020304 ffffffffef100001 7e 00000021"
)
VFIO_END = bytes.fromhex("03 00000021 ffffffffef100001 7e 00000021")


def make(reader: Reader) -> MainFramer:
    return MainFramer(reader, CHANNEL)


def make_middle(reader: Reader) -> MainFramer:
    return MainFramer(reader, CHANNEL, from_start=False)


def description(*devices: tuple[str, int]) -> bytes:
    """Give a vmdescription of old-style devices: EOF, header and text."""
    document = {
        "page_size": 4096,
        "devices": [
            {
                "name": idstr,
                "instance_id": 0,
                "size": size,
                "fields": [{"name": "data", "size": size, "type": "buffer"}],
            }
            for idstr, size in devices
        ],
    }
    text = json.dumps(document).encode()
    return EOF + VmDescriptionHeader(length=len(text)).build() + text


def kinds(frames: list[Frame]) -> list[str]:
    """Give the frames' kinds, without their prefix."""
    return [frame.kind.value.removeprefix("main.") for frame in frames]


def markers(frames: list[Frame]) -> list[tuple[int, int]]:
    """Give the VFIO markers and how much data they have."""
    return [
        (frame.value.marker, frame.value.data_length)
        for frame in frames
        if isinstance(frame.value, MarkerRecord)
    ]


def opaque(frames: list[Frame]) -> list[bytes]:
    """Give the bodies that nothing explains."""
    return [frame.data() for frame in frames if frame.kind is Kind.MAIN_OPAQUE]


# Start


def test_header_and_configuration() -> None:
    header, configuration, opening, ping, end = check(make, START + RETURN_PATH + EOF)
    assert header.value == FileHeader()
    assert configuration.value == Configuration(name="pc-q35-10.0")
    assert configuration.length == 16
    assert isinstance(opening.value, CommandRecord)
    assert opening.value.header.command is Command.OPEN_RETURN_PATH
    assert isinstance(ping.value, CommandRecord)
    assert ping.value.payload == Ping(1)
    assert (end.kind, end.offset, end.length) == (Kind.MAIN_EOF, 38, 1)


def test_configuration_subsections() -> None:
    subsections = tuple(
        ConfigurationSubsection(name=f"configuration/{name}", body=body)
        for name, body in (
            ("target-page-bits", TargetPageBits(14)),
            ("capabilities", Capabilities(("x-ignore-shared",))),
            ("uuid", ConfigurationUuid(bytes(range(16)))),
        )
    )
    framers: list[MainFramer] = []

    def make_noted(reader: Reader) -> MainFramer:
        framers.append(make(reader))
        return framers[-1]

    configuration = Configuration(name="virt", subsections=subsections)
    frames = check(make_noted, main_start(configuration) + EOF)
    assert frames[1].value == configuration
    assert framers[0].page_size == 16384
    assert framers[0].capabilities == {"x-ignore-shared"}


def test_no_configuration() -> None:
    assert kinds(check(make, FileHeader().build() + SWITCHOVER + EOF)) == [
        "header",
        "command",
        "eof",
    ]


def test_nothing_behind_the_header() -> None:
    assert kinds(check(make, FileHeader().build())) == ["header"]


def test_not_a_main_stream() -> None:
    (frame,) = check(make, b"HTTP/1.1 200 OK\r\n")
    assert (frame.kind, frame.length) == (Kind.UNDECODED, 17)


def test_configuration_that_ends_the_stream_is_not_believed() -> None:
    frames = cut(make, START)
    assert kinds(frames) == ["header", "undecoded"]
    assert frames[1].reason == "not a whole element of a main stream"


# Commands

DISCARD = PostcopyRamDiscard(name="pc.ram", ranges=(DiscardRange(start=0, length=4096),))


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (Command.OPEN_RETURN_PATH, None),
        (Command.PING, Ping(7)),
        (Command.POSTCOPY_ADVISE, PostcopyAdvise(page_size_summary=4096, page_size=16384)),
        (Command.POSTCOPY_ADVISE, None),
        (Command.POSTCOPY_LISTEN, None),
        (Command.POSTCOPY_RUN, None),
        (Command.POSTCOPY_RAM_DISCARD, DISCARD),
        (Command.ENABLE_COLO, None),
        (Command.POSTCOPY_RESUME, None),
        (Command.RECV_BITMAP, RecvBitmap("pc.ram")),
        (Command.SWITCHOVER_START, None),
    ],
)
def test_commands(
    number: Command,
    payload: Ping | PostcopyAdvise | PostcopyRamDiscard | RecvBitmap | None,
) -> None:
    raw = payload.build() if payload is not None else b""
    frames = check(make, main_start() + command(number, raw) + EOF)
    frame = frames[2]
    assert kinds(frames) == ["header", "configuration", "command", "eof"]
    assert isinstance(frame.value, CommandRecord)
    assert (frame.value.header.command, frame.value.payload) == (number, payload)
    assert frame.payload == (Span(frame.offset + 5, frame.end) if raw else None)


def test_commands_that_carry_something_else() -> None:
    data = main_start() + command(99, b"who knows") + command(Command.PING, b"ab") + EOF
    frames = check(make, data)
    assert kinds(frames) == ["header", "configuration", "command", "command", "eof"]
    assert [frame.value.payload for frame in frames if isinstance(frame.value, CommandRecord)] == [
        None,
        None,
    ]


def test_postcopy_advise_tells_the_page_size() -> None:
    framer = make(reader := Reader())
    advise = PostcopyAdvise(page_size_summary=8192, page_size=8192)
    for item in stretches(main_start() + command(Command.POSTCOPY_ADVISE, advise.build())):
        reader.feed(item)
    assert sum(frame is not None for _, frame in zip(range(4), framer.frames(), strict=False)) == 3
    assert framer.page_size == 8192


@pytest.mark.parametrize("size", [0, 1, 3, 4097, 1 << 17, 1 << 63])
def test_page_sizes_that_no_target_has_are_not_believed(size: int) -> None:
    advise = PostcopyAdvise(page_size_summary=4096, page_size=size)
    reader = Reader()
    framer = make(reader)
    reader.feed(run_of(main_start() + command(Command.POSTCOPY_ADVISE, advise.build())))
    assert sum(frame is not None for _, frame in zip(range(4), framer.frames(), strict=False)) == 3
    assert framer.page_size == 0


@pytest.mark.parametrize("bits", [0, 9, 17, 1 << 31])
def test_page_bits_that_no_target_has_are_not_believed(bits: int) -> None:
    body = TargetPageBits(bits)
    name = "configuration/target-page-bits"
    subsection = ConfigurationSubsection(name=name, body=body)
    reader = Reader()
    framer = make(reader)
    reader.feed(run_of(main_start(Configuration(name="pc", subsections=(subsection,))) + EOF))
    assert sum(frame is not None for _, frame in zip(range(3), framer.frames(), strict=False)) == 3
    assert framer.page_size == 0


def test_a_package_is_cut_like_what_is_around_it() -> None:
    package = command(Command.POSTCOPY_LISTEN) + full(5, "timer", b"body")
    data = command(Command.PACKAGED, Packaged(len(package)).build()) + package + SWITCHOVER
    assert kinds(check(make, main_start() + data + EOF))[2:] == [
        "command",
        "command",
        "section_full",
        "opaque",
        "section_footer",
        "command",
        "eof",
    ]


# VFIO


def test_vfio_sections() -> None:
    data = START + VFIO_START + VFIO_PART + SWITCHOVER + VFIO_END + EOF
    frames = check(make, data)
    assert markers(frames) == [
        (VFIOMarker.DEV_SETUP_STATE, 0),
        (VFIOMarker.END_OF_STATE, 0),
        (VFIOMarker.DEV_DATA_STATE, 4),
        (VFIOMarker.END_OF_STATE, 0),
        (VFIOMarker.END_OF_STATE, 0),
    ]
    (data_frame,) = [frame for frame in frames if frame.payload is not None]
    assert data_frame.data(data_frame.payload) == b"\1\2\3\4"
    assert data_frame.section is not None
    assert (data_frame.section.section_id, data_frame.section.idstr) == (0x21, DEVICE)
    assert {frame.section for frame in frames if frame.kind is Kind.VFIO_MARKER} == {
        data_frame.section
    }


@pytest.mark.parametrize("value", [VFIOMarker.DEV_INIT_DATA_SENT, VFIOMarker.DEV_CONFIG_LOAD_READY])
def test_markers_that_end_a_body(value: VFIOMarker) -> None:
    frames = check(make, main_start() + full(0x21, DEVICE, marker(value)) + EOF)
    assert markers(frames) == [(value, 0)]
    assert kinds(frames)[-2:] == ["section_footer", "eof"]


def test_config_in_the_main_stream() -> None:
    config = b"config " + END_OF_STATE + b" is not over yet"
    body = marker(VFIOMarker.DEV_CONFIG_STATE, config) + END_OF_STATE
    frames = check(make, main_start() + full(0x21, DEVICE, body) + EOF)
    assert markers(frames) == [
        (VFIOMarker.DEV_CONFIG_STATE, len(config)),
        (VFIOMarker.END_OF_STATE, 0),
    ]
    assert frames[3].data(frames[3].payload) == config


def test_config_whose_end_is_missing() -> None:
    data = main_start() + full(0x21, DEVICE, marker(VFIOMarker.DEV_CONFIG_STATE, b"config")) + EOF
    frames = check(make, data)
    assert markers(frames) == [(VFIOMarker.DEV_CONFIG_STATE, 0)]
    assert opaque(frames) == [b"config"]
    assert kinds(frames)[-2:] == ["section_footer", "eof"]


def test_unknown_marker() -> None:
    strange = marker(0xFFFFFFFFEF100077)
    frames = check(make, main_start() + full(0x21, DEVICE, strange + END_OF_STATE) + EOF)
    assert markers(frames) == [(0xFFFFFFFFEF100077, 0), (VFIOMarker.END_OF_STATE, 0)]


def test_vfio_body_that_is_none() -> None:
    frames = check(make, main_start() + full(0x21, DEVICE, b"neither marker nor data") + EOF)
    assert opaque(frames) == [b"neither marker nor data"]


def test_device_data_that_claims_2_to_the_64() -> None:
    body = marker(VFIOMarker.DEV_DATA_STATE, b"\xff" * 8 + b"data")
    data = main_start() + start(0x21, DEVICE, body)
    frame = cut(make, data)[-1]
    assert frame.length == 16 + (1 << 64) - 1
    assert frame.missing == frame.length - 20 - 5


# Opaque bodies

FAKE = footer(5) + b"\0\7 not a footer"


@pytest.mark.parametrize("behind", [EOF, EOF + description(("timer", 4))[1:]])
def test_body_of_unknown_handler_ends_at_its_footer(behind: bytes) -> None:
    frames = check(make, main_start() + full(5, "timer", b"body") + behind)
    assert opaque(frames) == [b"body"]
    assert frames[3].payload == Span(frames[3].offset, frames[3].end)


def test_footer_inside_a_body_is_not_one_if_no_element_follows() -> None:
    body = b"body" + FAKE
    frames = check(make, main_start() + start(5, "dirty-bitmap", body) + EOF)
    assert opaque(frames) == [body]


def test_footer_inside_a_body_is_refused_by_the_description() -> None:
    body = b"body" + footer(5) + SWITCHOVER + b"more"
    data = main_start() + SWITCHOVER + full(5, "timer", body)
    assert opaque(cut(make, data + EOF)) == [b"body"]
    data += description(("cpu", 3), ("timer", len(body)))
    frames = check(make, data)
    assert opaque(frames) == [body]
    assert kinds(frames)[-2:] == ["eof", "vmdescription"]


@pytest.mark.parametrize("lie", [0, 3, 5, 1 << 40])
def test_description_that_lies_is_not_followed(lie: int) -> None:
    data = main_start() + SWITCHOVER + full(5, "timer", b"body") + description(("timer", lie))
    assert opaque(check(make, data)) == [b"body"]


def test_description_kept_from_elsewhere() -> None:
    text = description(("timer", 9))[6:]

    def make_told(reader: Reader) -> MainFramer:
        return MainFramer(reader, CHANNEL, description=parse_vmdescription(text))

    body = footer(5) + SWITCHOVER[:4]
    data = main_start() + SWITCHOVER + full(5, "timer", body) + EOF
    assert opaque(check(make_told, data)) == [body]


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}"])
def test_description_that_is_none(text: bytes) -> None:
    tail = EOF + VmDescriptionHeader(length=len(text)).build() + text
    frames = check(make, main_start() + SWITCHOVER + full(5, "timer", b"body") + tail)
    assert opaque(frames) == [b"body"]
    assert frames[-1].data(frames[-1].payload) == text


def test_description_whose_header_shows_up_twice() -> None:
    body = bytes.fromhex("0006 00000000 0006 00ffffff")
    data = main_start() + SWITCHOVER + full(5, "timer", body) + description(("timer", len(body)))
    assert opaque(check(make, data)) == [body]


def test_no_wait_for_the_description_when_in_a_hurry() -> None:
    reader = Reader()
    framer = make(reader)
    generator = framer.frames()
    reader.feed(stretches(main_start() + SWITCHOVER + full(5, "timer", b"body") + SWITCHOVER)[0])
    given = [next(generator) for _ in range(5)]
    assert given[-1] is None
    assert framer.waiting_since == 1
    framer.hurry()
    body = next(generator)
    assert body is not None
    assert (body.kind, body.length) == (Kind.MAIN_OPAQUE, 4)
    assert framer.waiting_since is None


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "HOLD_LIMIT", 100)
    body = b"body" + footer(5) + SWITCHOVER + b"more"
    data = main_start() + SWITCHOVER + full(5, "timer", body) + SWITCHOVER * 50
    data += description(("timer", len(body)))
    assert opaque(run(make, stretches(data, range(0, len(data), 10)))) == [b"body"]
    endless = main_start() + start(5, "x", b"y" * 500)
    frames = run(make, stretches(endless, range(0, len(endless), 10)))
    assert kinds(frames)[2:] == ["section_start", "undecoded", "section_footer"]


def test_empty_body() -> None:
    frames = check(make, main_start() + full(5, "empty", b"") + EOF)
    assert kinds(frames)[2:] == ["section_full", "section_footer", "eof"]


def test_footers_off() -> None:
    header = SectionStart.parse_prefix(VFIO_START)[0].build()
    data = START + header + SETUP + VFIO_PART[:-5] + SWITCHOVER + VFIO_END[:-5] + EOF
    frames = check(make, data)
    assert kinds(frames) == [
        "header",
        "configuration",
        "section_start",
        "vfio.marker",
        "vfio.marker",
        "section_part",
        "vfio.marker",
        "vfio.marker",
        "command",
        "section_end",
        "vfio.marker",
        "eof",
    ]


def test_footers_off_and_then_one_all_the_same() -> None:
    header = SectionStart.parse_prefix(VFIO_START)[0].build()
    data = START + header + SETUP + VFIO_END[:-5] + SWITCHOVER + footer(0x21) + SWITCHOVER + EOF
    assert kinds(check(make, data))[-4:] == ["command", "section_footer", "command", "eof"]


def test_footers_off_with_a_description() -> None:
    header = SectionStart.parse_prefix(VFIO_START)[0].build()
    plain = full(5, "timer", b"body")[:-5]
    data = START + header + SETUP + VFIO_END[:-5] + plain + description(("timer", 4))
    assert opaque(check(make, data)) == [b"body"]


# Damage


def test_bytes_that_are_no_element() -> None:
    junk = b"\x55" * 9
    data = main_start() + SWITCHOVER + junk + start(5, "x", b"body") + start(6, "y", b"") + EOF
    frames = check(make, data)
    lost = [frame for frame in frames if frame.kind is Kind.UNDECODED]
    assert [frame.offset for frame in lost] == [len(main_start()) + 5]
    assert kinds(frames)[-4:] == ["section_footer", "section_start", "section_footer", "eof"]


def test_section_without_end() -> None:
    data = main_start() + start(5, "x", b"body")[:-5]
    frames = cut(make, data, reason=EndReason.CAPTURE)
    assert kinds(frames)[2:] == ["section_start", "undecoded"]
    assert frames[-1].reason == "the capture ends inside a section"


def test_gap_over_a_footer() -> None:
    data = START + VFIO_START + VFIO_PART + VFIO_END + EOF
    at = len(START + VFIO_START)
    hole = Hole(at - 3, at)
    frames = run(make, stretches(data, holes=[hole]))
    assert_accounts(frames, data, holes=[hole])
    assert [frame.value for frame in frames[-2:]] == [SectionFooter(section_id=0x21), None]


@pytest.mark.parametrize("cut_at", [3, 11, len(VFIO_START) + 1, len(VFIO_START + VFIO_PART) + 2])
def test_capture_that_begins_in_the_middle(cut_at: int) -> None:
    data = (VFIO_START + VFIO_PART + VFIO_PART + SWITCHOVER + VFIO_END + EOF)[cut_at:]
    frames = check(make_middle, data)
    assert frames[0].reason == "the stream's start is not captured"
    assert frames[1].kind is Kind.MAIN_SECTION_FOOTER
    assert kinds(frames)[-4:] == ["section_end", "vfio.marker", "section_footer", "eof"]


def test_sections_whose_start_is_lost() -> None:
    """What they are must show in their bodies."""
    data = SWITCHOVER[1:] + footer(9) + command(Command.PING, bytes(4))
    data += part(2, RAM_EOS) + part(0x21, device_data(b"abc") + END_OF_STATE)
    data += part(7, b"something else", end=True) + SWITCHOVER + EOF
    frames = check(make_middle, data)
    assert kinds(frames)[2:] == [
        "command",
        "section_part",
        "ram.record",
        "section_footer",
        "section_part",
        "vfio.marker",
        "vfio.marker",
        "section_footer",
        "section_end",
        "opaque",
        "section_footer",
        "command",
        "eof",
    ]


def test_section_id_that_no_source_reaches() -> None:
    data = part(1 << 16, RAM_EOS) + start(5, "x", b"")
    frames = check(make, main_start() + data + EOF)
    assert kinds(frames)[2:] == ["undecoded", "section_footer", "eof"]


# After the end


def test_bytes_behind_the_end() -> None:
    frames = check(make, main_start() + EOF + b"and then some")
    assert kinds(frames)[2:] == ["eof", "undecoded"]
    assert frames[-1].reason == "bytes behind the end of the stream"


def test_bytes_behind_the_description() -> None:
    frames = check(make, main_start() + description() + b"!")
    assert kinds(frames)[2:] == ["eof", "vmdescription", "undecoded"]


def test_description_that_claims_4_gib() -> None:
    data = main_start() + EOF + VmDescriptionHeader(length=0xFFFF_FFFF).build() + b"{"
    frame = cut(make, data)[-1]
    assert (frame.kind, frame.missing) == (Kind.MAIN_VMDESCRIPTION, 0xFFFF_FFFE)


# Behind a hole


def behind_hole(rest: bytes, *, hole: int = 9) -> list[Frame]:
    """Cut a stream that lacks as many bytes as a PING has, in front of ``rest``."""
    data = main_start() + start(2, "ram", RAM_EOS, version=4) + bytes(hole) + rest
    at = len(data) - len(rest)
    holes = [Hole(at - hole, at)]
    frames = run(make, stretches(data, holes=holes))
    assert_accounts(frames, data, holes=holes)
    # Wherever else the input is cut.
    assert run(make, stretches(data, range(at, len(data)), holes=holes)) == frames
    return frames[5:]


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        (command(Command.POSTCOPY_RUN), Kind.MAIN_COMMAND),
        (part(2, RAM_EOS), Kind.MAIN_SECTION_PART),
        (start(38, DEVICE, SETUP), Kind.MAIN_SECTION_START),
        (full(5, "timer", b"body"), Kind.MAIN_SECTION_FULL),
        (EOF, Kind.MAIN_EOF),
        (EOF + bytes.fromhex("06 00000002") + b"{}", Kind.MAIN_EOF),
        (footer(2) + EOF, Kind.MAIN_SECTION_FOOTER),
    ],
)
def test_element_right_behind_a_hole(rest: bytes, kind: Kind) -> None:
    frames = behind_hole(rest)
    assert [frame.kind for frame in frames[:2]] == [Kind.GAP, kind]
    assert Kind.UNDECODED not in {frame.kind for frame in frames}


@pytest.mark.parametrize(
    "rest",
    [
        bytes.fromhex("02 00000003"),
        bytes.fromhex("08 0063 0000"),
        bytes.fromhex("00 06 00000002") + b"xx",
        bytes.fromhex("00 06 000000"),
        bytes.fromhex("00 00"),
        bytes.fromhex("01 00000026"),
    ],
)
def test_what_does_not_look_like_an_element_behind_a_hole(rest: bytes) -> None:
    frames = behind_hole(rest)
    assert [frame.kind for frame in frames] == [Kind.GAP, Kind.UNDECODED]


def test_hole_that_tears_an_element() -> None:
    torn = command(Command.PING, bytes(4))
    data = main_start() + torn + SWITCHOVER + EOF
    at = data.index(SWITCHOVER)
    for size in range(1, len(torn)):
        frames = run(make, stretches(data, holes=[Hole(at - size, at)]))
        assert [frame.kind for frame in frames[-3:]][1:] == [Kind.MAIN_COMMAND, Kind.MAIN_EOF]
