# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults carried out on a real recording, and what the destination makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.fixtures.segments import Network, transmit
from mfdtool.loader.assume import assume
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.state import Outcome
from mfdtool.packets import pcapng
from mfdtool.packets.values import Endpoint, FlowKey
from mfdtool.replay.driver import Run, replay
from mfdtool.schedule.address import address_of, parse_address
from mfdtool.schedule.apply import apply, check_together, hold
from mfdtool.schedule.faults import Fault, Hold, parse_fault
from mfdtool.schedule.observation import Observation, observations_of
from mfdtool.schedule.orders import order
from mfdtool.schedule.schedule import Schedule, parse_schedule
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.connections import FlowEvent, Opened, Opening, Window
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import End, EndReason, Gap, run_of
from mfdtool.wire import main_stream as wire
from mfdtool.wire.multifd import MultiFDInit, MultiFDPacket
from mfdtool.wire.vfio import DeviceStateHeader
from tests.support.captures import decode
from tests.support.script import Script
from tests.support.streams import EOF, command, device_packet, handshake, main_start
from tests.support.vectors import observation

NAME: Final = "mtty-4ch-clean"
DEVICE: Final = "dev=0000:00:05.0/vfio,idx="
SWITCHOVER: Final = "main#38"
INIT: Final = MultiFDInit(id=0)
HEADER: Final = wire.FileHeader().build() + wire.Configuration(name="pc").build()


def faults_of(*texts: str) -> list[Fault]:
    return [parse_fault(text) for text in texts]


def with_faults(*texts: str) -> Observation:
    return apply(observation(NAME), faults_of(*texts))


def run_with(*texts: str) -> Run:
    """Let the destination that the good recording went to have it with faults."""
    good = observation(NAME)
    destination, _ = assume(good.recording, DestinationOptions())
    faults = faults_of(*texts)
    bad = apply(good, faults)
    holds = [fault for fault in faults if isinstance(fault, Hold)]
    schedule = hold(Schedule(bad.trace.digest), bad.trace, bad, holds)
    return replay(bad.trace, destination, schedule)


def frame(found: Observation, channel: str, number: int) -> Frame:
    return found.by_channel[channel][number]


def test_without_faults_it_is_the_same() -> None:
    good = observation(NAME)
    assert apply(good, ()) is good
    assert apply(good, faults_of("hold:main#40:main#30")) is good


def test_a_fault_that_changes_nothing_gives_the_same_frames() -> None:
    good = observation(NAME)
    same = with_faults(f"set:{DEVICE}2:idx=2")
    assert same.trace.digest == good.trace.digest
    assert [(f.kind, f.channel, f.offset, f.record, f.value) for f in same.frames] == [
        (f.kind, f.channel, f.offset, f.record, f.value) for f in good.frames
    ]
    assert same.recording.entries == good.recording.entries


