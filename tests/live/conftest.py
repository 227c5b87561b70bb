# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab for live tests: one boot of its machine runs the scenarios of all that were selected.

A test that wants a scenario has the marker ``scenario("name")`` and the fixture ``played``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.lab.machine import boot, installed
from tests.live.lab.scenario import Result
from tests.live.lab.scenarios import SCENARIOS
from tests.support.programs import lack


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that passed.

    Attributes:
        folder: what it wrote.
        result: its notes.
    """

    folder: Path
    result: Result


@dataclass(frozen=True, slots=True)
class Lab:
    """What the machine did."""

    out: Path
    console: str


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Boot the machine for all scenarios that the selected tests want."""
    there = installed()
    if there.missing:
        lack(there.missing)
    out = tmp_path_factory.mktemp("lab")
    names = list(dict.fromkeys(_wanted(request.session)))
    seconds = max(SCENARIOS[name].seconds for name in names)
    return Lab(out, boot(there, out, names, seconds=seconds))


@pytest.fixture
def played(lab: Lab, request: pytest.FixtureRequest) -> Played:
    """Give the scenario that the test's marker names; fails if that failed."""
    marker = request.node.get_closest_marker("scenario")
    assert marker is not None
    name: str = marker.args[0]
    path = lab.out / f"{name}.json"
    if not path.exists():
        pytest.fail(f"the machine did not get to {name}:\n{lab.console[-4000:]}", pytrace=False)
    result = Result.read(path)
    if result.error:
        pytest.fail(f"in the machine:\n{result.error}", pytrace=False)
    return Played(lab.out / name, result)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line that live tests did not run."""
    reports = terminalreporter.stats.get("skipped", [])
    if missing := installed().missing:
        skipped = sum(missing in str(report.longrepr) for report in reports)
        if skipped:
            terminalreporter.write_line(f"{skipped} live tests skipped: {missing}")


def _wanted(session: pytest.Session) -> Iterator[str]:
    for item in session.items:
        marker = item.get_closest_marker("scenario")
        if marker is not None:
            yield marker.args[0]
