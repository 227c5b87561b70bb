# SPDX-License-Identifier: GPL-2.0-or-later
"""Acts and their text."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfdtool.errors import ScheduleError
from mfdtool.schedule.acts import MAX_ACTS, Act, Load, SetUp, Take, read_acts, write_acts

LANES = st.sampled_from(["m", "0", "1", "15", "?1", "u0", "t3", "p0", "return-path"])
ACTS: st.SearchStrategy[Act] = st.one_of(
    st.builds(Take, LANES),
    st.builds(Take, LANES, st.integers(0, 999_999_999)),
    st.builds(Load, st.integers(0, 999_999)),
    st.just(SetUp()),
)


@pytest.mark.parametrize(
    ("acts", "text"),
    [
        ((), ""),
        ((Take("m"), Take("0"), Take("1")), "m,0,1"),
        ((Take("m"),) * 36 + (Take("0"),) * 2, "36xm,2x0"),
        ((Take("0"), Take("1")) * 25, "25x0+1"),
        ((Load(0), SetUp()), "d0,s"),
        ((Take("2", 7), Take("2", 7)), "2x2@7"),
        ((Take("m"),) + (Take("0"), Take("1"), Take("1")) * 2, "m,2x0+1+1"),
    ],
)
def test_text(acts: tuple[Act, ...], text: str) -> None:
    assert write_acts(acts) == text
    assert read_acts(text) == acts


@given(st.lists(ACTS, max_size=60), st.integers(1, 5))
def test_round_trip(acts: list[Act], times: int) -> None:
    repeated = acts * times
    text = write_acts(repeated)
    assert read_acts(text) == tuple(repeated)
    assert re.fullmatch(r"[a-z0-9?@,+-]*", text)


def test_every_truncation_is_refused_or_reads_as_what_it_says() -> None:
    text = "36xm,4x0+1,d0,2@7,s"
    refused = 0
    for length in range(len(text)):
        try:
            found = read_acts(text[:length])
        except ScheduleError:
            refused += 1
        else:
            assert read_acts(write_acts(found)) == found
    assert refused == 8


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "m,",
        ",m",
        "x",
        "3x",
        "0xm",
        "-1xm",
        "2x3xm",
        "m+",
        "+m",
        "m m",
        "M",
        "d1234567",
        "@1",
        "m@",
        "m@-1",
        "m@1234567890",
        "1234567890xm",
        "\u0661",
        "m\n",
        "m;reboot",
    ],
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ScheduleError):
        read_acts(text)


@pytest.mark.parametrize("text", ["999999999xm", f"{MAX_ACTS}xm,m", f"{MAX_ACTS // 2 + 1}xm+0"])
def test_short_text_for_endless_schedules_is_refused_before_it_is_built(text: str) -> None:
    with pytest.raises(ScheduleError, match="more than 100000000 steps"):
        read_acts(text)


def test_hostile_texts_end_in_a_schedule_or_an_error() -> None:
    rng = random.Random(7)
    alphabet = "m01d@x+,s?u-:\0 \u0661Z9"
    for _ in range(3000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(12)))
        try:
            acts = read_acts(text)
        except ScheduleError:
            continue
        assert read_acts(write_acts(acts)) == acts


class Counted(str):
    """A word that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__ne__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("kind", ["one lane", "round robin", "random", "broken period"])
def test_writing_takes_a_bounded_number_of_comparisons(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    size = 4000
    lanes = {
        "one lane": ["0"] * size,
        "round robin": [str(at % 8) for at in range(size)],
        "random": [str(rng.randrange(8)) for _ in range(size)],
        "broken period": [str(at % 15 if at % 31 else 3) for at in range(size)],
    }[kind]
    monkeypatch.setattr(Take, "__str__", lambda act: Counted(act.lane))
    Counted.comparisons = 0
    write_acts([Take(lane) for lane in lanes])
    assert 0 < Counted.comparisons < 60 * size
