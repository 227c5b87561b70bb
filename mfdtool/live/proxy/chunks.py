# SPDX-License-Identifier: GPL-2.0-or-later
"""Buffers that pumps read into and that wait to be written: a bounded store of them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Final

from mfdtool.live.proxy.segments import FRAME_PAYLOAD

CHUNK: Final = 4 * FRAME_PAYLOAD
"""Bytes that a pump reads at once, at most."""

PATIENCE: Final = 0.5
"""Seconds that a pump waits for a writer that writes nothing, unless it shall wait for ever."""

_TICK: Final = 0.1


class Chunk:
    """A buffer; it goes back to the store when all its users are done."""

    __slots__ = ("users", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(CHUNK))
        self.users = 0


class Store:
    """At most so many chunks, made when they are wanted; any thread may use it.

    Attributes:
        waits: whether it is worth waiting for a chunk.
        blocks: whether to wait as long as it takes.
        turns: how often the writer has written something.
    """

    def __init__(self, size: int, *, blocks: bool) -> None:
        """Set up for ``size`` bytes."""
        self.waits = True
        self.blocks = blocks
        self.turns = 0
        self._left = max(size // CHUNK, 2)
        self._free: list[Chunk] = []
        self._changed = Condition()

    def take(self) -> Chunk | None:
        """Give a chunk with one user; None if there is none, and none comes soon enough."""
        with self._changed:
            if not self._free and not self._left and not self.wait_until(self._has_free):
                return None
            if self._free:
                # The last one back is the one that is still in the processor's cache.
                chunk = self._free.pop()
            else:
                chunk = Chunk()
                self._left -= 1
            chunk.users = 1
        return chunk

    def share(self, chunk: Chunk) -> None:
        """Give a chunk one more user."""
        with self._changed:
            chunk.users += 1

    def release(self, chunk: Chunk) -> None:
        """Take one user away from a chunk."""
        with self._changed:
            chunk.users -= 1
            if not chunk.users:
                self._free.append(chunk)
                self._changed.notify()

    def wait_until(self, is_ready: Callable[[float], bool]) -> bool:
        """Wait until there is room that the writer has to make; tell whether there is.

        ``is_ready`` waits, too, at most as many seconds as it is told.
        """
        while self.blocks:
            if is_ready(_TICK):
                return True
        while self.waits:
            turns = self.turns
            if is_ready(PATIENCE):
                return True
            if self.turns == turns:
                # Once in vain is enough: from then on the writer must show that it gets on.
                self.waits = False
        return is_ready(0)

    def _has_free(self, seconds: float) -> bool:
        return self._changed.wait_for(lambda: bool(self._free), seconds)
