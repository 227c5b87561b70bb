# SPDX-License-Identifier: GPL-2.0-or-later
"""The model asks, a sink answers: what it says counts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from mfdtool.loader.blob import Blob
from mfdtool.loader.errno import EFAULT, strerror
from mfdtool.loader.events import MAIN, Deliver, Step, Unknown, loader
from mfdtool.loader.moves import LoadPhase
from mfdtool.loader.state import Outcome
from mfdtool.loader.turn import PendingWrite
from mfdtool.replay.driver import Moment, Run, replay
from mfdtool.replay.sink import Order
from mfdtool.schedule.acts import Load, SetUp, Take
from mfdtool.schedule.orders import ORDERS, order
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.trace import token_of, trace_of
from tests.replay.test_vectors import run_vector
from tests.support.legitimate import interleaved, random_sent
from tests.support.playbook import Playbook, packet, with_device
from tests.support.vectors import vector

ENOSPC = 28


@dataclass
class Memory:
    """A sink that keeps what it gets, and refuses some of it."""

    devices: frozenset[int] = frozenset(range(8))
    errors: dict[int | None, int] = field(default_factory=dict)
    got: dict[int, bytes] = field(default_factory=dict)
    calls: list[tuple[int, int | None]] = field(default_factory=list)
    name: str = "memory"
    order: Order = Order.EXACT
    failure: str = ""
    notes: tuple[str, ...] = ()

    def write(self, device: int, idx: int | None, data: Blob) -> int | None:
        """Keep bytes."""
        if device not in self.devices:
            return None
        self.calls.append((device, idx))
        if errno := self.errors.get(idx):
            return errno
        self.got[device] = self.got.get(device, b"") + b"".join(data.pieces())
        return 0

    def finish(self, outcome: Outcome | None) -> Mapping[int, bool]:
        """Know nothing."""
        return {}


def into(name: str, sink: Memory) -> Run:
    """Replay a vector into a sink."""
    destination = run_vector(name)[1]
    trace = trace_of(vector(name))
    return replay(trace, destination, Schedule(trace.digest), sink=sink)


@pytest.mark.parametrize("seed", range(60))
def test_sinks_get_the_same_bytes_in_every_order(seed: int) -> None:
    rng = random.Random(seed)
    sent = random_sent(rng)
    trace = trace_of(interleaved(rng, sent))
    for pace in (Pace.OBSERVED, Pace.EAGER, Pace.HELD):
        sink = Memory()
        schedule = order(trace, rng.choice([*ORDERS, "round-robin", "recorded"]), pace=pace)
        run = replay(trace, sent.destination, schedule, sink=sink)
        assert run.outcome is Outcome.COMPLETED
        assert [sink.got.get(number, b"") for number in range(len(sent.data))] == list(sent.data)


def test_refused_buffer_fails_the_migration_with_its_errno() -> None:
    sink = Memory(errors={3: ENOSPC})
    run = into("v01-inorder", sink)
    assert run.outcome is Outcome.FAILED
    assert run.stderr == ["NAME: writing state buffer 3 failed: 28"]
    assert sink.calls == [(0, None)] * 2 + [(0, 0), (0, 1), (0, 2), (0, 3)]
    (found,) = [found for found in run.findings if found.rule.name == "device-write"]
    assert found.message == "write of buffer 3 failed: errno 28 (No space left on device)"
    assert (found.channel, found.number) == ("multifd-3", 23)


def test_refused_data_of_the_main_stream_fails_at_once() -> None:
    sink = Memory(errors={None: ENOSPC})
    run = into("v01-inorder", sink)
    assert run.outcome is Outcome.FAILED
    assert run.stderr[-1] == "load of migration failed: No space left on device"
    assert sink.calls == [(0, None)]


def test_a_real_device_may_take_what_the_model_would_not() -> None:
    run, destination = run_vector("v30-wrong-device-type")
    assert run.outcome is Outcome.FAILED
    sink = Memory()
    trace = trace_of(vector("v30-wrong-device-type"))
    taken = replay(trace, destination, Schedule(trace.digest), sink=sink)
    assert taken.stderr != run.stderr
    assert len(sink.got[0]) == 96
    refused = replay(trace, destination, Schedule(trace.digest), sink=Memory(frozenset()))
    assert (refused.outcome, refused.stderr) == (run.outcome, run.stderr)


def test_write_in_progress_is_finished_by_the_cleanup() -> None:
    play = Playbook().switch_over().receive(0, packet(0, b"abc")).step()
    assert play.phase is LoadPhase.WRITING
    bad = Deliver(None, Unknown(b"\xee"))
    (pending,) = play.loader.pending_writes(play.state, bad)
    assert (pending.device, pending.idx) == (0, 0)
    assert play.loader.pending_writes(play.state, bad, {pending: 0}) == ()
    answers = {pending: EFAULT}
    state, commands = play.loader.step(play.state, bad, answers)
    assert (state.outcome, state.devices[0].buffers) == (Outcome.FAILED, 0)
    assert "device-write" in [getattr(command, "rule", "") for command in commands]


def test_events_that_write_nothing_have_no_pending_writes() -> None:
    play = Playbook().switch_over()
    assert play.loader.pending_writes(play.state, Step(loader(0))) == ()
    play.receive(0, packet(0, b"abc"))
    assert play.loader.pending_writes(play.state, Step(loader(0))) == ()
    play.step()
    (pending,) = play.loader.pending_writes(play.state, Step(loader(0)))
    assert pending == PendingWrite(0, 0, pending.data)
    assert bytes(pending.data.head(9)) == b"abc"


def test_answers_do_not_change_the_loader() -> None:
    play = Playbook(with_device(mtty_ports=1)).switch_over().receive(0, packet(0, bytes(24)))
    play.step()
    (pending,) = play.loader.pending_writes(play.state, Step(loader(0)))
    taken, _ = play.loader.step(play.state, Step(loader(0)), {pending: 0})
    assert (taken.devices[0].buffers, taken.devices[0].intake.size) == (1, 24)
    refused, _ = play.loader.step(play.state, Step(loader(0)), {pending: ENOSPC})
    assert (refused.devices[0].buffers, refused.devices[0].intake.size) == (0, 0)
    assert refused.error == "NAME: writing state buffer 0 failed: 28"
    modelled, _ = play.loader.step(play.state, Step(loader(0)))
    assert modelled.error == "NAME: writing state buffer 0 failed: 14"


def test_unknown_errno_has_its_number() -> None:
    assert strerror(9999) == "errno 9999"


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("pace", [Pace.OBSERVED, Pace.EAGER, Pace.HELD])
def test_run_written_out_as_steps_is_the_same_run(seed: int, pace: Pace) -> None:
    rng = random.Random(seed)
    sent = random_sent(rng)
    trace = trace_of(interleaved(rng, sent))
    acts: list[Take | Load | SetUp] = []

    def watch(moment: Moment) -> bool:
        if isinstance(moment.event, Step):
            actor = moment.event.actor
            acts.append(SetUp() if actor == MAIN else Load(actor.number))
        elif moment.entry is not None:
            acts.append(Take(token_of(moment.entry.channel)))
        return False

    run = replay(trace, sent.destination, Schedule(trace.digest, pace), watch=watch)
    steps = Schedule(trace.digest, Pace.STEPS, tuple(acts))
    again = replay(trace, sent.destination, steps)
    assert again.state == run.state
    assert again.traces == run.traces
    assert again.idle_steps == 0


def test_stopped_run_has_no_outcome() -> None:
    destination = run_vector("v05-missing-3")[1]
    trace = trace_of(vector("v05-missing-3"))
    count = 0

    def watch(moment: Moment) -> bool:
        nonlocal count
        count += 1
        return count == 50

    run = replay(trace, destination, Schedule(trace.digest), watch=watch)
    assert (count, run.outcome, run.findings) == (50, None, [])


def test_steps_that_cannot_be_taken_are_counted() -> None:
    destination = run_vector("v01-inorder")[1]
    trace = trace_of(vector("v01-inorder"))
    recorded = Schedule(trace.digest)
    acts = (Load(0), SetUp(), *recorded.acts_on(trace), SetUp())
    run = replay(trace, destination, replace(recorded, acts=acts))
    assert (run.outcome, run.idle_steps) == (Outcome.COMPLETED, 2)
