# SPDX-License-Identifier: GPL-2.0-or-later
"""Payload that waits to be written in a pipe: bytes that never come into the process.

What a pump moves from socket to socket passes a pipe. A `Tap` is a second pipe, which gets the
same pages (tee(2)); a writer moves them from there to a file (splice(2)). They are copied once, by
the kernel, into the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from threading import Condition, Lock
from typing import Final

from mfdtool.live.syscalls import tee

PIPE_SIZE: Final = 1 << 20
"""Room for a whole packet of device state; the system may grant less."""
_SMALLEST_PIPE: Final = 1 << 16
_PIECE: Final = 1 << 16


class Pipe:
    """A pipe, as large as it may be.

    Attributes:
        end: where it is read.
        begin: where it is written.
    """

    def __init__(self) -> None:
        """Open it.

        Raises:
            OSError: there are too many files.
        """
        self.end, self.begin = os.pipe2(os.O_CLOEXEC)
        size = PIPE_SIZE
        while size > _SMALLEST_PIPE:
            with suppress(OSError):
                fcntl.fcntl(self.begin, fcntl.F_SETPIPE_SZ, size)
                break
            size //= 2

    def close(self) -> None:
        """Close both ends."""
        os.close(self.end)
        os.close(self.begin)


class Tap:
    """Copies of bytes that passed, until they are written: one thread takes, another gives out."""

    def __init__(self) -> None:
        """Open the pipe.

        Raises:
            OSError: there are too many files.
        """
        self._pipe = Pipe()
        # Whoever gives out knows how much there is: waiting for more would be for ever.
        os.set_blocking(self._pipe.end, False)
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._held = 0
        self._awaited = 0
        self._is_closed = False

    def take(self, pipe: Pipe, count: int) -> Tapped | None:
        """Copy the next bytes in a pipe, which stay there: ``count`` at most; None without room.

        Raises:
            OSError: the system cannot do it.
        """
        held = self._held
        try:
            taken = tee(pipe.end, self._pipe.begin, count)
        except BlockingIOError:
            # To go on at the first free page would be to wait for every page. What was given out
            # since this was found full counts.
            with self._lock:
                self._awaited = held // 2
            return None
        with self._lock:
            self._held += taken
        return Tapped(self, taken)

    def has_room(self, seconds: float) -> bool:
        """Wait until half of a full pipe is given out, at most so long; tell whether it is."""
        with self._lock:
            return self._changed.wait_for(lambda: self._held <= self._awaited, seconds)

    def close(self) -> None:
        """Take nothing more; what is held may still be given out."""
        with self._lock:
            self._is_closed = True
            self._close_if_done()

    def write(self, count: int, file: int, position: int) -> int:
        """Move up to ``count`` bytes to a place in a file; give how many.

        Raises:
            OSError: they cannot be written.
        """
        try:
            moved = os.splice(self._pipe.end, file, count, offset_dst=position)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Not to this file system.
            moved = 0
            data = memoryview(os.read(self._pipe.end, count))
            self._give_out(len(data))
            while moved < len(data):
                moved += os.pwrite(file, data[moved:], position + moved)
        else:
            self._give_out(moved)
        return moved

    def discard(self, count: int) -> None:
        """Forget the next ``count`` bytes."""
        while count:
            data = os.read(self._pipe.end, min(count, _PIECE))
            self._give_out(len(data))
            count -= len(data)

    def _give_out(self, count: int) -> None:
        with self._lock:
            self._held -= count
            if self._held <= self._awaited:
                self._changed.notify()
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_closed and not self._held:
            self._pipe.close()


class Tapped:
    """The next bytes that a tap gives out: in the order in which they were taken, each once.

    Attributes:
        left: how many of them are still there.
    """

    __slots__ = ("_length", "_tap", "left")

    def __init__(self, tap: Tap, length: int) -> None:
        self._tap = tap
        self._length = length
        self.left = length

    def __len__(self) -> int:
        return self._length

    def write(self, count: int, file: int, position: int) -> None:
        """Move the next ``count`` bytes to a place in a file.

        Raises:
            OSError: they cannot be written; ``left`` tells how much is still there.
        """
        end = position + count
        while position < end:
            moved = self._tap.write(end - position, file, position)
            self.left -= moved
            position += moved

    def discard(self) -> None:
        """Forget what is left."""
        self._tap.discard(self.left)
        self.left = 0


class Interleaved:
    """What stands in a file with tapped bytes in it, which come there without being read."""

    __slots__ = ("_length", "_sizes", "_tapped", "_texts")

    def __init__(self, texts: Sequence[bytes], tapped: Tapped, sizes: Sequence[int]) -> None:
        """Set up: a text, the first ``sizes[0]`` tapped bytes, a text, and so on, and a text."""
        self._texts = texts
        self._tapped = tapped
        self._sizes = sizes
        self._length = sum(map(len, texts)) + sum(sizes)

    def __len__(self) -> int:
        return self._length

    def write_to(self, file: int, position: int) -> None:
        """Move it to a place in a file.

        Raises:
            OSError: it cannot be written, or not as a whole.
        """
        *before, last = self._texts
        for text, size in zip(before, self._sizes, strict=True):
            _write(file, text, position)
            position += len(text)
            self._tapped.write(size, file, position)
            position += size
        _write(file, last, position)


def _write(file: int, text: bytes, position: int) -> None:
    if os.pwrite(file, text, position) < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
