# SPDX-License-Identifier: GPL-2.0-or-later
"""Being told to end, by a terminal or by anybody else, so that nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminable() -> Iterator[None]:
    """Take SIGTERM for an interrupt: whatever was started is ended then, and what is known shown.

    The first one counts, so that nothing interrupts the ending.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
