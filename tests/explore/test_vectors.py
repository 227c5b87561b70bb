# SPDX-License-Identifier: GPL-2.0-or-later
"""What real destinations made of a migration is among what the search finds for it."""

from __future__ import annotations

import pytest

from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.count import count_orders, orders_in
from mfdtool.explore.search import Search
from mfdtool.explore.space import Space
from mfdtool.loader.assume import assume
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.state import Outcome
from mfdtool.schedule.trace import trace_of
from tests.replay.test_vectors import run_vector
from tests.support.vectors import EXPECTED, real_capture, vector


@pytest.mark.parametrize("name", EXPECTED)
def test_real_outcome_is_found(name: str) -> None:
    _, destination = run_vector(name)
    result = Search(Space(trace_of(vector(name)), destination), limit=20_000).run()
    assert result.is_complete
    assert EXPECTED[name]["outcome"] in {kind.outcome for kind in result.witnesses}


@pytest.mark.parametrize(
    ("name", "orders"),
    [
        ("mtty-4ch-clean", 48),
        ("mtty-2dev-2ch-holes", 20),
        ("mtty-4ch-one-packet", 2),
        ("mtty-8ch-ipv6", 90_720),
        ("mtty-main-stream-only", 1),
    ],
)
def test_good_captures_complete_in_all_orders(name: str, orders: int) -> None:
    recording = real_capture(name)
    trace = trace_of(recording)
    destination, _ = assume(recording, DestinationOptions(), "auto")
    result = Search(Space(trace, destination)).run()
    assert result.is_complete
    assert list(result.witnesses) == [OutcomeClass(Outcome.COMPLETED)]
    assert count_orders(result.graph).explored == orders_in(trace) == orders
