# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a device's data to a descriptor, as QEMU's destination writes it to a device's data fd.

A short write goes on with the rest. Any error ends the loading with that errno, EAGAIN too: QEMU
does not wait for a descriptor that is non-blocking (vfio/migration-multifd.c:
vfio_load_state_buffer_write, migration/qemu-file.c:qemu_file_get_to_fd). A blocking descriptor is
waited for as long as it takes.

The descriptor stays open, and nothing but writing is done to it.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final, Self

from mfdtool.errors import SinkError
from mfdtool.loader.errno import EIO
from mfdtool.replay.sink import Order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from mfdtool.loader.blob import Blob
    from mfdtool.loader.state import Outcome

_LARGEST: Final = 1 << 30
"""Bytes that one write() is asked to take; Linux takes no more than 2 GiB at once."""


class FdSink:
    """One device's data goes to a descriptor; a context manager.

    Attributes:
        written: bytes that the descriptor took.
        failure: the first write that failed, in words; empty if none did.
        notes: nothing.
    """

    def __init__(self, number: int, device: int) -> None:
        """Remember the descriptor's number and the device's; nothing is touched yet."""
        self._fd = number
        self._device = device
        self.written = 0
        self.failure = ""
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Check the descriptor.

        Raises:
            SinkError: it is not open, or not for writing.
        """
        try:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        except OSError as error:
            raise SinkError(f"{self.name}: {error.strerror}: is it inherited?") from error
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise SinkError(f"{self.name}: it is open for reading only")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the descriptor as it is: it is not ours."""

    @property
    def name(self) -> str:
        """What ``--to`` calls it."""
        return f"fd:{self._fd}"

    @property
    def order(self) -> Order:
        """Bytes are written in the order in which the model writes them."""
        return Order.EXACT

    def write(self, device: int, idx: int | None, data: Blob) -> int | None:
        """Write a buffer; give the errno, 0 if all of it was taken, None for another device.

        Raises:
            SinkError: some of its bytes were not captured, or the descriptor takes none and
                gives no error either.
        """
        if device != self._device:
            return None
        what = what_of(idx)
        check_captured(data, f"{self.name}: {what}", self.written)
        rest = joined(data)
        try:
            while rest:
                count = os.write(self._fd, rest[:_LARGEST])
                if not count:
                    return self._no_progress(idx, what)
                self.written += count
                rest = rest[count:]
        except OSError as error:
            return self._failed(error, f"{what}: {data.length - len(rest)} of {data.length} bytes")
        return 0

    def finish(self, outcome: Outcome | None) -> Mapping[int, bool]:
        """Know nothing of what becomes of the data."""
        return {}

    def _failed(self, error: OSError, what: str) -> int:
        assert error.errno is not None
        text = f"{what} written, then errno {error.errno} ({error.strerror})"
        if isinstance(error, BlockingIOError):
            text += "; it is non-blocking, and QEMU does not wait"
        self.failure = self.failure or text
        return error.errno

    def _no_progress(self, idx: int | None, what: str) -> int:
        """Judge a write that took nothing: the main thread gives up, a load thread never does."""
        if idx is not None:
            raise SinkError(f"{self.name}: {what}: write() takes nothing, QEMU would try for ever")
        self.failure = self.failure or f"{what}: write() takes nothing"
        return EIO


def is_open(number: int) -> bool:
    """Whether a descriptor is open: to be asked before any file of our own can get its number."""
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def what_of(idx: int | None) -> str:
    """Name a buffer; None is what came in the main stream."""
    return "data of the main stream" if idx is None else f"idx {idx}"


def check_captured(data: Blob, what: str, written: int) -> None:
    """Check that all bytes of a buffer are there.

    Raises:
        SinkError: some were not captured.
    """
    if data.missing:
        raise SinkError(
            f"{what}: {data.missing} of {data.length} bytes were not captured;"
            f" {written} bytes before it were written, nothing of it"
        )


def joined(data: Blob) -> memoryview:
    """Put a buffer into one piece, as QEMU has it."""
    if len(data.parts) == 1:
        return data.parts[0]
    return memoryview(b"".join(data.pieces()))
