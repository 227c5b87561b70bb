# SPDX-License-Identifier: GPL-2.0-or-later
"""The document's examples do what it says."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import TCP

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _ports() -> Iterator[None]:
    before = list(TCP.payload_guess)
    yield
    TCP.payload_guess[:] = before


def test_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(
        str(ROOT / "docs" / "scapy.md"),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST,
    )
    assert failed == 0
    assert tried >= 25
