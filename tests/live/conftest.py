# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab for live tests: one boot of its machine runs the scenarios of all that were selected.

It boots before the first test, and the first one that wants it waits for its end. A test that wants
a scenario has the marker ``scenario("name")`` and the fixture ``played``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.live.lab.machine import Machine, installed
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


_BOOTED: Final = pytest.StashKey[tuple[Path, Machine]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Boot the machine for all scenarios that the selected tests want."""
    names = list(dict.fromkeys(_wanted(session)))
    there = installed()
    if not names or there.missing or session.config.option.collectonly:
        return
    out = Path(tempfile.mkdtemp(prefix="mfdtool-lab-"))
    machine = Machine(there, out, names, seconds=max(SCENARIOS[name].seconds for name in names))
    session.config.stash[_BOOTED] = out, machine


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave no machine behind that nobody has waited for; keep what it wrote if tests failed."""
    if booted := session.config.stash.get(_BOOTED, None):
        out, machine = booted
        machine.kill()
        if exitstatus == pytest.ExitCode.OK:
            shutil.rmtree(out, ignore_errors=True)


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """Wait until the machine has run all scenarios."""
    there = installed()
    if there.missing:
        lack(there.missing)
    out, machine = pytestconfig.stash[_BOOTED]
    return Lab(out, machine.wait())


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
    """Say in one line that live tests did not run, or where to look why they failed."""
    if booted := terminalreporter.config.stash.get(_BOOTED, None):
        out, _ = booted
        if out.exists():
            terminalreporter.write_line(f"what the lab's machine has written is in {out}")
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
