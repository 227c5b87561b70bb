# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of a real destination."""

from __future__ import annotations

from dataclasses import replace

from mfdtool.report.replay_qemu import QemuReport, report_json, report_text

PLAIN = QemuReport(
    exit_status=None,
    sent=10,
    not_acknowledged=(),
    not_enforced=0,
    returned=(),
    closed=(),
    differences=None,
)


def test_nothing_to_tell() -> None:
    assert list(report_text(PLAIN)) == []


def test_everything() -> None:
    report = QemuReport(
        exit_status=-6,
        sent=10,
        not_acknowledged=tuple(f"multifd-0#{number}" for number in range(18)),
        not_enforced=2,
        returned=("PONG 1", "SHUT 0"),
        closed=(("main", "Broken pipe"),),
        differences=("outcome: the model has stalled, QEMU has aborted",),
    )
    listed = ", ".join(f"multifd-0#{number}" for number in range(16))
    assert list(report_text(report)) == [
        "  exit status -6",
        f"  not acknowledged: {listed}, and 2 more",
        "  not enforced: 2 steps of load threads, which QEMU takes as it likes",
        "  return path: PONG 1, SHUT 0",
        "  differs: outcome: the model has stalled, QEMU has aborted",
    ]
    found = report_json(report)
    assert len(found.pop("not_acknowledged")) == 18
    assert found == {
        "exit_status": -6,
        "bytes_sent": 10,
        "not_enforced": 2,
        "return_path": ["PONG 1", "SHUT 0"],
        "closed": {"main": "Broken pipe"},
        "differences": ["outcome: the model has stalled, QEMU has aborted"],
    }


def test_agreement_and_no_trace() -> None:
    assert list(report_text(replace(PLAIN, not_acknowledged=None, differences=()))) == [
        "  its trace is not known: no packet's arrival was waited for",
        "  the model agrees",
    ]
    assert report_json(PLAIN)["differences"] is None
    assert report_json(replace(PLAIN, not_acknowledged=None))["not_acknowledged"] is None