@pytest.mark.parametrize(
    ("texts", "outcome", "error", "rule"),
    [
        ((), "completed", None, None),
        ((f"drop:{DEVICE}2",), "stalled", None, "device-unfinished"),
        ((f"drop:{SWITCHOVER}",), "completed", None, "device-reset"),
        (
            (f"duplicate:{DEVICE}2",),
            "failed",
            "NAME: state buffer 2 already filled",
            "idx-duplicate",
        ),
        (
            (f"duplicate:{DEVICE}2:multifd-3",),
            "failed",
            "NAME: state buffer 2 already filled",
            "idx-duplicate",
        ),
        (
            (f"set:{DEVICE}5:flags=0",),
            "failed",
            "NAME: writing state buffer 5 failed: 12",
            "device-write",
        ),
        (
            (f"set:{DEVICE}2:instance_id=7",),
            "stalled",
            "Unknown idstr 0000:00:05.0/vfio or instance id 7 for load state buffer",
            "device-unknown",
        ),
        (
            (f"set:{DEVICE}2:next_packet_size=1000",),
            "stalled",
            "Unexpected end-of-file before all data were read",
            "packet-truncated",
        ),
        (("set:multifd-2#0:id=4",), "aborted", None, "channel-id-out-of-bounds"),
        (
            ("set:multifd-2#0:magic=4",),
            "failed",
            "failed to receive packet via multifd channel 0:"
            " multifd: received packet magic 4 expected 11223344",
            "handshake-magic",
        ),
        (
            (f"truncate:{DEVICE}0:276",),
            "stalled",
            None,
            "flush-without-sync",
        ),
        (("truncate:multifd-1#20:3",), "stalled", "packet magic 11223311, exp", "packet-magic"),
        ((f"duplicate:{SWITCHOVER}:multifd-1",), "stalled", "magic 8000b00, exp", "packet-magic"),
        ((f"disconnect:{DEVICE}0",), "stalled", None, "flush-without-sync"),
        (
            (f"set:{SWITCHOVER}:cmd=99",),
            "failed",
            "MIG_CMD 0x63 unknown (len 0x0)",
            "command-unknown",
        ),
        (
            ("drop:multifd-1#0",),
            "failed",
            "failed to receive packet via multifd channel 3: multifd: received uuid"
            " '00000001-0000-0000-0000-000000000000' and expected uuid"
            " '00000000-0000-0000-0000-000000000000' for channel 0",
            "handshake-uuid",
        ),
    ],
)
def test_consequences(
    texts: tuple[str, ...], outcome: str, error: str | None, rule: str | None
) -> None:
    run = run_with(*texts)
    names = [found.rule.name for found in run.findings]
    assert run.outcome is Outcome(outcome)
    if error is not None:
        assert error in (run.state.error or "") or error in run.stderr
    assert names == [] if rule is None and not texts else rule is None or rule in names


def test_several_faults_mean_the_original_packets() -> None:
    good = observation(NAME)
    bad = with_faults("drop:multifd-1#19", "set:multifd-1#21:idx=9")
    assert len(bad.frames) == len(good.frames) - 1
    idx = [getattr(found.value, "idx", None) for found in bad.by_channel["multifd-1"]]
    assert [value for value in idx if value is not None] == [9]


def test_corruption_is_of_the_named_bytes() -> None:
    before = frame(observation(NAME), "multifd-1", 19).data()
    inverted = frame(with_faults("corrupt:multifd-1#19:290+3"), "multifd-1", 19).data()
    assert inverted[:290] == before[:290]
    assert inverted[290:293] == bytes(byte ^ 0xFF for byte in before[290:293])
    assert inverted[293:] == before[293:]
    replaced = frame(with_faults("corrupt:multifd-1#19:290=0102"), "multifd-1", 19).data()
    assert replaced == before[:290] + b"\1\2" + before[292:]


def test_truncation_takes_bytes_out_of_the_stream() -> None:
    good, bad = observation(NAME), with_faults("truncate:multifd-1#19:200")
    lengths = {
        channel.name: channel.stream.length
        for found in (good, bad)
        for channel in found.migration.channels
    }
    assert lengths["multifd-1"] == good.by_channel["multifd-1"][-1].end - 104


def test_a_copy_elsewhere_arrives_at_the_same_time() -> None:
    bad = with_faults("duplicate:multifd-1#19:multifd-3")
    (copy,) = [
        found
        for found in bad.by_channel["multifd-3"]
        if found.kind is Kind.MULTIFD_DEVICE_STATE and getattr(found.value, "idx", None) == 0
    ]
    original = frame(bad, "multifd-1", 19)
    assert copy.value == original.value
    assert copy.data() == original.data()
    after = bad.by_channel["multifd-3"][(copy.number or 0) + 1]
    assert original.record <= after.record


