# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest names every file of captures/, and tells its digest, origin and verdict."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

CAPTURES = Path(__file__).parent.parent / "captures"
MANIFEST: dict[str, Any] = tomllib.loads((CAPTURES / "MANIFEST.toml").read_text())
SIZE_LIMIT = 300_000
VERDICTS = {"completed", "failed", "aborted", "stalled"}


def test_names_every_file() -> None:
    found = {path.name for path in CAPTURES.iterdir()} - {"MANIFEST.toml"}
    assert found == set(MANIFEST["files"])


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_entry(name: str) -> None:
    entry = MANIFEST["files"][name]
    data = (CAPTURES / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(data) <= SIZE_LIMIT
    assert entry["shows"]
    if ".pcap" in name:
        assert entry["verdict"] in VERDICTS
        assert ("error" in entry) == (entry["verdict"] == "failed")
