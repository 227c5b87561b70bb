# SPDX-License-Identifier: GPL-2.0-or-later
"""Being told to end, by a terminal or by anybody else, so that nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminable() -> Iterator[None]:
    """Take SIGTERM, and SIGHUP of a terminal that is closed, for an interrupt.

    Whatever was started is ended then, and what is known shown. The first one counts, so that
    nothing interrupts the ending. A SIGHUP that is ignored already (nohup) stays so.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
