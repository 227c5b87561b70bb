# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that Python's `os` lacks."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

FALLOC_FL_KEEP_SIZE: Final = 1
SPLICE_F_NONBLOCK: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)
_tee: Final = _libc.tee
_tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
_tee.restype = ctypes.c_ssize_t


def reserve(file: int, offset: int, length: int) -> None:
    """Allocate space for a file behind its end, without making it longer (fallocate(2)).

    So a file whose writer is killed does not end with zeroes.

    Raises:
        OSError: there is no space (ENOSPC), or the file system cannot do it (EOPNOTSUPP).
    """
    call = getattr(_libc, "fallocate64", None)
    if call is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(file, FALLOC_FL_KEEP_SIZE, offset, length):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def tee(source: int, target: int, count: int) -> int:
    """Copy up to ``count`` bytes from a pipe to another, where they stay, too (tee(2)).

    Raises:
        BlockingIOError: the target has no room.
        OSError: the system cannot do it.
    """
    copied: int = _tee(source, target, count, SPLICE_F_NONBLOCK)
    if copied < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return copied
