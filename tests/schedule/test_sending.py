# SPDX-License-Identifier: GPL-2.0-or-later
"""Schedules as bytes: every byte of every channel is sent once, in its order."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from mfdtool.errors import SinkError
from mfdtool.loader.events import Connect, End
from mfdtool.schedule.acts import Load
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import parse_fault
from mfdtool.schedule.observation import Observation, observations_of
from mfdtool.schedule.orders import order
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.sending import Send, in_order_of_reading, sends, steps_of_threads
from mfdtool.schedule.trace import packet_of
from mfdtool.workflows.reading import Input, Reading
from tests.support.captures import CAPTURES

WHOLE = ("mtty-4ch-clean", "mtty-8ch-ipv6", "mtty-main-stream-only", "ram-zstd", "ram-return-path")
CLEAN = "mtty-4ch-clean"


@cache
def observed(name: str) -> Observation:
    """Give a capture's migration."""
    with Reading(Input(capture=str(CAPTURES / f"{name}.pcap.gz")), keep_extents=True) as reading:
        return observations_of(reading.frames(), reading.decoder.migrations)[0]


def streams(observation: Observation) -> dict[str, bytes]:
    """Give what each channel of the source carries."""
    return {
        name: b"".join(frame.data() for frame in frames)
        for name, frames in observation.by_channel.items()
        if name != "return-path"
    }


def by_channel(found: list[Send]) -> dict[str, bytes]:
    """Give what is sent on each channel."""
    sent: dict[str, bytes] = {}
    for send in found:
        sent[send.channel] = sent.get(send.channel, b"") + b"".join(send.parts)
    return sent


def recorded(observation: Observation) -> list[Send]:
    """Give what is sent in the order of the recording."""
    return list(sends(observation, Schedule(observation.trace.digest)))


@pytest.mark.parametrize("name", WHOLE)
def test_recorded_streams_are_sent_again(name: str) -> None:
    observation = observed(name)
    found = recorded(observation)
    assert by_channel(found) == streams(observation)
    assert [send.position for send in found] == list(range(len(found)))
    first = {send.channel: send for send in reversed(found)}
    assert all(send.opens for send in first.values())
    assert sum(send.opens for send in found) == len(first)


@pytest.mark.parametrize("name", ["reverse", "config-first", "round-robin", "last-first"])
def test_orders_keep_each_channel(name: str) -> None:
    observation = observed(CLEAN)
    found = list(sends(observation, order(observation.trace, name)))
    assert by_channel(found) == streams(observation)


def test_moved_packets_take_their_bytes_along() -> None:
    observation = observed(CLEAN)
    schedule = order(observation.trace, "reverse", reassign=True)
    assert schedule.moves_packets
    found = list(sends(observation, schedule))
    plain = {id(send.entry.event): b"".join(send.parts) for send in recorded(observation)}
    assert {id(send.entry.event): b"".join(send.parts) for send in found} == plain
    assert by_channel(found) != streams(observation)
    packets = [send for send in found if packet_of(send.entry) is not None]
    assert all(len(b"".join(send.parts)) > 288 for send in packets)


def test_channels_open_before_and_end_after_their_bytes() -> None:
    found = recorded(observed(CLEAN))
    (opening,) = (send for send in found if send.channel == "multifd-2" and send.opens)
    assert isinstance(opening.entry.event, Connect)
    assert len(b"".join(opening.parts)) == 64
    ends = [send for send in found if send.ends is not None]
    assert {send.channel for send in ends} == set(streams(observed(CLEAN)))
    assert all(isinstance(send.ends, End) and not send.parts for send in ends)


@pytest.mark.parametrize("length", [0, 5, 12, 40, 287, 288, 295])
def test_packets_that_are_cut_off(length: int) -> None:
    """Of a cut packet, what is there is sent; a whole one would be 296 bytes."""
    faults = [
        parse_fault(f"truncate:dev=0000:00:05.0,idx=4:{length}"),
        parse_fault("disconnect:dev=0000:00:05.0,idx=4"),
    ]
    before = observed(CLEAN)
    number = next(
        send.entry.number
        for send in recorded(before)
        if (packet := packet_of(send.entry)) is not None and packet.idx == 4
    )
    after = apply(before, faults)
    whole = streams(before)["multifd-2"]
    offset = next(
        frame.offset for frame in before.by_channel["multifd-2"] if frame.number == number
    )
    sent = by_channel(recorded(after))
    assert sent["multifd-2"] == whole[: offset + length]


@pytest.mark.parametrize("keep", [0, 1])
def test_holes_are_errors(keep: int) -> None:
    whole = observed(CLEAN)
    frames = list(whole.frames)
    place = next(place for place, frame in enumerate(frames) if frame.length > 4000)
    found = frames[place]
    kept = tuple(replace(each, view=each.view[:100]) for each in found.extents[:keep])
    frames[place] = replace(found, extents=kept)
    with pytest.raises(SinkError) as raised:
        recorded(Observation(whole.migration, tuple(frames)))
    assert str(raised.value) == (
        f"{found.channel.name}#{found.number}: {found.length - 100 * keep} bytes from offset"
        f" {found.offset + 100 * keep} on were not captured, so nothing behind them can be sent"
    )


def test_order_of_reading() -> None:
    found = recorded(observed(CLEAN))
    assert in_order_of_reading(found, ()) == found
    late = found[-3:]
    read = [send.entry for send in late]
    moved = in_order_of_reading(found, read)
    assert [send.entry for send in moved[:3]] == read
    assert [send.entry for send in moved[3:]] == [send.entry for send in found[:-3]]
    assert [send.position for send in moved] == list(range(len(found)))


def test_steps_of_threads_are_counted() -> None:
    digest = observed(CLEAN).trace.digest
    assert steps_of_threads(Schedule(digest)) == 0
    assert steps_of_threads(Schedule(digest, Pace.STEPS, (Load(0), Load(0)))) == 2
