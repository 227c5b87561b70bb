# SPDX-License-Identifier: GPL-2.0-or-later
"""Checking an input, apart from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfdtool.errors import CaptureError
from mfdtool.loader.options import parse_options
from mfdtool.loader.state import Outcome
from mfdtool.workflows.check import Checked, CheckOptions, against, check
from mfdtool.workflows.reading import Input, Reading
from tests.support.captures import CAPTURES
from tests.support.vectors import VECTORS


def checked(path: Path, options: CheckOptions | None = None) -> Checked:
    with Reading(Input(capture=str(path)), keep_extents=True) as reading:
        (found,) = check(reading, options or CheckOptions())
    return found


def test_verdict_trace_and_log_agree() -> None:
    found = checked(CAPTURES / "mtty-8ch-ipv6.pcap.gz")
    assert found.verdict.outcome is Outcome.COMPLETED
    assert found.verdict.devices[0].buffers == 9
    assert "vfio_load_cleanup  (0000:00:05.0)" in list(found.trace())
    assert against(found, CAPTURES / "mtty-8ch-ipv6.dst.log") == []


@pytest.mark.parametrize("name", ["ram-postcopy", "ram-preempt"])
def test_postcopy_ends_without_a_word(name: str) -> None:
    verdict = checked(CAPTURES / f"{name}.pcap.gz").verdict
    assert verdict.outcome is Outcome.COMPLETED
    assert verdict.stderr == ()
    assert [finding.rule.name for finding in verdict.findings] == ["profile-guessed"]


def test_timing_is_tried_only_where_it_matters() -> None:
    names = [
        {finding.rule.name for finding in checked(VECTORS / f"{name}.pcap.gz").verdict.findings}
        for name in ("r007", "v05-missing-3")
    ]
    assert ["timing-dependent" in found for found in names] == [True, False]


def test_what_cannot_be_checked() -> None:
    path = VECTORS / "v05-missing-3.pcap.gz"
    with pytest.raises(ValueError, match="no profile"):
        checked(path, CheckOptions(profile="1.0"))
    with pytest.raises(CaptureError, match="no migration 3"):
        checked(path, CheckOptions(migration=3))
    with pytest.raises(CaptureError):
        against(checked(path), Path("nowhere.log"))


def test_what_is_said_is_repeated() -> None:
    said = ("device=none", "memory=1G")
    options = CheckOptions(destination=parse_options(said), said=said)
    verdict = checked(VECTORS / "v01-inorder.pcap.gz", options).verdict
    assert verdict.outcome is Outcome.FAILED
    assert verdict.reproduce.endswith(
        "--profile 10.0 --destination device=none --destination memory=1G"
    )