def test_a_copy_behind_all_else_on_its_channel() -> None:
    bad = with_faults("duplicate:multifd-0#22:multifd-1")
    *before, copy = bad.by_channel["multifd-1"]
    original = frame(bad, "multifd-0", 22)
    assert (copy.number, getattr(copy.value, "idx", None)) == (22, 2)
    assert [f.value for f in before] == [f.value for f in observation(NAME).by_channel["multifd-1"]]
    assert copy.record == original.record
    entries = [(entry.channel, entry.number) for entry in bad.recording.entries]
    assert entries.index(("multifd-1", 22)) < entries.index(("multifd-1", None))


def test_a_copy_on_a_channel_that_had_ended_ends_it_later() -> None:
    script = Script()
    main = script.connect(data=HEADER)
    short = script.connect(data=INIT.build())
    other = script.connect(data=replace(INIT, id=1).build())
    script.close(short)
    script.send(other, MultiFDPacket(flags=1, packet_num=0).build())
    script.close(other)
    script.close(main)
    decoder = Decoder(keep_extents=True)
    frames = script.play(decoder)
    (good,) = observations_of(frames, decoder.migrations)
    bad = apply(good, faults_of("duplicate:multifd-1#1:multifd-0"))
    entries = [(entry.channel, entry.number) for entry in bad.recording.entries]
    copy, end = entries.index(("multifd-0", 1)), entries.index(("multifd-0", None))
    assert entries.index(("multifd-1", 0)) < copy < end


def test_a_held_packet_takes_along_what_is_behind_it() -> None:
    good = observation(NAME)
    trace = good.trace
    fault = parse_fault(f"hold:{DEVICE}5:{DEVICE}2")
    assert isinstance(fault, Hold)
    schedule = hold(order(trace, "recorded"), trace, good, [fault])
    schedule.check(trace)
    arrived = [
        (entry.channel, entry.number) for _, entry in schedule.arrivals(trace) if entry is not None
    ]
    assert arrived.index(("multifd-0", 22)) < arrived.index(("multifd-3", 26))
    assert sorted(arrived, key=str) == sorted(
        ((entry.channel, entry.number) for entry in good.recording.entries), key=str
    )
    assert run_with(str(fault)).outcome is Outcome.COMPLETED


def holds_of(*texts: str) -> list[Hold]:
    return [fault for fault in faults_of(*texts) if isinstance(fault, Hold)]


def held(schedule: Schedule, *texts: str) -> list[tuple[str, int | None]]:
    """Give what arrives with holds: the channel that it was recorded on, and its number there."""
    good = observation(NAME)
    changed = hold(schedule, good.trace, good, holds_of(*texts))
    names = {id(entry.event): (entry.channel, entry.number) for entry in good.recording.entries}
    return [names[id(entry.event)] for _, entry in changed.arrivals(good.trace) if entry]


@pytest.mark.parametrize(
    ("packet", "until"), [(f"{DEVICE}1", f"{DEVICE}5"), (f"{DEVICE}4", f"{DEVICE}2")]
)
def test_a_moved_packet_can_be_held(packet: str, until: str) -> None:
    good = observation(NAME)
    schedule = order(good.trace, "reverse", reassign=True)
    assert schedule.moves_packets
    first, second = (
        (frame.channel.name, frame.number)
        for frame in (parse_address(text).resolve(good) for text in (packet, until))
    )
    before = held(schedule)
    assert before.index(first) < before.index(second)
    after = held(schedule, f"hold:{packet}:{until}")
    assert after.index(second) < after.index(first)
    assert sorted(after, key=str) == sorted(before, key=str)


def test_what_is_behind_a_moved_packet_waits_in_its_new_channel() -> None:
    good = observation(NAME)
    schedule = parse_schedule(f"mfd1:{good.trace.digest}:observed:0,0@0,0,1,1")
    after = held(schedule, "hold:multifd-1#19:multifd-1#0")
    assert after == [
        ("multifd-0", 0),
        ("multifd-1", 0),
        ("multifd-1", 19),
        ("multifd-0", 1),
        ("multifd-1", 1),
    ]


