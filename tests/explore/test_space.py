# SPDX-License-Identifier: GPL-2.0-or-later
"""What is possible, what decides nothing, and what has nothing to do with each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.count import count_orders, orders_in
from mfdtool.explore.search import Search, follow
from mfdtool.explore.shorten import shortened
from mfdtool.explore.space import Space
from mfdtool.explore.statics import Statics
from mfdtool.loader.blob import blob_of
from mfdtool.loader.destination import Destination
from mfdtool.loader.events import DevicePacket, End, Marker, RamPacket
from mfdtool.loader.moves import LoadPhase, MainPhase
from mfdtool.loader.state import Outcome
from mfdtool.schedule.trace import Trace, trace_of
from mfdtool.wire.constants import VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.explore.small import DEVICES, Lanes, destination, good_main, small_trace
from tests.support.playbook import SWITCHOVER, SYNC, packet

DONE = OutcomeClass(Outcome.COMPLETED)


def two_devices() -> tuple[Trace, Destination]:
    """Give two devices that share no channel."""
    lanes: Lanes = [
        [SYNC, packet(0)],
        [SYNC, packet(1, config=True)],
        [SYNC, packet(0, idstr=DEVICES[1])],
        [SYNC, packet(1, config=True, idstr=DEVICES[1])],
    ]
    return small_trace(good_main(), lanes), destination(4, 2)


def test_settling_goes_on_to_where_packets_decide() -> None:
    trace = small_trace(good_main(), [[SYNC, RamPacket(), packet(0, config=True), End()]])
    space = Space(trace, destination(1))
    node, made = space.start()
    assert made == (0, 1)
    settled, more = space.settle(node)
    assert settled.places == (8, 3)
    assert settled.state.main.phase is MainPhase.ELEMENT
    assert settled.state.devices[0].phase is LoadPhase.STARVED
    assert len(more) == 7 + 2 + 2 + 1
    assert [space.is_packet(settled, move) for move in space.moves(settled)] == [False, True]
    assert space.packets_read(settled) == 0
    assert space.settle(settled) == (settled, ())


def test_one_device_after_the_other() -> None:
    trace, dest = two_devices()
    space = Space(trace, dest)
    result = Search(space).run()
    assert result.witnesses.keys() == {DONE}
    assert space.has_separated
    assert count_orders(result.graph).explored == 4
    assert orders_in(trace) == 24
    space.separates = False
    whole = Search(space).run()
    assert count_orders(whole.graph).explored == 24
    assert whole.states > result.states


def test_nothing_is_separated_where_errors_are() -> None:
    trace, dest = two_devices()
    lanes: Lanes = [[SYNC, packet(0)], [SYNC, packet(0)], [SYNC, packet(0, idstr=DEVICES[1])]]
    trace = small_trace(good_main(), lanes)
    space = Space(trace, replace(dest, channels=3))
    result = Search(space).run()
    assert not space.separates
    assert {kind.rule for kind in result.witnesses} == {"idx-duplicate", "device-unfinished"}
    assert count_orders(result.graph).explored == 6


def test_paths_are_followed() -> None:
    trace, dest = two_devices()
    space = Space(trace, dest)
    result = Search(space).run()
    node, moves = follow(space, result.witnesses[DONE])
    assert node.state.outcome is Outcome.COMPLETED
    assert not space.moves(node)
    acts = [space.possible.act(move) for move in moves]
    assert acts.count(None) == 0
    short = shortened(space, [act for act in acts if act is not None], DONE)
    assert len(short) == len(trace.observed) + 4 + 2 * 4


def test_a_queue_limit_makes_load_threads_matter() -> None:
    lanes: Lanes = [[SYNC, packet(0, bytes(100)), packet(1, bytes(100)), packet(2, config=True)]]
    trace = small_trace(good_main(), lanes)
    size = sum(part.data.length for part in (packet(0, bytes(100)), packet(2, config=True)))
    late = PROFILES["10.2"]
    calm = destination(1, max_queued=size + 100, profile=late)
    assert Search(Space(trace, calm)).run().witnesses.keys() == {DONE}
    tight = destination(1, max_queued=size + 99, profile=late)
    assert not Statics(trace, tight).is_calm
    found = {kind.rule for kind in Search(Space(trace, tight)).run().witnesses}
    assert found == {"", "queue-limit", "device-unfinished"}


@pytest.mark.parametrize(
    ("packets", "is_regular"),
    [
        ([packet(0), packet(1, config=True)], True),
        ([packet(1)], True),
        ([], True),
        ([packet(0), packet(0)], False),
        ([packet(0, config=True), packet(1)], False),
        ([packet(0, config=True), packet(1, config=True)], False),
    ],
)
def test_regular_devices(packets: list[DevicePacket], *, is_regular: bool) -> None:
    trace = small_trace(good_main(), [[SYNC, *packets]])
    assert Statics(trace, destination(1)).is_regular == (is_regular,)


def test_main_streams_that_disturb_load_threads() -> None:
    lanes: Lanes = [[SYNC, packet(0, config=True)]]
    twice = good_main()
    twice.insert(-2, SWITCHOVER)
    assert Statics(small_trace(twice, lanes), destination(1)).is_regular == (False,)
    late = good_main()
    late.insert(-2, Marker(VFIOMarker.DEV_DATA_STATE, blob_of(b"late")))
    statics = Statics(small_trace(late, lanes), destination(1))
    assert statics.is_regular == (False,)
    assert statics.main_writes_from(8)
    assert not statics.main_writes_from(9)


def test_a_packet_is_known_by_its_device() -> None:
    lanes: Lanes = [[SYNC, packet(0), SYNC, packet(1, idstr="nobody/vfio")]]
    statics = Statics(small_trace(good_main(), lanes), destination(1))
    assert statics.devices_from(1, 0) == {0, -1}
    assert statics.devices_before_sync(1, 2) == {0}
    assert statics.devices_before_sync(1, 0) == frozenset()
    assert statics.devices_before_sync(1, 4) == {-1}
    assert statics.packets_before(1, 5) == 2


def test_lanes_without_a_connection_are_not_read() -> None:
    trace = small_trace(good_main(), [[SYNC, packet(0, config=True)]])
    entries = tuple(
        entry for entry in trace.recording.entries if entry.channel != "multifd-0" or entry.number
    )
    assert Space(trace, destination(1)).possible.connections() == [0, 1]
    cut = trace_of(replace(trace.recording, entries=entries))
    result = Search(Space(cut, destination(1))).run()
    assert [kind.rule for kind in result.witnesses] == ["channels-missing"]
