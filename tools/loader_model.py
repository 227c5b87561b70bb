# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the state diagrams of docs/loader-model.md from the tables that the loader follows.

A diagram stands between ``<!-- diagram NAME -->`` and ``<!-- end -->``. ``python
tools/loader_model.py`` writes the diagrams anew, with ``--check`` it tells whether they are fresh.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

from mfdtool.loader.moves import LOAD_MOVES, MAIN_MOVES, RECEIVE_MOVES

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "loader-model.md"
TABLES: Final[Mapping[str, Mapping[tuple[Any, Any], frozenset[Any]]]] = {
    "receive": RECEIVE_MOVES,
    "load": LOAD_MOVES,
    "main": MAIN_MOVES,
}

_PLACE: Final = re.compile(r"(<!-- diagram (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def diagram(moves: Mapping[tuple[Any, Any], frozenset[Any]]) -> Iterator[str]:
    """Give the lines of a Mermaid diagram; one arrow carries all causes of a move."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, cause), outcomes in moves.items():
        for after in sorted(outcomes, key=lambda phase: str(phase.value)):
            arrows.setdefault((_name(before), _name(after)), []).append(str(cause.value))
    yield "```mermaid"
    yield "stateDiagram-v2"
    for (start, stop), causes in arrows.items():
        yield f"    {start} --> {stop}: {', '.join(causes)}"
    yield "```"


def loader_model() -> str:
    """Give the document with its diagrams drawn anew."""

    def draw(match: re.Match[str]) -> str:
        lines = "\n".join(diagram(TABLES[match[2]]))
        return f"{match[1]}{lines}\n{match[3]}"

    return _PLACE.sub(draw, DOCUMENT.read_text(encoding="utf-8"))


def _name(phase: Enum) -> str:
    return phase.name.lower()


def main(arguments: list[str]) -> int:
    """Write the diagrams, or with ``--check`` give 1 if they are out of date."""
    fresh = loader_model()
    if fresh == DOCUMENT.read_text(encoding="utf-8"):
        return 0
    if "--check" in arguments:
        print("docs/loader-model.md is out of date: make docs")
        return 1
    DOCUMENT.write_text(fresh, encoding="utf-8")
    print("docs/loader-model.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