@pytest.mark.parametrize("step", [1, -1])
def test_holds_may_depend_on_each_other(step: int) -> None:
    texts = [
        f"hold:{SWITCHOVER}:{DEVICE}3",
        f"hold:{DEVICE}3:{DEVICE}5",
        f"hold:{DEVICE}5:{DEVICE}2",
    ]
    after = held(Schedule(observation(NAME).trace.digest), *texts[::step])
    places = [
        after.index(name)
        for name in [("multifd-0", 22), ("multifd-3", 26), ("multifd-1", 21), ("main", 38)]
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("acts", "texts", "complaint"),
    [
        (
            "recorded",
            (f"hold:{DEVICE}0:{DEVICE}1", f"hold:{DEVICE}1:{DEVICE}0"),
            f"{DEVICE}1, hold:{DEVICE}1:{DEVICE}0: these packets wait for each other",
        ),
        (
            "recorded",
            (f"hold:{DEVICE}0:{DEVICE}1", "hold:multifd-2#20:multifd-1#20"),
            "these packets wait for each other",
        ),
        ("0,1", ("hold:multifd-1#0:multifd-2#0",), "multifd-2#0 does not arrive in this order"),
        ("0,1", ("hold:multifd-2#0:multifd-1#0",), "multifd-2#0 does not arrive in this order"),
        ("1,0@0", ("hold:multifd-1#19:multifd-1#19",), "behind the other in its channel"),
    ],
)
def test_holds_that_cannot_be_kept(acts: str, texts: tuple[str, ...], complaint: str) -> None:
    schedule = parse_schedule(f"mfd1:{observation(NAME).trace.digest}:observed:{acts}")
    with pytest.raises(ScheduleError) as raised:
        held(schedule, *texts)
    assert complaint in str(raised.value)


