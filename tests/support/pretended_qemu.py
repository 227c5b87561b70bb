# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that is not there: it does what the model does, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from mfdtool.loader.state import Outcome
from mfdtool.replay.verdict import DeviceOutcome, Verdict
from mfdtool.report.replay_qemu import QemuReport
from mfdtool.workflows.replay_qemu import Prepared, QemuOptions, QemuReplayed

STATUS: Final = {Outcome.FAILED: 1, Outcome.ABORTED: -6}
LAUNCH: Final = ("--launch", "qemu-none -m 4", "--deadline", "3")

Twist = Callable[[Prepared, Verdict], Verdict]


def as_modelled(ready: Prepared, verdict: Verdict) -> Verdict:
    """Do as the model does."""
    del ready
    return verdict


@dataclass
class Pretended:
    """Stands in for ``replay_into_qemu``.

    Attributes:
        twist: changes what the model says.
        statuses: exit statuses that are not the usual ones of an outcome.
        runs: what was replayed.
        options: how it was to be treated.
    """

    twist: Twist = as_modelled
    statuses: dict[Outcome, int] = field(default_factory=dict)
    runs: list[Prepared] = field(default_factory=list)
    options: list[QemuOptions] = field(default_factory=list)

    def __call__(self, ready: Prepared, options: QemuOptions) -> QemuReplayed:
        """Replay."""
        self.runs.append(ready)
        self.options.append(options)
        modelled = ready.modelled.verdict
        verdict = self.twist(ready, modelled)
        assert verdict.outcome is not None
        differs = verdict.outcome is not modelled.outcome
        differences = (f"outcome: the model has {modelled.outcome}",) if differs else ()
        failed = [each.idstr for each in verdict.devices if each.outcome is DeviceOutcome.FAILED]
        report = QemuReport(
            exit_status={**STATUS, **self.statuses}.get(verdict.outcome),
            sent=0,
            not_acknowledged=(),
            not_enforced=2,
            returned=(),
            closed=(),
            differences=differences if options.compare else None,
        )
        return QemuReplayed(
            verdict=replace(verdict, sink="qemu"),
            report=report,
            lines=(),
            blamed=failed[0] if failed and verdict.error else "",
        )


def sends_idx(ready: Prepared, idx: int) -> bool:
    """Whether a device packet of that idx is sent."""
    return any(expected.idstr and expected.idx == idx for _, expected in ready.expected)
