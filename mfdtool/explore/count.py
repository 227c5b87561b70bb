# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts orders of device packets: those that there are, and those that a search has run.

An order says which device packet is delivered when, and nothing about other threads, so one order
may stand for many runs and end in several ways. The channels' own orders and the SYNCs bound it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import factorial
from typing import TYPE_CHECKING, Final

from mfdtool.schedule.trace import is_sync, packet_of

if TYPE_CHECKING:
    from mfdtool.explore.classes import OutcomeClass
    from mfdtool.explore.search import Graph
    from mfdtool.schedule.trace import Trace

UNIT: Final = "orders of device packets"

_WORK: Final = 20
"""How many times as much work as the search itself counting may be, in nodes looked at."""

_LEAST_WORK: Final = 100_000


@dataclass(slots=True)
class Counts:
    """Orders that were run to an end; one that the destination's end cuts short counts once.

    Attributes:
        explored: how many; None if they are too many to be told apart.
        ends: how many of them end in each class.
        cut: orders that a search which does not go on left unfinished: the nodes that each leads
            to, and how many orders lead to these.
    """

    explored: int | None = 0
    ends: Counter[OutcomeClass] = field(default_factory=Counter)
    cut: dict[tuple[int, ...], int] = field(default_factory=dict)


def orders_in(trace: Trace) -> int | None:
    """Count the orders in which a trace's device packets can be delivered.

    None if that depends on more than the channels: if some have more SYNCs than others, or a packet
    is no proper one.
    """
    epochs: list[Counter[int]] = []
    syncs = set()
    for number, lane in enumerate(trace.lanes):
        epoch = 0
        for entry in lane.entries:
            packet = packet_of(entry)
            if packet is not None:
                if packet.is_cut or packet.idx is None or not packet.is_terminated:
                    return None
                while len(epochs) <= epoch:
                    epochs.append(Counter())
                epochs[epoch][number] += 1
            epoch += is_sync(entry)
        if not lane.is_main:
            syncs.add(epoch)
    if len(syncs) > 1:
        return None
    total = 1
    for counts in epochs:
        total *= factorial(counts.total())
        for count in counts.values():
            total //= factorial(count)
    return total


def count_orders(
    graph: Graph, *, roots: Sequence[tuple[Sequence[int], int]] | None = None
) -> Counts:
    """Count the orders that a search has run.

    Runs with the same order are found together: one behind the other, sets of nodes that an order
    can have led to. ``roots`` are such sets and how many orders lead to each.
    """
    counts = Counts()
    budget = max(_LEAST_WORK, _WORK * len(graph.starts))
    layer: Counter[tuple[int, ...]] = Counter()
    for nodes, times in [(graph.roots, 1)] if roots is None else roots:
        layer[tuple(sorted(set(nodes)))] += times
    explored = 0
    while layer:
        following: Counter[tuple[int, ...]] = Counter()
        for alike, times in layer.items():
            seen, letters = _closure(graph, alike)
            budget -= len(seen)
            ends = {graph.ends[node] for node in seen if node in graph.ends}
            for end in ends:
                counts.ends[end] += times
            cut = tuple(sorted(node for node in seen if graph.starts[node] < 0))
            if cut:
                counts.cut[cut] = counts.cut.get(cut, 0) + times
            elif not letters:
                explored += times
            for targets in letters.values():
                following[tuple(sorted(targets))] += times
            if budget < 0:
                counts.explored = None
                return counts
        layer = following
    counts.explored = explored
    return counts


def _closure(graph: Graph, nodes: Sequence[int]) -> tuple[set[int], dict[int, set[int]]]:
    """Give all nodes that can be reached without a device packet, and by each one's lane."""
    seen = set(nodes)
    pending = list(nodes)
    letters: dict[int, set[int]] = {}
    while pending:
        node = pending.pop()
        start = graph.starts[node]
        if start < 0:
            continue
        for edge in graph.edges[start : start + graph.degrees[node]]:
            target, letter = divmod(edge, graph.lanes)
            if letter:
                letters.setdefault(letter, set()).add(target)
            elif target not in seen:
                seen.add(target)
                pending.append(target)
    return seen, letters