def test_holding_the_switchover_back_until_the_packets_are_there() -> None:
    run = run_with(f"hold:{SWITCHOVER}:{DEVICE}4")
    assert run.outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("drop:multifd-9#1", "there is no channel multifd-9 (there are multifd-2, "),
        ("drop:multifd-2#999", "there is no packet multifd-2#999"),
        (f"drop:{DEVICE}77", "there is no packet dev=0000:00:05.0/vfio,idx=77"),
        (f"drop:{DEVICE}2,nth=2", "nth=2"),
        ("duplicate:multifd-2#14:multifd-9", "there is no channel multifd-9"),
        ("corrupt:multifd-1#19:300+400", "the packet has only 304 bytes"),
        ("truncate:multifd-1#19:400", "the packet has only 304 bytes"),
        ("set:multifd-1#19:colour=1", "multifd-1#19 has no field 'colour'; it has magic, "),
        ("set:multifd-1#19:idx=x", "'x' is no value of idx"),
        ("set:multifd-1#19:idx=-1", "'-1' is no value of idx: it does not fit"),
        ("set:multifd-1#19:idx=0x100000000", "'0x100000000' is no value of idx"),
        ("set:main#141:idx=1", "has no field 'idx'"),
    ],
)
def test_what_cannot_be_done(text: str, complaint: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        with_faults(text)
    assert complaint in str(raised.value)


@pytest.mark.parametrize("device", ["0000:00:05.0/vfio", "0000:00:05.0", "00:05.0/vfio", "00:05.0"])
def test_a_device_is_named_as_everywhere(device: str) -> None:
    found = parse_address(f"dev={device},idx=2").resolve(observation(NAME))
    assert str(address_of(found)) == "multifd-0#22"


@pytest.mark.parametrize("device", ["0000:00:05", "0001:00:05.0", "5.0", "vfio"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ScheduleError, match=f"there is no packet dev={device},idx=2"):
        parse_address(f"dev={device},idx=2").resolve(observation(NAME))


@pytest.mark.parametrize(
    ("texts", "void"),
    [
        ((f"drop:{DEVICE}3", f"set:{DEVICE}3:idx=4"), f"set:{DEVICE}3:idx=4"),
        ((f"set:{DEVICE}3:idx=4", f"drop:{DEVICE}3"), f"set:{DEVICE}3:idx=4"),
        (("drop:multifd-1#21", f"drop:{DEVICE}3"), "drop:multifd-1#21"),
        (("drop:multifd-1#21", "duplicate:multifd-1#21"), "duplicate:multifd-1#21"),
        (("disconnect:multifd-1#19", "disconnect:multifd-1#21"), "disconnect:multifd-1#21"),
        (("disconnect:multifd-1#21", "disconnect:multifd-1#19"), "disconnect:multifd-1#21"),
        (("disconnect:multifd-1#19", "disconnect:multifd-1#19:rst"), "disconnect:multifd-1#19:rst"),
        (("disconnect:multifd-1#19", "drop:multifd-1#21"), "drop:multifd-1#21"),
        (("disconnect:multifd-1#0", f"duplicate:{DEVICE}5:multifd-1"), "duplicate:"),
        ((f"set:{DEVICE}3:idx=4", f"set:{DEVICE}3:idx=7"), f"set:{DEVICE}3:idx=4"),
        ((f"corrupt:{DEVICE}3:290+4", f"truncate:{DEVICE}3:290"), f"corrupt:{DEVICE}3:290+4"),
    ],
)
def test_a_fault_that_others_make_void_is_refused(texts: tuple[str, ...], void: str) -> None:
    good = observation(NAME)
    with pytest.raises(ScheduleError) as raised:
        check_together(good, faults_of(*texts))
    assert str(raised.value).startswith(void)
    assert str(raised.value).endswith("with the other faults it changes nothing")


@pytest.mark.parametrize(
    "texts",
    [
        (),
        (f"set:{DEVICE}3:idx=3",),
        (f"drop:{DEVICE}3", f"hold:{DEVICE}5:{DEVICE}4", f"hold:{DEVICE}5:{DEVICE}4"),
        (f"drop:{DEVICE}3", f"duplicate:{DEVICE}3:multifd-0"),
        (f"drop:{DEVICE}3", f"set:{DEVICE}3:idx=9", f"duplicate:{DEVICE}3:multifd-0"),
        (f"duplicate:{DEVICE}3", f"duplicate:{DEVICE}3"),
        (f"set:{DEVICE}3:idx=4", f"set:{DEVICE}3:flags=1", f"corrupt:{DEVICE}3:290+4"),
        ("drop:multifd-1#21", "disconnect:multifd-1#21"),
        ("disconnect:multifd-1#21", "disconnect:multifd-2#23"),
        ("set:main#7:idstr=longer-than-it-was-before", "corrupt:main#7:36+1"),
    ],
)
def test_faults_that_have_their_effect_together(texts: tuple[str, ...]) -> None:
    check_together(observation(NAME), faults_of(*texts))


def test_a_channel_ends_at_the_first_of_its_ends() -> None:
    for texts in (("19", "21"), ("21", "19")):
        bad = with_faults(*(f"disconnect:multifd-1#{number}" for number in texts))
        assert bad.by_channel["multifd-1"][-1].number == 19


def test_a_packet_cannot_wait_for_what_is_behind_it() -> None:
    good = observation(NAME)
    fault = Hold(parse_address("main#38"), parse_address("main#40"))
    with pytest.raises(ScheduleError, match="behind the other in its channel"):
        hold(order(good.trace, "recorded"), good.trace, good, [fault])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("set:multifd-1#19:idstr=other/vfio", "multifd-1#19"),
        ("set:multifd-2#0:uuid=00112233445566778899aabbccddeeff", "multifd-2#0"),
        ("set:multifd-2#1:packet_num=77", "multifd-2#1"),
        ("set:main#0:version=4", "main#0"),
        ("set:main#38:payload_length=3", "main#38"),
    ],
)
def test_any_header_can_be_changed(text: str, kind: str) -> None:
    field, _, value = text.rpartition(":")[2].partition("=")
    bad = with_faults(text)
    channel, _, number = kind.partition("#")
    changed = frame(bad, channel, int(number)).value
    name = {"payload_length": "len"}.get(field, field)
    found = getattr(changed, name, None)
    if found is None:
        found = getattr(getattr(changed, "header", None), name, None)
    if isinstance(found, bytes):
        assert found in {
            value.encode().ljust(256, b"\0"),
            bytes.fromhex("00112233445566778899aabbccddeeff"),
        }
    else:
        assert found == int(value)


