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
    """Give the text of one of the numbers above."""
    return _TEXTS[number]
