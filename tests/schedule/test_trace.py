# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces: lanes, and the digest that names them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from mfdtool.loader.events import Connect, Deliver, DevicePacket
from mfdtool.loader.recording import Entry, Recording
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import parse_fault
from mfdtool.schedule.orders import order
from mfdtool.schedule.trace import is_sync, packet_of, token_of, trace_of
from mfdtool.workflows.replay import arriving
from tests.support.legitimate import interleaved, random_sent
from tests.support.vectors import observation, real_capture

CLEAN = "mtty-4ch-clean"


def test_lanes_of_a_real_capture() -> None:
    trace = observation(CLEAN).trace
    assert [(lane.name, lane.token) for lane in trace.lanes] == [
        ("multifd-2", "2"),
        ("multifd-1", "1"),
        ("multifd-0", "0"),
        ("multifd-3", "3"),
        ("main", "m"),
    ]
    assert sum(len(lane.entries) for lane in trace.lanes) == len(trace.recording.entries)
    assert all(isinstance(lane.entries[0].event, Connect) for lane in trace.lanes)
    assert [lane.is_main for lane in trace.lanes] == [False] * 4 + [True]
    packets = [packet_of(trace.entry(*place)) for place in trace.packets]
    assert sorted(found.idx or 0 for found in packets if found is not None) == [0, 1, 2, 3, 4, 5]
    assert sum(is_sync(entry) for lane in trace.lanes for entry in lane.entries) == 16


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("main", "m"),
        ("multifd-12", "12"),
        ("multifd-?1", "?1"),
        ("unknown-0", "u0"),
        ("tls-2", "t2"),
        ("preempt", "preempt"),
    ],
)
def test_tokens(name: str, token: str) -> None:
    assert token_of(name) == token


@pytest.mark.parametrize("seed", range(40))
def test_lanes_put_together_are_the_recording(seed: int) -> None:
    rng = random.Random(seed)
    recording = interleaved(rng, random_sent(rng))
    trace = trace_of(recording)
    places = [0] * len(trace.lanes)
    entries = []
    for lane in trace.observed:
        entries.append(trace.entry(lane, places[lane]))
        places[lane] += 1
    assert tuple(entries) == recording.entries
    assert places == [len(lane.entries) for lane in trace.lanes]


@pytest.mark.parametrize("name", ["reverse", "round-robin"])
def test_digest_does_not_depend_on_the_order_of_arrival_or_times(name: str) -> None:
    trace = observation(CLEAN).trace
    other = arriving(trace, order(trace, name))
    later = [replace(entry, time_ns=entry.time_ns + 5) for entry in other.entries]
    assert other.entries != trace.recording.entries
    assert trace_of(replace(other, entries=tuple(later))).digest == trace.digest


def changed(entry: Entry, **changes: Any) -> Recording:
    """Give the clean capture with one packet changed."""
    recording = real_capture(CLEAN)
    assert isinstance(entry.event, Deliver)
    assert isinstance(entry.event.item, DevicePacket)
    item = replace(entry.event.item, **changes)
    new = replace(entry, event=Deliver(entry.event.channel, item))
    entries = tuple(new if each is entry else each for each in recording.entries)
    return replace(recording, entries=entries)


@pytest.mark.parametrize(
    "changes",
    [
        {"idx": 9},
        {"flags": 2},
        {"version": 1},
        {"idstr": "0000:00:09.0/vfio"},
        {"instance_id": 1},
        {"next_packet_size": 29},
        {"packet_flags": 0x41},
    ],
)
def test_digest_depends_on_every_field(changes: dict[str, object]) -> None:
    trace = observation(CLEAN).trace
    entry = trace.entry(*trace.packets[2])
    assert trace_of(changed(entry, **changes)).digest != trace.digest
    assert trace_of(changed(entry)).digest == trace.digest


@pytest.mark.parametrize("text", ["drop:main#38", "corrupt:multifd-0#22:288+1", "drop:multifd-0#4"])
def test_faults_make_another_trace(text: str) -> None:
    recorded = observation(CLEAN)
    assert apply(recorded, [parse_fault(text)]).trace.digest != recorded.trace.digest


def test_digest_is_short_and_stays() -> None:
    assert observation(CLEAN).trace.digest == "d6fae27a86cb"
