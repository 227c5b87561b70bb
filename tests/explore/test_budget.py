# SPDX-License-Identifier: GPL-2.0-or-later
"""Budgets of faults: their text, and the variants that they allow."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.explore.budget import NO_FAULTS, parse_budget, variants
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import Drop, parse_fault
from mfdtool.schedule.observation import Observation, observations_of
from tests.support.captures import decoded


@pytest.fixture(name="observation", scope="module")
def observation_fixture() -> Observation:
    decoder, frames = decoded("mtty-4ch-one-packet")
    (observation,) = observations_of(frames, decoder.migrations)
    return observation


def texts(observation: Observation, budget: str) -> list[str]:
    return [" ".join(map(str, faults)) for faults in variants(observation, parse_budget(budget))]


@pytest.mark.parametrize("text", ["drop=1", "drop=1,dup=1,set=1", "corrupt=0,truncate=8"])
def test_text(text: str) -> None:
    assert str(parse_budget(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no kind of fault"),
        ("drop", "is not drop=N"),
        ("drop=9", "is not drop=N"),
        ("drop=-1", "is not drop=N"),
        ("drop=\u0661", "is not drop=N"),
        ("drop=1,drop=1", "drop is there twice"),
        ("hold=1", "all orders are tried anyway"),
        ("melt=1", "there are drop, dup, set, corrupt, truncate, disconnect"),
    ],
)
def test_wrong_text(text: str, why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        parse_budget(text)


def test_no_faults(observation: Observation) -> None:
    assert list(variants(observation, NO_FAULTS)) == [()]
    assert texts(observation, "drop=0") == [""]


def test_drops_are_packets_commands_and_markers(observation: Observation) -> None:
    found = texts(observation, "drop=1")
    kinds = Counter(
        str(frame.kind)
        for faults in found
        if faults
        for fault in [parse_fault(faults)]
        for frame in [fault.address.resolve(observation)]
    )
    commands = {"main.command": kinds["main.command"], "vfio.marker": kinds["vfio.marker"]}
    assert kinds == {"multifd.device_state": 2, **commands}
    assert commands["main.command"] >= 1
    assert commands["vfio.marker"] >= 7


def test_duplicates_go_to_all_channels(observation: Observation) -> None:
    found = texts(observation, "dup=1")
    assert {fault for fault in found if "multifd-3#19" in fault} == {
        "duplicate:multifd-3#19",
        "duplicate:multifd-3#19:multifd-0",
        "duplicate:multifd-3#19:multifd-1",
        "duplicate:multifd-3#19:multifd-2",
    }


def test_sets_are_interesting(observation: Observation) -> None:
    found = [text.removeprefix("set:multifd-3#19:") for text in texts(observation, "set=1")]
    assert [text for text in found if ":" not in text] == [
        "",
        "idx=1",
        "idx=4294967294",
        "idx=4294967295",
        "flags=1",
        "version=1",
        "magic=0",
        "packet_version=0",
        "packet_version=2",
        "instance_id=1",
        "instance_id=4294967295",
        "packet_flags=0",
        "packet_flags=65",
        "next_packet_size=0",
        "next_packet_size=4294967295",
    ]


@pytest.mark.parametrize("kind", ["corrupt", "truncate", "disconnect", "dup", "set"])
def test_every_fault_can_be_made(observation: Observation, kind: str) -> None:
    found = list(variants(observation, parse_budget(f"{kind}=1")))
    assert len(found) > 4
    assert len(set(found)) == len(found)
    for faults in found[1:]:
        lanes = apply(observation, faults).trace.lanes
        assert pickle.dumps(lanes) != pickle.dumps(observation.trace.lanes)


def test_combinations_come_after_single_faults(observation: Observation) -> None:
    found = list(variants(observation, parse_budget("drop=2,disconnect=1")))
    assert [len(faults) for faults in found] == sorted(len(faults) for faults in found)
    assert len(found[-1]) == 3
    for faults in found:
        dropped = {fault.address for fault in faults if isinstance(fault, Drop)}
        others = {fault.address for fault in faults if not isinstance(fault, Drop)}
        assert not dropped & others


def test_a_field_is_set_once(observation: Observation) -> None:
    for faults in texts(observation, "set=2"):
        fields = [fault.rpartition("=")[0] for fault in faults.split()]
        assert len(set(fields)) == len(fields)
