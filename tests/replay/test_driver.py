# SPDX-License-Identifier: GPL-2.0-or-later
"""Driving the model: order, pace, and what is made of its commands."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mfdtool.loader.blob import Blob
from mfdtool.loader.events import Connect, Deliver, DevicePacket, End, Eof, FileHeader, Handshake
from mfdtool.loader.recording import Entry, Recording
from mfdtool.loader.state import Outcome
from mfdtool.replay.driver import PAUSE_NS, Priority, drive
from mfdtool.schedule.schedule import Pace
from tests.replay.test_vectors import idx_list, run_vector
from tests.support.legitimate import interleaved, random_sent
from tests.support.playbook import DESTINATION
from tests.support.vectors import vector


def timed(recording: Recording, step: int) -> Recording:
    """Let items arrive at equal distances."""
    entries = [
        replace(entry, time_ns=number * step) for number, entry in enumerate(recording.entries)
    ]
    return replace(recording, entries=tuple(entries))


def test_load_threads_catch_up_in_a_pause_that_is_believable() -> None:
    recording = vector("r007")
    destination = run_vector("r007")[1]
    slow = timed(replace(recording, is_whole=True), PAUSE_NS)
    assert drive(slow, destination).outcome is Outcome.FAILED
    fast = timed(replace(recording, is_whole=True), PAUSE_NS - 1)
    assert drive(fast, destination).outcome is Outcome.STALLED
    assert drive(timed(recording, PAUSE_NS), destination).outcome is Outcome.STALLED


def test_held_load_threads_run_at_the_end() -> None:
    run, _ = run_vector("v01-inorder", Pace.HELD)
    names = [trace.name for trace in run.traces]
    last_incoming = max(at for at, name in enumerate(names) if name.endswith("buffer_incoming"))
    assert names.index("vfio_load_bufs_thread_start") > last_incoming
    assert idx_list(run, "load_end") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("priority", list(Priority))
def test_capture_without_ends_completes_all_the_same(priority: Priority) -> None:
    sent = random_sent(random.Random(4))
    recording = interleaved(random.Random(4), sent)
    entries = tuple(
        entry
        for entry in recording.entries
        if not (isinstance(entry.event, Deliver) and isinstance(entry.event.item, End))
    )
    run = drive(replace(recording, entries=entries), sent.destination, priority=priority)
    assert run.outcome is Outcome.COMPLETED


def test_capture_that_ends_early_is_said_to() -> None:
    entries = (Entry(Connect(FileHeader()), "main"), Entry(Connect(Handshake(0)), "multifd-0"))
    run = drive(Recording(entries=entries), replace(DESTINATION, channels=1))
    assert run.outcome is Outcome.STALLED
    assert [found.rule.name for found in run.findings] == ["capture-ends"]


def test_description_that_was_not_captured_is_not_missed() -> None:
    sent = random_sent(random.Random(9))
    recording = interleaved(random.Random(9), sent)
    entries = []
    for entry in recording.entries:
        entries.append(entry)
        if isinstance(entry.event, Deliver) and isinstance(entry.event.item, Eof):
            break
    rest = recording.entries[len(entries) :]
    others = tuple(entry for entry in rest if entry.channel != "main")
    run = drive(replace(recording, entries=(*entries, *others)), sent.destination)
    assert (run.outcome, run.stderr) == (Outcome.COMPLETED, [])


def without_bytes(entry: Entry) -> Entry:
    """Take the bytes of a data packet away."""
    event = entry.event
    if not isinstance(event, Deliver) or not isinstance(event.item, DevicePacket):
        return entry
    data = event.item.data
    lost = replace(event.item, data=Blob(data.length, data.key, missing=data.length))
    return replace(entry, event=Deliver(event.channel, lost))


def test_bytes_that_are_not_known_have_no_digest() -> None:
    sent = random_sent(random.Random(2))
    recording = interleaved(random.Random(2), sent)
    entries = tuple(map(without_bytes, recording.entries))
    run = drive(replace(recording, entries=entries), sent.destination)
    assert run.outcome is Outcome.COMPLETED
    assert [written.size for written in run.written] == [len(data) for data in sent.data]
    assert {written.sha256 for written in run.written} == {None}


def test_findings_point_to_the_packet_that_is_to_blame() -> None:
    run, _ = run_vector("v14-config-bad-marker", Pace.HELD)
    (bad,) = [found for found in run.findings if found.rule.name == "config-marker"]
    assert (bad.channel, bad.number, bad.device) == ("multifd-1", 19, "0000:00:05.0/vfio")
    (unknown,) = [
        found
        for found in run_vector("v12-unknown-idstr")[0].findings
        if found.rule.name == "device-unknown"
    ]
    assert unknown.device == "0000:00:09.0/vfio"


def test_without_digests_no_payload_is_touched() -> None:
    destination = run_vector("v01-inorder")[1]
    run = drive(vector("v01-inorder"), destination, digests=False)
    assert run.outcome is Outcome.COMPLETED
    assert run.written[0].size == 0
