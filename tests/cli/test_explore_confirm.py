# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool explore --confirm``, with destinations that are pretended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from mfdtool.cli import run
from mfdtool.errors import SinkError
from mfdtool.loader.state import Outcome
from mfdtool.replay.verdict import Verdict
from mfdtool.schedule.schedule import parse_schedule
from mfdtool.workflows import confirm
from mfdtool.workflows.replay_qemu import Prepared, QemuOptions, QemuReplayed
from tests.support.captures import CAPTURES
from tests.support.pretended_qemu import LAUNCH, Pretended

SMALL: Final = str(CAPTURES / "mtty-4ch-one-packet.pcap.gz")
TO: Final = ("--confirm", "qemu:unix:/run/none", *LAUNCH)
LOST: Final = ("--faults", "drop=1", "--jobs", "1")

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Give the destination that is pretended."""
    made = Pretended()
    monkeypatch.setattr(confirm, "replay_into_qemu", made)
    return made


def explored(capsys: Capsys, *words: str, status: int) -> dict[str, Any]:
    assert run(["explore", SMALL, *words, "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_each_class_is_confirmed(qemu: Pretended, capsys: Capsys) -> None:
    found = explored(capsys, *LOST, *TO, status=1)
    assert len(qemu.runs) == len(found["outcomes"]) == 6
    for each, ready in zip(found["outcomes"], qemu.runs, strict=True):
        assert each["confirmed"] == {
            "outcome": each["outcome"],
            "agrees": True,
            "differences": [],
            "error": ready.modelled.verdict.error,
            "exit_status": 1 if each["outcome"] == "failed" else None,
            "order": "exact",
            "not_enforced": 2,
            "failure": None,
        }
        # It is the witness, and behind it all that it leaves out.
        plan = ready.plan
        witness = parse_schedule(each["schedule"])
        assert plan.schedule.acts is not None
        assert witness.acts is not None
        assert plan.schedule.acts[: len(witness.acts)] == witness.acts
        assert len(ready.sends) == len(plan.trace.observed)
        assert ready.modelled.verdict.outcome == each["outcome"]
    without = explored(capsys, *LOST, status=1)
    assert "confirmed" not in without["outcomes"][0]


def test_good_migration(qemu: Pretended, capsys: Capsys) -> None:
    assert run(["explore", SMALL, "--jobs", "1", *TO]) == 0
    assert "\n  confirmed: real destination: completed\n" in capsys.readouterr().out
    assert [options.deadline for options in qemu.options] == [3]


def test_difference(qemu: Pretended, capsys: Capsys) -> None:
    """It is told, and is a reason to exit with 1."""

    def stall(ready: Prepared, verdict: Verdict) -> Verdict:
        del ready
        return replace(verdict, outcome=Outcome.STALLED)

    qemu.twist = stall
    assert run(["explore", SMALL, "--jobs", "1", *TO]) == 1
    out = capsys.readouterr().out
    assert "\n  differs: outcome: the model has completed" in out
    assert "\n  not enforced: 2 steps of threads, which QEMU takes as it likes\n" in out
    found = explored(capsys, "--jobs", "1", *TO, status=1)
    (outcome,) = found["outcomes"]
    assert (outcome["outcome"], outcome["confirmed"]["outcome"]) == ("completed", "stalled")
    assert not outcome["confirmed"]["agrees"]
    assert len(outcome["confirmed"]["differences"]) == 1


def test_destination_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    """What was found is shown all the same."""

    def start(ready: Prepared, options: QemuOptions) -> None:
        raise SinkError("QEMU ended at once: no such device")

    monkeypatch.setattr(confirm, "replay_into_qemu", start)
    assert run(["explore", SMALL, "--jobs", "1", *TO]) == 5
    out = capsys.readouterr().out
    assert "completed, " in out
    assert "\n  not confirmed: QEMU ended at once: no such device\n" in out
    (outcome,) = explored(capsys, "--jobs", "1", *TO, status=5)["outcomes"]
    assert outcome["confirmed"]["outcome"] is None
    assert outcome["confirmed"]["failure"] == "QEMU ended at once: no such device"
    assert not outcome["confirmed"]["agrees"]


def test_interrupt_shows_what_is_known(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    def runs() -> Iterator[bool]:
        yield from (True, True, False)

    pretended, goes = Pretended(), runs()

    def once(ready: Prepared, options: QemuOptions) -> QemuReplayed:
        if not next(goes):
            raise KeyboardInterrupt
        return pretended(ready, options)

    monkeypatch.setattr(confirm, "replay_into_qemu", once)
    found = explored(capsys, *LOST, *TO, status=130)
    assert found["complete"]
    agree = [each["confirmed"] and each["confirmed"]["agrees"] for each in found["outcomes"]]
    assert agree == [True, True, None, None, None, None]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--confirm", "fd:7"], "'fd:7' is none of qemu:tcp:HOST:PORT"),
        (["--confirm", "model"], "'model' is none of qemu:tcp:HOST:PORT"),
        (["--confirm", "nothing"], "'nothing' is none of"),
        (["--confirm", "qemu:unix:/x"], "with --confirm a QEMU is started for each try"),
        (["--launch", "qemu"], "--launch goes with --confirm qemu:..."),
        (["--confirm", "qemu:unix:/x", "--launch", "q -incoming tcp:x"], "--launch: it must wait"),
    ],
)
def test_what_does_not_go_together(words: list[str], told: str, capsys: Capsys) -> None:
    assert run(["explore", SMALL, *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
