# SPDX-License-Identifier: GPL-2.0-or-later
"""Real captures for the packet tests."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CAPTURES = Path(__file__).parents[2] / "captures"


@cache
def _load(name: str) -> bytes:
    return gzip.decompress((CAPTURES / f"{name}.pcap.gz").read_bytes())


@pytest.fixture(scope="session")
def real_capture() -> Callable[[str], memoryview]:
    """Give a function that gives the bytes of a capture."""
    return lambda name: memoryview(_load(name))
