# SPDX-License-Identifier: GPL-2.0-or-later
"""Searches that end early, and coverage of what they saw."""

from __future__ import annotations

from mfdtool.explore.coverage import MOVES, Coverage, missing
from mfdtool.explore.search import Search, acts_of, follow
from mfdtool.explore.shorten import shortened
from mfdtool.explore.space import Node, Space
from mfdtool.loader.events import RamPacket
from mfdtool.loader.state import Outcome
from mfdtool.schedule.acts import Act, Take
from tests.explore.small import Lanes, destination, good_main, small_trace
from tests.support.playbook import SYNC, packet


def space(coverage: Coverage | None = None) -> Space:
    lanes: Lanes = [
        [SYNC, packet(0), packet(1)],
        [SYNC, packet(0, config=True)],
        [SYNC, RamPacket()],
    ]
    trace = small_trace(good_main(), lanes)
    return Space(trace, destination(3), coverage.moved if coverage is not None else None)


def test_limit_and_stop_end_a_search() -> None:
    whole = Search(space()).run()
    assert whole.is_complete
    assert whole.states > 10
    limited = Search(space(), limit=1).run()
    assert (limited.states, limited.is_complete, limited.witnesses) == (1, False, {})
    stopped = Search(space(), stop=lambda: True).run()
    assert not stopped.is_complete


def test_witnesses_are_shortest_and_the_same_each_time() -> None:
    first, second = Search(space()).run(), Search(space()).run()
    assert first.witnesses == second.witnesses
    assert first.states == second.states
    lengths = [len(follow(space(), path)[1]) for path in first.witnesses.values()]
    assert lengths == sorted(lengths)


def test_an_abort_needs_no_more_than_leads_to_it() -> None:
    made = space()
    result = Search(made).run()
    (kind,) = [kind for kind in result.witnesses if kind.outcome is Outcome.ABORTED]
    acts = acts_of(made, follow(made, result.witnesses[kind])[1])
    short = shortened(made, acts, kind)
    assert len(short) < len(acts)
    assert [short.count(Take(lane)) for lane in ("m", "0", "1", "2")] == [8, 3, 3, 2]
    assert made.verdict(_last(made, short)) == kind


def _last(made: Space, acts: tuple[Act, ...]) -> Node:
    """Carry acts out."""
    moves = {made.possible.act(move): move for move in range(made.possible.setup + 1)}
    node, begun = made.start()
    for act in acts[len(begun) :]:
        node = made.after(node, moves[act])
    return node


def test_coverage_names_what_is_missing() -> None:
    coverage = Coverage()
    Search(space(coverage)).run()
    absent = missing(coverage.reached)
    assert len(absent) + len(coverage.reached) == len(MOVES)
    assert "load: looking -> crashed (step)" not in absent
    assert "receive: locked -> ended (terminated)" in absent
    assert missing(range(len(MOVES))) == []
