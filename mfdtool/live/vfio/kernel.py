# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam to Linux: every system call that a VFIO device takes, and nothing else.

Tests put a kernel of their own in its place, so that all the rest runs without hardware.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from pathlib import Path
from typing import Protocol


class Kernel(Protocol):
    """System calls; each raises OSError as the system call fails."""

    def open(self, path: str) -> int:
        """Open a device node for reading and writing."""
        ...

    def duplicate(self, fd: int) -> int:
        """Give another descriptor of the same open file."""
        ...

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        ...

    def ioctl(self, fd: int, request: int, argument: bytearray | int = 0) -> int:
        """Do a request; a structure is changed in place."""
        ...

    def read(self, fd: int, size: int) -> bytes:
        """Read at most ``size`` bytes."""
        ...

    def write(self, fd: int, data: memoryview) -> int:
        """Write; give how many bytes were taken."""
        ...

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read at most ``size`` bytes at an offset."""
        ...

    def wait(self, fd: int, *, seconds: float, writing: bool) -> bool:
        """Wait until a descriptor can be written to, or read; give whether it can."""
        ...

    def resolve(self, path: str) -> str:
        """Give a path without symbolic links."""
        ...

    def names(self, path: str) -> list[str]:
        """List a folder."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        ...


class LinuxKernel:
    """The kernel that this process runs on."""

    def open(self, path: str) -> int:
        """Open a device node for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def duplicate(self, fd: int) -> int:
        """Give another descriptor of the same open file."""
        return os.dup(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def ioctl(self, fd: int, request: int, argument: bytearray | int = 0) -> int:
        """Do a request; a structure is changed in place."""
        return fcntl.ioctl(fd, request, argument)

    def read(self, fd: int, size: int) -> bytes:
        """Read at most ``size`` bytes."""
        return os.read(fd, size)

    def write(self, fd: int, data: memoryview) -> int:
        """Write; give how many bytes were taken."""
        return os.write(fd, data)

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read at most ``size`` bytes at an offset."""
        return os.pread(fd, size, offset)

    def wait(self, fd: int, *, seconds: float, writing: bool) -> bool:
        """Wait until a descriptor can be written to, or read; give whether it can."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT if writing else select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def resolve(self, path: str) -> str:
        """Give a path without symbolic links."""
        return str(Path(path).resolve(strict=True))

    def names(self, path: str) -> list[str]:
        """List a folder."""
        return sorted(entry.name for entry in Path(path).iterdir())

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return Path(path).exists()


def text_of(error: OSError) -> str:
    """Give what strerror() says, and the number's name, which drivers' authors know."""
    name = errno.errorcode.get(error.errno or 0, "")
    reason = error.strerror or str(error)
    return f"{reason} ({name})" if name else reason
