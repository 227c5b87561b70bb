# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin as a project of somebody else sees it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "fixtures.md"

RunTests = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_tests(tmp_path: Path) -> RunTests:
    """Give a function that runs tests in a project of their own, which mfdtool is installed for."""
    installed = tmp_path / "installed"
    project = tmp_path / "project"
    info = installed / "outside-1.0.dist-info"
    info.mkdir(parents=True)
    project.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nmfdtool = mfdtool.pytest_plugin\n")

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (project / "test_outside.py").write_text(code)
        environment = os.environ | {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)


def test_the_documented_example(run_tests: RunTests) -> None:
    result = run_tests(blocks()[0])
    assert result.returncode == 0, result.stdout
    assert "8 passed" in result.stdout


@pytest.mark.parametrize("number", [1, 2])
def test_the_documented_library(number: int) -> None:
    names: dict[str, object] = {}
    exec(blocks()[number], names)
    assert {"migration", "Migration"} & set(names)


FAILING: Final = """
def test_fails(migration, mfdtool_rng):
    assert mfdtool_rng.random() > 2

def test_without_fixtures_fails():
    assert False
"""


def test_a_failure_tells_how_to_repeat_it(run_tests: RunTests) -> None:
    first = run_tests(FAILING)
    assert first.returncode == 1
    (option,) = re.findall(r"repeat with (--mfdtool-seed=\d+)", first.stdout)
    drawn = re.findall(r"assert (0\.\d+) > 2", first.stdout)[0]
    again = run_tests(FAILING, option)
    assert f"assert {drawn} > 2" in again.stdout
    other = run_tests(FAILING, "--mfdtool-seed=1")
    assert f"assert {drawn} > 2" not in other.stdout
    assert "repeat with --mfdtool-seed=1\n" in other.stdout


UNUSED: Final = """
import sys

def test_costs_nothing():
    assert "mfdtool.pytest_plugin" in sys.modules
    loaded = [name for name in sys.modules if name.startswith("mfdtool.")]
    assert loaded == ["mfdtool.pytest_plugin"]
    assert not {"construct", "numpy", "scapy", "zstandard", "click"} & set(sys.modules)
"""


def test_costs_nothing_when_it_is_not_used(run_tests: RunTests) -> None:
    result = run_tests(UNUSED)
    assert result.returncode == 0, result.stdout


PROMISES: Final = """
import random

from mfdtool.fixtures.generate import Shape
from mfdtool.packets.pcap import is_pcap
from mfdtool.packets.pcapng import is_pcapng


def test_capture_file(capture_file, migration, tmp_path):
    path = capture_file(migration)
    assert path == tmp_path / "migration.pcapng"
    assert is_pcapng(path.read_bytes())
    assert is_pcap(capture_file(name="other.pcap").read_bytes())


def test_factory(migration_factory):
    one, other = migration_factory(), migration_factory()
    assert one != other
    shape = Shape(channels=(0, 0), devices=(0, 0))
    assert set(migration_factory(shape=shape).channels) <= {"main", "return-path"}


def test_migration(migration, vfio_device_stream):
    assert migration.device_packets()
    assert vfio_device_stream == migration.device_stream()
    assert vfio_device_stream.config is not None


def test_rng(mfdtool_rng):
    assert mfdtool_rng.random() == random.Random(5).random()
"""


def test_fixtures_give_what_they_promise(run_tests: RunTests) -> None:
    result = run_tests(PROMISES, "--mfdtool-seed=5")
    assert result.returncode == 0, result.stdout
    assert "4 passed" in result.stdout
