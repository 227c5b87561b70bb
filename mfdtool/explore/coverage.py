# SPDX-License-Identifier: GPL-2.0-or-later
"""Which moves of the loader's tables a search has seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from mfdtool.loader.moves import LOAD_MOVES, MAIN_MOVES, RECEIVE_MOVES, Cause, Phase

Move: TypeAlias = tuple[Phase, Cause, Phase]


def _moves() -> tuple[Move, ...]:
    found: list[Move] = []
    for table in (RECEIVE_MOVES, LOAD_MOVES, MAIN_MOVES):
        for (before, cause), phases in table.items():
            found += sorted(
                ((before, cause, after) for after in phases), key=lambda move: move[2].value
            )
    return tuple(found)


MOVES: Final[tuple[Move, ...]] = _moves()
"""All moves of the three tables, in their order."""

_NUMBERS: Final = {move: number for number, move in enumerate(MOVES)}
_THREADS: Final = {"ReceivePhase": "receive", "LoadPhase": "load", "MainPhase": "main"}


class Coverage:
    """Collects moves; the loader calls :meth:`moved`."""

    def __init__(self) -> None:
        self.reached: set[int] = set()

    def moved(self, before: Phase, cause: Cause, after: Phase) -> None:
        """Note a move."""
        self.reached.add(_NUMBERS[before, cause, after])


def missing(reached: Iterable[int]) -> list[str]:
    """Name the moves that were not seen."""
    seen = set(reached)
    return [_text(move) for number, move in enumerate(MOVES) if number not in seen]


def _text(move: Move) -> str:
    before, cause, after = move
    thread = _THREADS[type(before).__name__]
    return f"{thread}: {before.value} -> {after.value} ({cause.value})"
