# SPDX-License-Identifier: GPL-2.0-or-later
"""How many orders there are, and how many were run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.explore import count
from mfdtool.explore.count import count_orders, orders_in
from mfdtool.explore.search import Search
from mfdtool.explore.space import Space
from tests.explore.small import Lanes, destination, good_main, small_trace
from tests.support.playbook import SYNC, packet


def test_multinomials_of_epochs() -> None:
    lanes: Lanes = [
        [SYNC, packet(0), packet(1), SYNC, packet(2)],
        [SYNC, packet(3), SYNC, packet(4, config=True)],
    ]
    trace = small_trace(good_main(flushes=1), lanes)
    assert orders_in(trace) == 3 * 2
    result = Search(Space(trace, destination(2))).run()
    assert count_orders(result.graph).explored == 6


def test_no_packets_have_one_order() -> None:
    trace = small_trace(good_main(), [[SYNC]])
    assert orders_in(trace) == 1
    assert count_orders(Search(Space(trace, destination(1))).run().graph).explored == 1


def test_what_cannot_be_counted() -> None:
    assert orders_in(small_trace(good_main(), [[SYNC, packet(0)], [packet(1)]])) is None
    cut = replace(packet(0), is_cut=True)
    assert orders_in(small_trace(good_main(), [[SYNC, cut]])) is None
    short = replace(packet(0), idx=None)
    assert orders_in(small_trace(good_main(), [[SYNC, short]])) is None


def test_an_order_cut_short_counts_once() -> None:
    lanes: Lanes = [[SYNC, packet(0), packet(0), packet(1, config=True)]]
    trace = small_trace(good_main(), lanes)
    counts = count_orders(Search(Space(trace, destination(1))).run().graph)
    assert orders_in(trace) == 1
    assert counts.explored == 1
    assert sum(counts.ends.values()) == 2


def test_counting_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "_LEAST_WORK", 0)
    monkeypatch.setattr(count, "_WORK", 0)
    trace = small_trace(good_main(), [[SYNC, packet(0, config=True)]])
    counts = count_orders(Search(Space(trace, destination(1))).run().graph)
    assert counts.explored is None


def test_unfinished_orders_are_not_counted() -> None:
    lanes: Lanes = [[SYNC, packet(0)], [SYNC, packet(1, config=True)]]
    trace = small_trace(good_main(), lanes)
    space = Space(trace, destination(2))
    result = Search(space, packets=1).run()
    counts = count_orders(result.graph)
    assert not result.is_complete
    assert counts.explored == 0
    assert sum(counts.cut.values()) == 2
