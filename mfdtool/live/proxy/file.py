# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a recording: whole blocks only, space reserved ahead, other files when it is full.

Nothing is ever written behind the file's end before the block there is whole, as far as the
operating system can promise it: a writer that is killed leaves at most one cut block, at the end.
A block that did not fit is taken back. A little space is kept for the last words.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from mfdtool import __version__
from mfdtool.live.proxy.segments import Block, Part
from mfdtool.live.proxy.tap import Interleaved
from mfdtool.live.syscalls import reserve
from mfdtool.packets.info import Interface, Statistics
from mfdtool.packets.link import LinkType
from mfdtool.packets.pcapng_build import (
    interface_description,
    interface_statistics,
    section_header,
)

STEP: Final = 64 << 20
"""Bytes that are reserved at once: fresh pages cost less so."""
_SMALLEST_STEP: Final = 1 << 20
CLOSING: Final = 16 << 10
"""Bytes that only the last words may use."""
APPLICATION: Final = f"mfdtool {__version__} record proxy"

_UNLIMITED: Final = 1 << 62
_MAX_VECTORS: Final = 512
_INTERFACE: Final = Interface(0, LinkType.RAW, name="mfdtool-proxy")


class CaptureFile:
    """A pcapng file, or several one after the other; one thread uses it.

    Attributes:
        paths: the files that there are, oldest first.
        failure: why the last `write` did not write everything; None if it did.
        unreserved: why no space could be reserved when the last file was begun; empty if it was.
    """

    def __init__(
        self,
        path: Path,
        *,
        comments: Sequence[str] = (),
        max_size: int = 0,
        max_files: int = 0,
        preallocate: int = STEP,
    ) -> None:
        """Create the file, with its section header.

        Args:
            path: the first file; what it has is overwritten.
            comments: about the whole recording.
            max_size: bytes after which another file is begun; 0 for one file.
            max_files: how many of them are kept; 0 for all.
            preallocate: bytes to reserve now, before anything has to be fast.

        Raises:
            OSError: it cannot be created or written, or is no regular file.
        """
        self.paths: list[Path] = []
        self.failure: OSError | None = None
        self.unreserved = ""
        self._first = path
        self._comments = tuple(comments)
        self._max_size = max_size
        self._max_files = max_files
        self._number = 0
        self._position = 0
        self._reserved = 0
        self._file = self._open(path, preallocate)

    def write(self, blocks: Sequence[Block]) -> int:
        """Append blocks; give how many of them are in the file, whole.

        If they are not all there, ``failure`` tells why; the others may be given again, unless
        they have an `Interleaved` part.
        """
        self.failure = None
        done = 0
        try:
            while done < len(blocks) and self.failure is None:
                done += self._write_some(blocks[done:])
        except OSError as error:
            self.failure = error
        return done

    def close(self, statistics: Statistics, *, comments: Sequence[str] = ()) -> None:
        """Write the last words, as far as they fit, and close the file."""
        with suppress(OSError):
            self._finish(statistics, comments)
        os.close(self._file)

    def _write_some(self, blocks: Sequence[Block]) -> int:
        """Write as many blocks as one system call takes, or one that is larger; give how many."""
        parts: list[Part] = []
        ends: list[int] = []
        end = self._position
        for block in blocks:
            is_full = self._max_size and end > self._header_size
            if parts and len(parts) + len(block.parts) > _MAX_VECTORS:
                break
            if is_full and end + block.size + CLOSING > self._max_size:
                break
            end += block.size
            ends.append(end)
            parts.extend(block.parts)
        if not ends:
            self._next_file()
            return 0
        try:
            self._make_room(end)
        except OSError:
            if len(ends) == 1:
                raise
            # Not all of them fit: perhaps the first half does.
            return self._write_some(blocks[: len(ends) // 2])
        return self._append(parts, ends)

    def _append(self, parts: Sequence[Part], ends: list[int]) -> int:
        """Write at the end; take back the part of a block that was not written whole."""
        stop = self._position
        try:
            for end in self._written_to(parts):
                stop = end
        except OSError as error:
            self.failure = error
        whole = sum(end <= stop for end in ends)
        if whole:
            self._position = ends[whole - 1]
        if whole < len(ends):
            # Nothing behind it counts, whatever the file system did.
            self._take_back()
            self.failure = self.failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole

    def _written_to(self, parts: Sequence[Part]) -> Iterator[int]:
        """Write parts one behind the other; give how far, until one does not fit.

        Raises:
            OSError: one cannot be written.
        """
        position = self._position
        vectors: list[bytes | memoryview] = []
        for part in (*parts, None):
            if part is not None and not isinstance(part, Interleaved):
                vectors.append(part)
                if len(vectors) < _MAX_VECTORS:
                    continue
            if vectors:
                end = position + sum(map(len, vectors))
                position += os.pwritev(self._file, vectors, position)
                yield position
                if position < end:
                    return
                vectors.clear()
            if isinstance(part, Interleaved):
                part.write_to(self._file, position)
                position += len(part)
                yield position

    def _take_back(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._file, self._position)
        if self._reserved < _UNLIMITED:
            # Cutting the file gave the space behind it back.
            self._reserved = self._position

    def _make_room(self, end: int) -> None:
        """Reserve space up to ``end`` and for the last words.

        Raises:
            OSError: there is not so much.
        """
        step = STEP
        while end + CLOSING > self._reserved:
            try:
                reserve(self._file, self._reserved, step)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    # It cannot be reserved here; writing will tell.
                    self._reserved = _UNLIMITED
                elif step > _SMALLEST_STEP:
                    step //= 2
                else:
                    raise
            else:
                self._reserved += step

    def _open(self, path: Path, preallocate: int) -> int:
        # A pipe that nobody reads would be waited for.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(path, flags, 0o600)
        is_ours = False
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            _claim(file)
            os.ftruncate(file, 0)
            is_ours = True
            self._position = self._reserved = 0
            header = section_header(
                application=APPLICATION, os=os.uname().release, comments=self._comments
            ) + interface_description(_INTERFACE)
            self.unreserved = ""
            try:
                if preallocate:
                    reserve(file, 0, preallocate)
                    self._reserved = preallocate
            except OSError as error:
                self.unreserved = error.strerror or str(error)
            self._position = self._header_size = os.pwrite(file, header, 0)
            if self._header_size < len(header):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError as error:
            if is_ours and self._number:
                # It has nothing, and who reads the recording's files could not read this one.
                with suppress(OSError):
                    path.unlink()
            os.close(file)
            error.filename = str(path)
            raise
        self.paths.append(path)
        return file

    def _next_file(self) -> None:
        """Go on in another file.

        Raises:
            OSError: it cannot be created; then this one stays.
        """
        self._number += 1
        path = self._first.with_suffix(f".{self._number}{self._first.suffix}")
        previous = self._file
        position, reserved = self._position, self._reserved
        try:
            self._file = self._open(path, min(self._max_size, STEP))
        except OSError:
            self._number -= 1
            self._position, self._reserved = position, reserved
            raise
        with suppress(OSError):
            os.ftruncate(previous, position)
        os.close(previous)
        if self._max_files:
            while len(self.paths) > self._max_files:
                with suppress(OSError):
                    self.paths[0].unlink()
                del self.paths[0]

    def _finish(self, statistics: Statistics, comments: Sequence[str]) -> None:
        block = interface_statistics(statistics, ticks=time.time_ns(), comments=comments)
        written = os.pwrite(self._file, block, self._position)
        if written == len(block):
            self._position += written
        # Gives back what was reserved and not used.
        os.ftruncate(self._file, self._position)


def _claim(file: int) -> None:
    """See to it that no other recorder writes this file: not even what it has is touched then.

    Raises:
        OSError: one does.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "another recorder is writing it") from error
    except OSError:
        # There are file systems without locks.
        return
