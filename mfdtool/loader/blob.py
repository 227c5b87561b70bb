# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes by reference, so that the loader's states stay small and comparable.

Two blobs are equal if they have the same key and length: the key names where the bytes were seen,
or is the bytes themselves if there are few. The bytes can be looked at, but take no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

Key = tuple[str, int] | bytes

PICKLED: Final = 1 << 16
"""Bytes of a blob that are pickled; a device's config, which is looked at, is much shorter."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Some bytes of a channel.

    Attributes:
        length: how many there are, captured or not.
        key: what identifies them: channel and number of their frame, or the bytes.
        missing: how many of them nobody has.
        parts: the bytes up to the first missing one.
    """

    length: int
    key: Key
    missing: int = 0
    parts: tuple[memoryview, ...] = field(default=(), compare=False, repr=False)

    def head(self, count: int) -> bytes:
        """Copy the first bytes; fewer if there are no more, or some are missing."""
        found = b""
        for part in self.parts:
            if len(found) >= count:
                break
            found += part[: count - len(found)]
        return found

    def __reduce__(self) -> tuple[Callable[..., Blob], tuple[object, ...]]:
        """Pickle the bytes too, of long ones only as many as a destination looks at."""
        return _unpickled, (self.length, self.key, self.missing, self.head(PICKLED))

    def pieces(self) -> Iterator[memoryview]:
        """Give the bytes, up to the first missing one, without copying them."""
        yield from self.parts


def _unpickled(length: int, key: Key, missing: int, head: bytes) -> Blob:
    return Blob(length, key, missing, (memoryview(head),) if head else ())


EMPTY = Blob(0, b"")


def blob_of(data: bytes) -> Blob:
    """Make a blob from bytes in memory."""
    return Blob(len(data), data, 0, (memoryview(data),))
