# SPDX-License-Identifier: GPL-2.0-or-later
"""``extract --vmstate`` against the script that QEMU itself ships, on the same streams.

The script is looked for where MFDTOOL_ANALYZE_MIGRATION says, and where ``make lab`` unpacks it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfdtool.cli import run
from tests.support.main_streams import NAMES, state, stream
from tests.support.programs import lack

pytestmark = pytest.mark.live

DEFAULT = Path.home() / ".cache" / "mfdtool" / "lab" / "analyze-migration.py"


@pytest.fixture(scope="module")
def script() -> Path:
    path = Path(os.environ.get("MFDTOOL_ANALYZE_MIGRATION") or DEFAULT)
    if not path.is_file():
        lack(f"{path} is not there: see MFDTOOL_ANALYZE_MIGRATION")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_says_the_same(
    script: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / f"{name}.bin"
    plain.write_bytes(stream(name))
    result = subprocess.run(
        [sys.executable, str(script), "-d", "state", "-f", str(plain)],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=600,
    )
    assert run(["extract", "--main", str(plain), "--vmstate"]) == 0
    assert capfd.readouterr().out == result.stdout == state(name)
