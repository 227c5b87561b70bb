# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts that wait until what was begun can be ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Final

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let interrupts wait for the end of the block, where the first one that came is raised.

    A process that is started in the block is never lost by one: the caller knows it by then. What
    is started does not inherit anything of this, as it would a blocked signal.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    before = {}
    if current_thread() is main_thread():
        # Nobody but Python's own handlers raises anything.
        handlers = {each: signal.getsignal(each) for each in _NUMBERS}
        before = {each: handler for each, handler in handlers.items() if callable(handler)}
    try:
        for each in before:
            signal.signal(each, note)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])
