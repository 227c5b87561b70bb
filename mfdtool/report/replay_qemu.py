# SPDX-License-Identifier: GPL-2.0-or-later
"""What a real destination did, as JSON and as text, beside its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from mfdtool.report.units import count_text

_LISTED: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuReport:
    """What is told besides the verdict.

    Attributes:
        exit_status: the destination's, negative for a signal; None if it ran to the end.
        sent: bytes that were sent.
        not_acknowledged: device packets whose trace line did not come; None if there is no trace.
        not_enforced: steps of threads that the schedule says, and that QEMU takes as it likes.
        returned: messages of the return path.
        closed: connections that the destination closed, or that broke, and how.
        differences: where the model's verdict differs; None if it was not asked.
    """

    exit_status: int | None
    sent: int
    not_acknowledged: tuple[str, ...] | None
    not_enforced: int
    returned: tuple[str, ...]
    closed: tuple[tuple[str, str], ...]
    differences: tuple[str, ...] | None


def report_json(report: QemuReport) -> dict[str, Any]:
    """Give it as members of the verdict's object."""
    missed, differences = report.not_acknowledged, report.differences
    return {
        "exit_status": report.exit_status,
        "bytes_sent": report.sent,
        "not_acknowledged": None if missed is None else list(missed),
        "not_enforced": report.not_enforced,
        "return_path": list(report.returned),
        "closed": dict(report.closed),
        "differences": None if differences is None else list(differences),
    }


def report_text(report: QemuReport) -> Iterator[str]:
    """Write it for people."""
    if report.exit_status is not None:
        yield f"  exit status {report.exit_status}"
    if missed := report.not_acknowledged:
        yield f"  not acknowledged: {_listed(missed)}"
    if report.not_acknowledged is None:
        yield "  its trace is not known: no packet's arrival was waited for"
    if report.not_enforced:
        what = count_text(report.not_enforced, "step")
        yield f"  not enforced: {what} of load threads, which QEMU takes as it likes"
    if report.returned:
        yield f"  return path: {_listed(report.returned)}"
    if report.differences is not None:
        yield from (f"  differs: {text}" for text in report.differences)
        if not report.differences:
            yield "  the model agrees"


def _listed(names: tuple[str, ...]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
