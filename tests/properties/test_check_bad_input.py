# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged captures get a verdict, whatever it is, and never an exception."""

from __future__ import annotations

import random

import pytest

from mfdtool.loader.assume import assume
from mfdtool.loader.lint import lint
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.state import Outcome
from mfdtool.packets.values import Record
from mfdtool.replay.driver import Priority, drive
from mfdtool.schedule.observation import observations_of
from mfdtool.schedule.schedule import Pace
from tests.support.captures import NAMES, decode, load, records


def damaged(rng: random.Random, name: str) -> tuple[memoryview, list[Record]]:
    """Flip some bits behind the packet headers, and lose or cut some records."""
    view = bytearray(load(name))
    chosen = list(records(name))
    for record in rng.sample(chosen, rng.randint(1, 6)):
        low = record.offset + 66
        high = record.offset + record.captured
        for _ in range(rng.randint(1, 8)):
            if low < high:
                view[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    for _ in range(rng.randrange(3)):
        del chosen[rng.randrange(len(chosen))]
    if rng.random() < 0.3:
        del chosen[rng.randrange(len(chosen)) :]
    return memoryview(bytes(view)), chosen


@pytest.mark.parametrize("seed", range(40))
def test_damaged_capture_gets_a_verdict(seed: int) -> None:
    rng = random.Random(seed)
    view, chosen = damaged(rng, NAMES[seed % len(NAMES)])
    decoder, frames = decode(view, chosen, keeps=True)
    for observation in observations_of(frames, decoder.migrations):
        recording = observation.recording
        destination, _ = assume(recording, DestinationOptions())
        run = drive(
            recording,
            destination,
            pace=rng.choice([Pace.OBSERVED, Pace.EAGER, Pace.HELD]),
            priority=rng.choice(list(Priority)),
        )
        assert run.outcome in set(Outcome)
        assert run.outcome is not Outcome.STALLED or run.findings
        assert len(lint(recording, destination)) < 500
