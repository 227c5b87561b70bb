# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of the test suite."""

from __future__ import annotations

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what commands print into the transcripts of tests/golden",
    )


def pytest_configure() -> None:
    """Have signals that end tests' programs arrive, also where whoever started this ignores them.

    A shell does so for what it runs in the background, and nohup. Programs have the usual
    handling then; this process still outlives a terminal that is closed.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
