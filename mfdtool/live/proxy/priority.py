# SPDX-License-Identifier: GPL-2.0-or-later
"""Which threads run first where there are fewer processors than work.

Everything waits for a pump: source and destination, and the other pumps, as only one thread of a
process runs Python at a time. One that loses its processor to a busy neighbour then holds up all
of them. And one thread writes for all channels what two move for each.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import get_native_id
from typing import Final

PUMPS: Final = 8
"""How much less nice than others the threads are that forward."""
WRITER: Final = 10
"""The same of the thread that writes the file."""


def favour(by: int) -> None:
    """Make the calling thread, and those that it will start, less nice, where that is allowed."""
    thread = get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) - by)
