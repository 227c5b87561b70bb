# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes elements as long as something stays true: delta debugging, down to a 1-minimal rest.

A rest is 1-minimal if taking any single element away makes it false. It need not be the smallest
that there is; it is always the same one, as nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Holds: TypeAlias = Callable[[Sequence[T]], bool]
"""Whether it is true of these elements, which are in their original order."""


def minimal(elements: Sequence[T], holds: Holds[T], *, size: int | None = None) -> tuple[T, ...]:
    """Remove elements while ``holds`` is true of the rest.

    It is taken to be true of all elements. Chunks are removed first, half of all at a time, then
    smaller ones; single elements are tried until none can go. ``size`` is that of the first
    chunks, for what is nearly minimal already.
    """
    kept = tuple(elements)
    size = len(kept) if size is None else min(size, len(kept))
    while size:
        before = len(kept)
        kept = _sweep(kept, size, holds)
        if size > 1 or len(kept) == before:
            size //= 2
    return kept


def _sweep(kept: tuple[T, ...], size: int, holds: Holds[T]) -> tuple[T, ...]:
    """Try to remove each chunk of ``size`` elements, the last one first.

    What comes last is often there only because of what came before.
    """
    stop = len(kept)
    while stop > 0:
        start = max(0, stop - size)
        rest = kept[:start] + kept[stop:]
        if holds(rest):
            kept = rest
        stop = start
    return kept
