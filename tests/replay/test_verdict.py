# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs summed up."""

from __future__ import annotations

import pytest

from mfdtool.loader.findings import finding
from mfdtool.loader.state import Outcome
from mfdtool.replay.verdict import DeviceOutcome, Verdict, verdict_of
from mfdtool.rules import Severity
from tests.replay.test_vectors import run_vector


def verdict(name: str) -> Verdict:
    run, destination = run_vector(name)
    return verdict_of(run, destination, ())


@pytest.mark.parametrize(
    ("name", "outcome", "size"),
    [
        ("v01-inorder", DeviceOutcome.LOADED, 96),
        ("r000", DeviceOutcome.LOADED, 56),
        ("v05-missing-3", DeviceOutcome.STARVED, 72),
        ("v14-config-bad-marker", DeviceOutcome.FAILED, 96),
        ("m01_no_switchover", DeviceOutcome.IDLE, 24),
        ("m02_two_switchovers", DeviceOutcome.FAILED, 24),
        ("m13_unknown_idstr", DeviceOutcome.IDLE, 0),
    ],
)
def test_devices(name: str, outcome: DeviceOutcome, size: int) -> None:
    (device,) = verdict(name).devices
    assert (device.outcome, device.bytes) == (outcome, size)
    assert device.restored == (name == "v01-inorder")
    assert device.reset == (name in {"r000", "m01_no_switchover"})


def test_explanation_is_the_line_that_says_most() -> None:
    assert verdict("v14-config-bad-marker").error == (
        "NAME: expected FLAG_DEV_CONFIG_STATE but got ffffffffef100001"
    )
    assert verdict("m03_full_config_marker").error == (
        "NAME: got DEV_CONFIG_STATE in main migration channel but doing multifd transfer"
    )
    assert verdict("q11-m09_end_with_data").error == (
        "load of migration failed: Cannot allocate memory: Failed to load vmstate version_id: 1,"
        " ret: -12"
    )
    stalled = verdict("v03-dup-data")
    assert (stalled.error, stalled.recorded_error) == (None, "NAME: state buffer 2 already filled")


def test_findings_may_make_a_success_bad() -> None:
    good = verdict("v01-inorder")
    assert good.outcome is Outcome.COMPLETED
    assert not good.is_bad(Severity.NOTE)
    run, destination = run_vector("v01-inorder")
    warned = verdict_of(run, destination, (finding("config-trailing", "trailing"),))
    assert warned.is_bad(Severity.WARNING)
    assert not warned.is_bad(Severity.ERROR)
    assert verdict("v05-missing-3").is_bad(Severity.ERROR)