def test_faults_of_one_packet_add_up() -> None:
    bad = with_faults(
        f"set:{DEVICE}2:idx=9", "set:multifd-0#22:flags=0", "corrupt:multifd-0#22:0=01"
    )
    (found,) = [each for each in bad.by_channel["multifd-0"] if each.number == 22]
    assert found.kind is Kind.UNDECODED
    bad = with_faults(f"set:{DEVICE}2:idx=9", "set:multifd-0#22:instance_id=3")
    value = frame(bad, "multifd-0", 22).value
    assert isinstance(value, DeviceStateHeader)
    assert (value.idx, value.instance_id) == (9, 3)


def test_a_recording_without_a_multifd_channel_can_have_faults() -> None:
    good = observation("mtty-main-stream-only")
    assert len(apply(good, faults_of("drop:main#20")).frames) < len(good.frames)


# Streams that came as files.


def streams(*contents: tuple[ChannelKind, bytes]) -> Observation:
    """Decode streams as they are read from files, without records and times."""
    decoder = Decoder(keep_extents=True)
    for kind, data in contents:
        decoder.add(kind, run_of(data))
    (found,) = observations_of(decoder.finish(), decoder.migrations)
    return found


MAIN: Final = main_start() + command(1) + command(2, bytes(4)) + EOF
MULTIFD: Final = handshake() + device_packet(0) + device_packet(1)


def shape(found: Observation) -> list[tuple[str, Kind, int]]:
    return [(each.channel.name, each.kind, each.length) for each in found.frames]


def test_streams_from_files() -> None:
    good = streams((ChannelKind.MAIN, MAIN), (ChannelKind.MULTIFD, MULTIFD))
    bad = apply(good, faults_of("drop:main#3", "set:multifd-0#2:idx=7"))
    assert shape(bad) == [each for at, each in enumerate(shape(good)) if at != 3]
    assert bad.by_channel["main"][3].data() == EOF
    value = bad.by_channel["multifd-0"][2].value
    assert isinstance(value, DeviceStateHeader)
    assert value.idx == 7
    assert {each.record for each in bad.frames} == {0}


def test_a_multifd_stream_alone() -> None:
    good = streams((ChannelKind.MULTIFD, MULTIFD))
    bad = apply(good, faults_of("duplicate:multifd-0#1"))
    assert [each.data() for each in bad.frames] == [
        handshake(),
        device_packet(0),
        device_packet(0),
        device_packet(1),
    ]


# Captures that lack something.


def holed(*, lost: tuple[int, int], ends: bool = True) -> Observation:
    """Give a capture that lacks some bytes of a multifd stream, or its end."""
    decoder = Decoder(keep_extents=True)
    low, high = lost
    key = FlowKey(Endpoint(bytes(4), 40000), Endpoint(bytes(4), 4444))
    events = (
        Opened(key, Opening.SYN, 1, 10),
        run_of(MULTIFD[:low], record=2, time_ns=20),
        Gap(low, high, "segment missing"),
        run_of(MULTIFD[high:], start=high, record=3, time_ns=30),
        *((End(len(MULTIFD), EndReason.FIN, 4, 40),) if ends else ()),
    )
    frames = decoder.feed(Window(tuple(FlowEvent(0, each) for each in events), 4, None))
    (found,) = observations_of(frames + decoder.finish(), decoder.migrations)
    return found


