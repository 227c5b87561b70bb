# SPDX-License-Identifier: GPL-2.0-or-later
"""A good source's migration completes in every order, with the same bytes in every device."""

from __future__ import annotations

import hashlib
import random

import pytest

from mfdtool.loader.findings import Finding
from mfdtool.loader.lint import lint
from mfdtool.loader.moves import LoadPhase
from mfdtool.loader.state import Outcome
from mfdtool.replay.driver import Priority, drive
from mfdtool.rules import Severity
from mfdtool.schedule.schedule import Pace
from tests.support.legitimate import interleaved, random_sent


@pytest.mark.parametrize("seed", range(300))
def test_every_order_gives_the_same_devices(seed: int) -> None:
    rng = random.Random(seed)
    sent = random_sent(rng)
    digests = [hashlib.sha256(data).hexdigest() for data in sent.data]
    for _ in range(3):
        recording = interleaved(rng, sent)
        run = drive(
            recording,
            sent.destination,
            pace=rng.choice([Pace.OBSERVED, Pace.EAGER, Pace.HELD]),
            priority=rng.choice(list(Priority)),
        )
        assert run.outcome is Outcome.COMPLETED, (run.state.main, run.findings)
        assert [written.sha256 for written in run.written] == digests
        assert all(device.phase is LoadPhase.LOADED for device in run.state.devices)
        assert run.findings == []
        assert run.stderr == []


def serious(findings: list[Finding]) -> list[Finding]:
    return [found for found in findings if found.severity is Severity.ERROR]


@pytest.mark.parametrize("seed", range(60))
def test_nothing_serious_is_found_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    sent = random_sent(rng)
    assert serious(lint(interleaved(rng, sent), sent.destination)) == []


@pytest.mark.parametrize("seed", range(60))
def test_one_lost_packet_never_completes(seed: int) -> None:
    rng = random.Random(seed)
    sent = random_sent(rng)
    recording = interleaved(rng, sent)
    packets = [
        entry
        for entry in recording.entries
        if getattr(getattr(entry.event, "item", None), "idstr", "").endswith("/vfio")
        and entry.channel != "main"
    ]
    lost = rng.choice(packets)
    entries = tuple(entry for entry in recording.entries if entry is not lost)
    less = type(recording)(entries=entries, names=recording.names)
    assert drive(less, sent.destination).outcome is Outcome.STALLED
    names = {found.rule.name for found in lint(less, sent.destination)}
    assert names & {"idx-gap", "config-missing"}
