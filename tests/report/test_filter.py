# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters: what they let pass, and how they fail."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from mfdtool.report.filter import MAX_DEPTH, MAX_LENGTH, FilterError, compile_filter
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.constants import VFIOMarker
from tests.support.captures import decoded


def passing(text: str) -> list[str]:
    """List the frames of a capture that pass, as channel#number."""
    predicate = compile_filter(text)
    frames = decoded("mtty-4ch-clean")[1]
    return [f"{frame.channel}#{frame.number}" for frame in frames if predicate(frame)]


PACKETS = [
    "multifd-1#19",
    "multifd-1#21",
    "multifd-3#26",
    "multifd-2#21",
    "multifd-2#23",
    "multifd-0#22",
]
"""The device state packets with idx 0, 3, 5 (config), 1, 4, 2."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('kind == "multifd.device_state"', PACKETS),
        ("kind == multifd.device_state", PACKETS),
        ("kind eq 'multifd.device_state'", PACKETS),
        ("idx", PACKETS),
        ("idx >= 0x3", [PACKETS[1], PACKETS[2], PACKETS[4]]),
        ("idx > 2 && idx < 5", [PACKETS[1], PACKETS[4]]),
        ("idx le 1", [PACKETS[0], PACKETS[3]]),
        ("idx != 2", PACKETS[:5]),
        ("is_config", [PACKETS[2]]),
        ("is_config == true", [PACKETS[2]]),
        ("idx && !is_config && channel != multifd-2", [PACKETS[0], PACKETS[1], PACKETS[5]]),
        ("is_config or idx == 0", [PACKETS[0], PACKETS[2]]),
        ("idx == 0 || idx == 1 && channel == multifd-2", [PACKETS[0], PACKETS[3]]),
        ("(idx == 0 || idx == 1) && channel == multifd-2", [PACKETS[3]]),
        ("not (not idx or idx >= 2)", [PACKETS[0], PACKETS[3]]),
        ("idx and time_last > 1795425060.6", PACKETS[3:]),
        ("time_last == 1795425060.704502 and idx", [PACKETS[5]]),
        ("marker == DEV_DATA_STATE", ["main#15", "main#22"]),
        ("value == 0xffffffffef100004", ["main#15", "main#22"]),
        ("value == 0xffffffffef100003", ["main#8"]),
        ("command", ["main#38"]),
        ("command matches SWITCH*", ["main#38"]),
        ("command contains OVER", ["main#38"]),
        ("kind matches main.[ec]* and number < 30", ["main#1"]),
        ("kind == main.eof", ["main#140"]),
        ("blocks contains pc.bios", ["main#3"]),
        ("blocks contains pc", []),
        ("idstr contains 05.0 && idx", PACKETS),
        ("complete == false", []),
        ("!complete", []),
        ("idx matches 4", [PACKETS[4]]),
        ("idx && is_config matches true", [PACKETS[2]]),
    ],
)
def test_passing(text: str, expected: list[str]) -> None:
    assert passing(text) == expected


def test_absent_fields_pass_only_a_negation() -> None:
    frames = len(decoded("mtty-4ch-clean")[1])
    assert len(passing("!idx")) == frames - 6
    assert len(passing("!(idx != 2)")) == frames - 5
    assert Counter(len(passing(text)) for text in ("reason", "missing > 0")) == {0: 2}


def test_one_name_of_two_types() -> None:
    bare = Frame(Kind.VFIO_MARKER, ChannelId(0, "main"), 0, 0, 8, -1, -1, 0)
    assert not compile_filter("value")(bare)
    value = MarkerRecord(VFIOMarker.END_OF_STATE)
    frame = replace(bare, value=value)
    assert compile_filter("value == 0xffffffffef100001")(frame)
    assert compile_filter("value >= 1")(frame)
    assert not compile_filter("value == 1")(frame)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected the name of a field"),
        ("   ", 3, "expected the name of a field"),
        ("indx == 2", 0, "there is no field 'indx'; did you mean idx"),
        ("kind == multifd.ram && nope", 23, "there is no field 'nope'"),
        ("idx ==", 6, "expected a value"),
        ("idx == )", 7, "expected a value"),
        ("idx == two", 7, "idx is an integer, 'two' is not"),
        ("is_config == maybe", 13, "is_config is true or false, 'maybe' is neither"),
        ("is_config > true", 12, "is_config is true or false: use == or !="),
        ("time_last > noon", 12, "time_last is seconds since the epoch, 'noon' is not a number"),
        ("time_last > inf", 12, "time_last is seconds since the epoch, 'inf' is not a number"),
        ("blocks == x", 10, "blocks is a list: use contains"),
        ("(idx == 2", 0, "this parenthesis is not closed"),
        ("idx == 2)", 8, "expected && or || but got ')'"),
        ("idx idx", 4, "expected && or || but got 'idx'"),
        ("idx = 2", 4, "to compare is =="),
        ("idx & idx", 4, "and is &&"),
        ("idx | idx", 4, "or is ||"),
        ('kind == "main', 8, "the text has no closing quote"),
        ("&& idx", 0, "expected the name of a field"),
        ("idx &&", 6, "expected the name of a field"),
        ("!", 1, "expected the name of a field"),
        ("'idx' == 2", 0, "expected the name of a field"),
        ("(" * (MAX_DEPTH + 1), MAX_DEPTH, f"nested deeper than {MAX_DEPTH}"),
        ("!" * 5000, MAX_LENGTH, f"longer than {MAX_LENGTH} characters"),
    ],
)
def test_errors(text: str, position: int, reason: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    assert caught.value.reason.startswith(reason)
    assert caught.value.position == position
    first, shown, caret = str(caught.value).split("\n")
    assert (first, shown.strip()) == (caught.value.reason, text.strip())
    assert caret == " " * (position + 2) + "^"


def test_nesting_as_deep_as_allowed() -> None:
    depth = MAX_DEPTH
    assert passing("!" * depth + "idx") == PACKETS
    assert passing("(" * depth + "idx" + ")" * depth) == PACKETS
    # What was closed does not count.
    assert passing(" || ".join(["(idx)"] * 200)) == PACKETS


def test_quotes() -> None:
    frame = Frame(Kind.GAP, ChannelId(0, "a b"), None, 0, 8, -1, -1, 0, reason='say "x" \\')
    assert compile_filter("channel == 'a b'")(frame)
    assert compile_filter(r'reason == "say \"x\" \\"')(frame)
    assert compile_filter('reason contains "say"')(frame)
    assert not compile_filter("reason contains '\"y\"'")(frame)


def test_patterns_take_linear_time() -> None:
    frame = Frame(Kind.GAP, ChannelId(0, "x"), None, 0, 8, -1, -1, 0, reason="a" * 2000)
    predicate = compile_filter(f"reason matches '{'*a' * 100}b'")
    # What the machine does besides is not counted; trying all ways takes longer than anybody waits.
    start = time.process_time()
    assert not predicate(frame)
    assert time.process_time() - start < 10


def test_any_text_gives_a_filter_or_a_filter_error() -> None:
    random = Random(1)
    words = ("idx", "kind", "==", "<", "&&", "||", "!", "(", ")", "2", '"a"', "contains", "=", "'")
    frames = decoded("mtty-4ch-one-packet")[1][:50]
    outcomes: Counter[bool] = Counter()
    for _ in range(2000):
        text = " ".join(random.choice(words) for _ in range(random.choice((1, 3, 3, 4, 7))))
        try:
            predicate = compile_filter(text)
        except FilterError:
            outcomes[False] += 1
        else:
            assert {type(predicate(frame)) for frame in frames} == {bool}
            outcomes[True] += 1
    assert min(outcomes.values()) > 20
