# SPDX-License-Identifier: GPL-2.0-or-later
"""A persistent table from idx to what waits there.

Adding to it makes a new table that shares nearly all of the old one, so a state costs little
however many buffers wait, and however far apart their idx are. It is a tree with 32 children per
node; a table's hash is kept up to date, not computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from mfdtool.loader.blob import Blob

_BITS: Final = 5
_WIDTH: Final = 1 << _BITS
_MASK: Final = _WIDTH - 1
_TOP: Final = 30
"""Seven levels of five bits hold any 32-bit idx."""

_Node: TypeAlias = "tuple[_Node | Blob | None, ...]"
_EMPTY_NODE: Final = (None,) * _WIDTH


class Slots:
    """An immutable mapping from 32-bit idx to :class:`Blob`."""

    __slots__ = ("_hash", "_root", "count")

    def __init__(self) -> None:
        self._root: _Node = _EMPTY_NODE
        self._hash = 0
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __contains__(self, idx: int) -> bool:
        return self.get(idx) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Slots):
            return NotImplemented
        return self._hash == other._hash and self._root == other._root

    def __hash__(self) -> int:
        return self._hash

    def __iter__(self) -> Iterator[int]:
        """Give the idx in use, in no useful order."""
        pending = [(self._root, 0, _TOP)]
        while pending:
            node, base, shift = pending.pop()
            for index, child in enumerate(node):
                idx = base | index << shift
                if isinstance(child, Blob):
                    yield idx
                elif child is not None:
                    pending.append((child, idx, shift - _BITS))

    def __repr__(self) -> str:
        return f"Slots({sorted(self)})"

    def get(self, idx: int) -> Blob | None:
        """Look up what waits at an idx."""
        node = self._root
        for shift in range(_TOP, -1, -_BITS):
            child = node[idx >> shift & _MASK]
            if child is None or isinstance(child, Blob):
                return child
            node = child
        return None

    def put(self, idx: int, blob: Blob) -> Slots:
        """Give a table that has ``blob`` at a free idx."""
        return self._changed(idx, blob, self.count + 1, hash((idx, blob)))

    def without(self, idx: int) -> Slots:
        """Give a table with a taken idx free again."""
        return self._changed(idx, None, self.count - 1, hash((idx, self.get(idx))))

    def _changed(self, idx: int, blob: Blob | None, count: int, mark: int) -> Slots:
        changed = Slots.__new__(Slots)
        changed._root = _replaced(self._root, idx, blob) or _EMPTY_NODE
        changed._hash = self._hash ^ mark
        changed.count = count
        return changed


def _replaced(root: _Node, idx: int, blob: Blob | None) -> _Node | None:
    """Copy the path to an idx with another leaf; None instead of a node without children."""
    path: list[_Node] = []
    node = root
    for shift in range(_TOP, 0, -_BITS):
        path.append(node)
        child = node[idx >> shift & _MASK]
        node = _EMPTY_NODE if child is None or isinstance(child, Blob) else child
    path.append(node)
    new: _Node | Blob | None = blob
    for depth, node in enumerate(reversed(path)):
        children = list(node)
        children[idx >> depth * _BITS & _MASK] = new
        # Only where something was taken out a node can have become empty.
        new = None if new is None and children.count(None) == _WIDTH else tuple(children)
    assert not isinstance(new, Blob)
    return new


NO_SLOTS: Final = Slots()
