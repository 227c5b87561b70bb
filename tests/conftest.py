# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the test suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what commands print into the transcripts of tests/golden",
    )
