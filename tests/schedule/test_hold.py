# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets that wait for others, also in orders that move packets and name threads' steps."""

from __future__ import annotations

from typing import Final

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.schedule.acts import Load, SetUp, Take
from mfdtool.schedule.address import parse_address
from mfdtool.schedule.apply import hold
from mfdtool.schedule.faults import Hold, parse_fault
from mfdtool.schedule.orders import order
from mfdtool.schedule.schedule import Schedule
from mfdtool.schedule.trace import Place
from tests.support.vectors import observation

NAME: Final = "mtty-4ch-clean"
DEVICE: Final = "dev=0000:00:05.0/vfio,idx="
SWITCHOVER: Final = "main#38"


def held(schedule: Schedule, text: str, *, name: str = NAME) -> Schedule:
    """Let one packet wait; what comes of it must still be an order of all packets."""
    found = observation(name)
    fault = parse_fault(text)
    assert isinstance(fault, Hold)
    after = hold(schedule, found.trace, found, [fault])
    after.check(found.trace)
    assert sorted(places(after), key=str) == sorted(places(schedule), key=str)
    return after


def places(schedule: Schedule) -> list[Place | None]:
    return list(schedule.places(observation(NAME).trace))


def place_of(channel: str, number: int) -> Place:
    for lane, found in enumerate(observation(NAME).trace.lanes):
        for place, entry in enumerate(found.entries):
            if (entry.channel, entry.number) == (channel, number):
                return lane, place
    raise AssertionError(f"{channel}#{number}")


def moved_to_front(packet: int, token: str) -> Schedule:
    """Give the recorded order with a packet moved: it is the first behind a handshake."""
    trace = observation(NAME).trace
    lane, place = trace.packets[packet]
    tokens = [trace.lanes[each].token for each in trace.observed]
    del tokens[[at for at, each in enumerate(trace.observed) if each == lane][place]]
    at = tokens.index(token) + 1
    takes = [Take(each) for each in tokens]
    return Schedule(trace.digest, acts=(*takes[:at], Take(token, packet), *takes[at:]))


def test_steps_of_threads_do_not_wait() -> None:
    trace = observation(NAME).trace
    takes = order(trace, "recorded").acts_on(trace)
    schedule = Schedule(trace.digest, acts=(SetUp(), *takes, Load(0)))
    acts = held(schedule, f"hold:{SWITCHOVER}:{DEVICE}5").acts
    assert acts is not None
    assert acts[0] == SetUp()
    assert acts[-1] == Load(0)
    assert acts[1:] != (*takes, Load(0))


def test_what_waits_goes_on_right_behind_what_it_waited_for() -> None:
    trace = observation(NAME).trace
    before = order(trace, "recorded")
    after = places(held(before, f"hold:{SWITCHOVER}:{DEVICE}4"))
    frame = parse_address(f"{DEVICE}4").resolve(observation(NAME))
    until = place_of(frame.channel.name, frame.number or 0)
    switchover = place_of("main", 38)
    assert places(before).index(switchover) < places(before).index(until)
    assert after.index(switchover) == after.index(until) + 1
    main = [place for place in after if place is not None and place[0] == switchover[0]]
    assert main == sorted(main)


def test_a_packet_that_is_moved_holds_its_new_channel() -> None:
    trace = observation(NAME).trace
    packet = trace.packets[0]
    token = next(lane.token for lane in trace.lanes if lane.token not in "m" + tokens_of(packet))
    channel = trace.entry(*packet).channel
    schedule = moved_to_front(0, token)
    text = f"hold:{channel}#{trace.entry(*packet).number}:main#20"
    after = held(schedule, text)
    found = places(after)
    until = found.index(place_of("main", 20))
    assert found[until + 1] == packet
    other = trace.by_token[token]
    assert [place for place in found[:until] if place is not None and place[0] == other] == [
        (other, 0)
    ]
    # The channel that it was recorded on does not wait.
    stays = [place for place in found if place and place[0] == packet[0] and place != packet]
    assert stays == sorted(stays)


def tokens_of(packet: Place) -> str:
    return observation(NAME).trace.lanes[packet[0]].token


def test_waiting_for_a_packet_that_is_moved() -> None:
    trace = observation(NAME).trace
    packet = trace.packets[0]
    token = next(lane.token for lane in trace.lanes if lane.token not in "m" + tokens_of(packet))
    entry = trace.entry(*packet)
    after = places(held(moved_to_front(0, token), f"hold:main#0:{entry.channel}#{entry.number}"))
    assert after.index(packet) < after.index(place_of("main", 1))


def test_places_behind_a_packet_that_left_their_channel() -> None:
    """They are counted without it, so that the one that was named is the one that waits."""
    trace = observation(NAME).trace
    packet = trace.packets[0]
    token = next(lane.token for lane in trace.lanes if lane.token not in "m" + tokens_of(packet))
    behind = trace.entry(packet[0], packet[1] + 1)
    last = observation(NAME).by_channel["main"][-1].number
    after = places(
        held(moved_to_front(0, token), f"hold:{behind.channel}#{behind.number}:main#{last}")
    )
    until = after.index(place_of("main", last or 0))
    waited = [place for place in after[until + 1 :] if place and place[0] == packet[0]]
    assert waited[0] == (packet[0], packet[1] + 1)
    assert (packet[0], packet[1] - 1) in after[:until]


def test_nobody_waits_for_what_is_behind_it() -> None:
    trace = observation(NAME).trace
    with pytest.raises(ScheduleError, match="behind the other in its channel"):
        held(order(trace, "recorded"), "hold:main#38:main#40")


def test_nobody_waits_for_what_came_already() -> None:
    trace = observation(NAME).trace
    schedule = Schedule(trace.digest, acts=order(trace, "recorded").acts_on(trace))
    assert held(schedule, "hold:main#40:main#38") == schedule


def test_what_the_destination_does_not_read_by_itself() -> None:
    """The END_OF_STATE behind DEV_SETUP_STATE is read together with it."""
    found = observation("mtty-main-stream-only")
    fault = parse_fault("hold:main#9:main#20")
    assert isinstance(fault, Hold)
    with pytest.raises(ScheduleError, match="main#9: the destination reads nothing there"):
        hold(Schedule(found.trace.digest), found.trace, found, [fault])
