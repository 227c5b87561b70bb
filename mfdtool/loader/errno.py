# SPDX-License-Identifier: GPL-2.0-or-later
"""Error numbers as Linux has them, and what strerror() says: the destination is Linux, always."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EPERM: Final = 1
EIO: Final = 5
ENOMEM: Final = 12
EFAULT: Final = 14
EINVAL: Final = 22
ERANGE: Final = 34
ENOTSUP: Final = 95

_UNNAMED: Final[Mapping[int, str]] = {
    4: "Interrupted system call",
    6: "No such device or address",
    9: "Bad file descriptor",
    11: "Resource temporarily unavailable",
    13: "Permission denied",
    16: "Device or resource busy",
    19: "No such device",
    27: "File too large",
    28: "No space left on device",
    32: "Broken pipe",
    61: "No data available",
    71: "Protocol error",
    74: "Bad message",
    75: "Value too large for defined data type",
    103: "Software caused connection abort",
    104: "Connection reset by peer",
    107: "Transport endpoint is not connected",
    108: "Cannot send after transport endpoint shutdown",
    110: "Connection timed out",
    122: "Disk quota exceeded",
    125: "Operation canceled",
}
"""What write() of a real descriptor may also give."""

_TEXTS: Final[Mapping[int, str]] = {
    EPERM: "Operation not permitted",
    EIO: "Input/output error",
    ENOMEM: "Cannot allocate memory",
    EFAULT: "Bad address",
    EINVAL: "Invalid argument",
    ERANGE: "Numerical result out of range",
    ENOTSUP: "Operation not supported",
}


def strerror(number: int) -> str:
    """Give the text of a number, the number itself if it is none of the above."""
    return _TEXTS.get(number) or _UNNAMED.get(number) or f"errno {number}"