INSIDE: Final = (64 + 288, 64 + 291)
"""Places inside the first device packet of `MULTIFD`."""


def test_what_is_missing_stays_missing() -> None:
    good = holed(lost=INSIDE)
    first = good.by_channel["multifd-0"][1]
    assert (first.kind, first.missing) == (Kind.MULTIFD_DEVICE_STATE, 3)
    bad = apply(good, faults_of("set:multifd-0#2:idx=5"))
    assert shape(bad) == shape(good)
    assert bad.by_channel["multifd-0"][1].missing == 3
    copied = apply(good, faults_of("duplicate:multifd-0#1"))
    assert [each.missing for each in copied.frames if each.kind is first.kind] == [3, 3, 0]


@pytest.mark.parametrize("seed", range(12))
def test_a_capture_with_losses_keeps_them_where_they_are(seed: int) -> None:
    """Each channel in turn gets a byte that it has already: nothing else may change."""
    device = Device(buffers=tuple(bytes(number + 50) for number in range(40)))
    network = Network(segment_size=200, lost=0.03)
    migration = assemble(Plan(devices=(device,)))
    view = memoryview(pcapng_bytes(transmit(migration, network, random.Random(seed))))
    decoder, frames = decode(view, pcapng.read(view), keeps=True)
    (good,) = observations_of(frames, decoder.migrations)
    assert {each.missing > 0 for each in good.frames} == {True, False}
    for name, found in good.by_channel.items():
        whole = next(each for each in found if each.complete and each.number is not None)
        text = f"corrupt:{name}#{whole.number}:0={whole.data()[0]:02x}"
        bad = apply(good, faults_of(text))
        for other, expected in good.by_channel.items():
            assert places_in(bad.by_channel[other]) == places_in(expected), (name, other)


def places_in(frames: Sequence[Frame]) -> list[tuple[Kind, int, int, int]]:
    return sorted((each.kind, each.offset, each.length, each.missing) for each in frames)


def test_what_is_missing_at_the_end_of_a_packet() -> None:
    size = len(device_packet(0))
    good = holed(lost=(64 + size - 2, 64 + size))
    bad = apply(good, faults_of("duplicate:multifd-0#1"))
    assert [each.missing for each in bad.frames if each.kind is Kind.MULTIFD_DEVICE_STATE] == [
        2,
        2,
        0,
    ]


@pytest.mark.parametrize("fault", ["set:multifd-0#1:idx=5", "corrupt:multifd-0#1:0+1"])
def test_what_is_not_whole_is_not_changed(fault: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        apply(holed(lost=INSIDE), faults_of(fault))
    assert str(raised.value) == ("multifd-0#1 is not whole in the capture, so it cannot be changed")


def test_an_end_that_was_not_captured_is_not_made_up() -> None:
    good = holed(lost=INSIDE, ends=False)
    (channel,) = apply(good, faults_of("drop:multifd-0#2")).migration.channels
    assert channel.stream.end is None
    (channel,) = apply(good, faults_of("disconnect:multifd-0#1")).migration.channels
    assert channel.stream.end is not None
    assert channel.stream.end.reason is EndReason.FIN


def test_a_packet_of_which_nothing_is_left() -> None:
    good = holed(lost=INSIDE)
    cut, dropped = (apply(good, faults_of(f"{text}")) for text in CUT_AWAY)
    assert shape(cut) == shape(dropped) == shape(good)[:3]


CUT_AWAY: Final = ("truncate:multifd-0#2:0", "drop:multifd-0#2")


def test_nothing_is_left() -> None:
    with pytest.raises(ScheduleError, match="with these faults nothing is left of the migration"):
        apply(holed(lost=INSIDE), faults_of("set:multifd-0#0:magic=4"))
