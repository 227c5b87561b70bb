# SPDX-License-Identifier: GPL-2.0-or-later
"""The model against the generator, which knows nothing of it.

Good migrations complete without a complaint. Broken ones are found out, each by the rule that the
defect says it breaks.
"""

from __future__ import annotations

import random
from typing import Final

import pytest

from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.defects import DEFECTS
from mfdtool.fixtures.generate import random_migration
from mfdtool.fixtures.migration import Migration
from mfdtool.fixtures.segments import transmit
from mfdtool.loader.assume import assume
from mfdtool.loader.findings import Finding
from mfdtool.loader.lint import lint
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.recording import Recording
from mfdtool.loader.state import Outcome
from mfdtool.packets import pcapng
from mfdtool.replay.driver import Run, drive
from mfdtool.rules import Severity
from mfdtool.schedule.observation import observations_of
from tests.support.captures import decode

UNSEEN: Final = {
    "handshake-magic": "the connection is not recognised as a channel",
    "stream-magic": "the connection is not recognised as a main channel",
    "handshake-uuid": "the channel is taken for one of another migration",
    "wrong-machine": "only the destination knows its machine type",
    "unknown-section": "only the destination knows its devices",
}
"""Defects that a capture alone does not show, and why."""

SEEDS: Final = range(20)


def recordings(migration: Migration) -> list[Recording]:
    view = memoryview(pcapng_bytes(transmit(migration, None)))
    decoder, frames = decode(view, pcapng.read(view), keeps=True)
    return [found.recording for found in observations_of(frames, decoder.migrations)]


def check(recording: Recording) -> tuple[Run, list[Finding]]:
    destination, _ = assume(recording, DestinationOptions())
    run = drive(recording, destination)
    return run, [*run.findings, *lint(recording, destination)]


@pytest.mark.parametrize("seed", range(60))
def test_good_migrations_complete(seed: int) -> None:
    (recording,) = recordings(random_migration(random.Random(seed)))
    run, findings = check(recording)
    assert run.outcome is Outcome.COMPLETED
    assert [found for found in findings if found.severity is not Severity.NOTE] == []
    assert recording.is_whole


@pytest.mark.parametrize("name", sorted(DEFECTS.keys() - UNSEEN))
def test_defects_are_found(name: str) -> None:
    defect = DEFECTS[name]
    # Some shapes of migration hide some defects: no device packet, say, needs no SWITCHOVER_START.
    for seed in SEEDS:
        try:
            broken = defect.apply(random_migration(random.Random(seed)))
        except ValueError:
            continue
        findings = [one for recording in recordings(broken) for one in check(recording)[1]]
        if defect.rule.name in {one.rule.name for one in findings}:
            return
    pytest.fail(f"{defect.rule.name} is never found")


@pytest.mark.parametrize("name", sorted(UNSEEN))
def test_other_defects_do_no_harm_to_the_model(name: str) -> None:
    broken = DEFECTS[name].apply(random_migration(random.Random(1)))
    for recording in recordings(broken):
        assert check(recording)[0].outcome in set(Outcome)
