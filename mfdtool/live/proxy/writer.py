# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes segments to the file, and keeps account of those that could not be written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

from mfdtool.live.proxy.segments import Block, Builder, Payload, Segment
from mfdtool.live.proxy.tap import Tapped
from mfdtool.packets.info import Statistics

if TYPE_CHECKING:
    from mfdtool.live.proxy.chunks import Chunk
    from mfdtool.live.proxy.file import CaptureFile

SLOW: Final = 50e6
"""Bytes per second; a file that takes less is not waited for."""
RETRY: Final = 0.5
"""Seconds after which a file that failed is tried again."""
_MEASURED: Final = 0.5


@dataclass(slots=True)
class Losses:
    """What was forwarded and is not in the file, though it should be.

    Attributes:
        frames: segments that are missing altogether.
        cut: segments whose payload is missing.
        bytes: payload bytes of both.
        reason: why the first of them is.
    """

    frames: int = 0
    cut: int = 0
    bytes: int = 0
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.frames or self.cut or self.reason)

    def __str__(self) -> str:
        return (
            f"not recorded: {self.bytes:,} bytes in {self.frames:,} missing and {self.cut:,} cut"
            f" frames ({self.reason})"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """Segments to be written; ``data`` is what there is of their ``length`` bytes of payload."""

    builder: Builder
    segment: Segment
    data: Payload | None
    length: int
    chunk: Chunk | None = None

    @property
    def captured(self) -> int:
        """How many bytes of payload will be in the file."""
        return 0 if self.data is None else len(self.data)

    @property
    def makes_room(self) -> bool:
        """Whether writing it makes room for what a pump may wait with."""
        return self.chunk is not None or isinstance(self.data, Tapped)

    def forget(self) -> None:
        """Give up what is not written of it."""
        if isinstance(self.data, Tapped):
            self.data.discard()

    def block(self, *, drops: int | None = None) -> Block:
        """Build the blocks."""
        if self.data is None:
            return self.builder.block(self.segment, self.length, drops=drops)
        return self.builder.blocks(self.segment, self.data, drops=drops)


class Writer:
    """Writes entries; one thread at a time may use it, except for `count` and `give_up`.

    Attributes:
        losses: what is missing.
        is_slow: whether the file takes less than `SLOW`.
        waits_for: why it waits for a file that takes nothing; empty while it does not.
    """

    def __init__(
        self, file: CaptureFile, release: Callable[[Chunk], None], *, blocks: bool
    ) -> None:
        """Set up; with ``blocks`` a file that is full is waited for."""
        self.losses = Losses()
        self.is_slow = False
        self.waits_for = ""
        self._file = file
        self._release = release
        self._blocks = blocks
        self._gives_up = Event()
        self._counting = Lock()
        self._retry_at = 0.0
        self._written = 0
        self._unsaid = 0
        self._busy = 0.0
        self._busy_bytes = 0

    def write(self, entries: Sequence[Entry]) -> None:
        """Write entries, and release their chunks; those that cannot be written are counted."""
        try:
            blocks = [entry.block() for entry in entries]
            done = self._write(entries, blocks)
            if done < len(entries):
                self._lose(entries[done:], blocks[done:])
        except Exception:
            for entry in entries:
                entry.forget()
            raise
        finally:
            for entry in entries:
                if entry.chunk is not None:
                    self._release(entry.chunk)

    def count(self, *, frames: int = 0, cut: int = 0, length: int = 0, reason: str) -> None:
        """Count what is not recorded; the first reason is kept."""
        with self._counting:
            self.losses.frames += frames
            self.losses.cut += cut
            self.losses.bytes += length
            self.losses.reason = self.losses.reason or reason

    def give_up(self) -> None:
        """Wait for the file no longer."""
        self._blocks = False
        self._gives_up.set()

    def close(self, notes: Sequence[str]) -> None:
        """Write the last words, and close the file."""
        lost = self.losses.frames
        statistics = Statistics(
            0, received=self._written + lost, dropped_by_interface=lost, delivered=self._written
        )
        comments = [*notes, str(self.losses)] if self.losses else notes
        self._file.close(statistics, comments=comments)

    def _write(self, entries: Sequence[Entry], blocks: list[Block]) -> int:
        """Write as much as can be, and give how many entries that is."""
        done = 0
        while done < len(entries) and time.monotonic() >= self._retry_at:
            if self._unsaid:
                blocks[done] = entries[done].block(drops=self._unsaid)
            count = self._timed(blocks[done:])
            if count:
                self._unsaid = 0
                self._written += _frames(blocks[done : done + count])
                done += count
            failure = self._file.failure
            if failure is None:
                self.waits_for = ""
                continue
            if self._blocks:
                self.waits_for = failure.strerror or str(failure)
                self._gives_up.wait(RETRY)
            else:
                self._retry_at = time.monotonic() + RETRY
        return done

    def _timed(self, blocks: list[Block]) -> int:
        """Write blocks, and judge how fast the file takes them."""
        begun = time.monotonic()
        count = self._file.write(blocks)
        self._busy += time.monotonic() - begun
        self._busy_bytes += sum(block.size for block in blocks[:count])
        # A file that was slow is trusted again at once.
        if self._busy > (0 if self.is_slow else _MEASURED):
            self.is_slow = self._busy_bytes < SLOW * self._busy
            self._busy = 0.0
            self._busy_bytes = 0
        return count

    def _lose(self, entries: Sequence[Entry], blocks: Sequence[Block]) -> None:
        for entry in entries:
            entry.forget()
        frames = _frames(blocks)
        self._unsaid += frames
        failure = self._file.failure
        self.count(
            frames=frames,
            length=sum(entry.length for entry in entries),
            reason=(failure.strerror or str(failure)) if failure is not None else "",
        )


def _frames(blocks: Sequence[Block]) -> int:
    return sum(block.frames for block in blocks)
