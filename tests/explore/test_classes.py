# SPDX-License-Identifier: GPL-2.0-or-later
"""Why runs end: the rule that explains it, and what was lost."""

from __future__ import annotations

from typing import Any

import pytest

from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.search import Search
from mfdtool.explore.space import Space
from mfdtool.loader.events import End
from mfdtool.loader.state import Outcome
from mfdtool.stream.span import EndReason
from tests.explore.small import Lanes, destination, good_main, small_trace
from tests.support.playbook import DEVICE, SWITCHOVER, SYNC, packet


def classes(lanes: Lanes, **changes: Any) -> set[tuple[str, str, str]]:
    trace = small_trace(good_main(), lanes)
    found = Search(Space(trace, destination(len(lanes), **changes))).run().witnesses
    return {(kind.outcome.value, kind.rule, kind.device) for kind in found}


def test_lowered_config_aborts() -> None:
    lanes: Lanes = [[SYNC, packet(0), packet(1)], [SYNC, packet(0, config=True)]]
    assert classes(lanes) == {
        ("aborted", "config-lowered", DEVICE),
        ("completed", "data-behind-config", DEVICE),
        ("failed", "idx-duplicate", DEVICE),
        ("stalled", "device-unfinished", DEVICE),
    }


def test_missing_packet_stalls() -> None:
    assert classes([[SYNC, packet(1, config=True)]]) == {("stalled", "device-unfinished", DEVICE)}


def test_lost_switchover_is_silent() -> None:
    main = good_main()
    main.remove(SWITCHOVER)
    trace = small_trace(main, [[SYNC, packet(0, config=True)]])
    found = Search(Space(trace, destination(1))).run().witnesses
    assert list(found) == [OutcomeClass(Outcome.COMPLETED, "switchover-missing", DEVICE)]


def test_data_behind_the_config_is_lost() -> None:
    lanes: Lanes = [[SYNC, packet(0, config=True)], [SYNC, packet(1)]]
    assert classes(lanes) == {("completed", "data-behind-config", DEVICE)}


def test_reset_device_is_lost() -> None:
    trace = small_trace(good_main(), [[SYNC, packet(0, config=True)]])
    made = destination(1)
    spec = made.devices[0]
    mtty = type(spec)(idstr=spec.idstr, mtty_ports=1)
    space = Space(trace, type(made)(devices=(mtty,), channels=1, machine=made.machine))
    kinds = {(kind.outcome.value, kind.rule) for kind in Search(space).run().witnesses}
    assert kinds in ({("completed", "device-reset")}, {("failed", "config-refused")})


def test_three_threads_wait_for_each_other() -> None:
    trace = small_trace(
        good_main(flushes=1), [[SYNC, packet(0), packet(1, config=True), packet(2), SYNC]]
    )
    found = Search(Space(trace, destination(1))).run().witnesses
    assert {kind.rule for kind in found} == {"lock-cycle", "data-behind-config"}


def test_a_reset_connection_fails_before_or_after_the_end() -> None:
    lanes: Lanes = [[SYNC, packet(0, config=True)], [SYNC, End(EndReason.RST)]]
    assert classes(lanes) == {
        ("completed", "", ""),
        ("failed", "connection-reset", ""),
        ("stalled", "device-unfinished", DEVICE),
    }


@pytest.mark.parametrize("rule", ["", "idx-duplicate"])
def test_classes_know_their_rules(rule: str) -> None:
    found = OutcomeClass(Outcome.FAILED, rule)
    assert found.rule_id == ("MFD211" if rule else None)
