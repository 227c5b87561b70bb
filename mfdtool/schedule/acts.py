# SPDX-License-Identifier: GPL-2.0-or-later
"""What a schedule is made of, and its text in run-length form.

::

    m,0,1                  the main channel's next item, then multifd-0's, then multifd-1's
    36xm,2x0               36 items of the main channel, two of multifd-0
    25x0+1                 one of multifd-0 and one of multifd-1, 25 times
    d0,s                   a step of device 0's load thread, one of the main thread's setup
    2@7                    device packet 7 (in the order of arrival, from 0) moved to multifd-2

No character of it needs quoting in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final, TypeAlias

from mfdtool.errors import ScheduleError

MAX_ACTS: Final = 100_000_000
"""No schedule's text may stand for more: each act takes memory."""

_MAX_PERIOD: Final = 16
_ITEM: Final = re.compile(r"(?:([1-9][0-9]{0,8})x)?([^,x]+)")
_LOAD: Final = re.compile(r"d([0-9]{1,6})")
_MOVED: Final = re.compile(r"([^@]+)@([0-9]{1,9})")
_LANE: Final = re.compile(r"[a-z?]{0,8}[0-9]{0,6}|[a-z-]+")
_SETUP: Final = "s"


@dataclass(frozen=True, slots=True)
class Take:
    """The next item of a lane arrives; its thread reads it as soon as it can.

    With ``packet``, what arrives is that device packet, moved from wherever it was recorded.
    """

    lane: str
    packet: int | None = None

    def __str__(self) -> str:
        return self.lane if self.packet is None else f"{self.lane}@{self.packet}"


@dataclass(frozen=True, slots=True)
class Load:
    """A device's load thread takes one step."""

    device: int

    def __str__(self) -> str:
        return f"d{self.device}"


@dataclass(frozen=True, slots=True)
class SetUp:
    """The main thread takes one half-step of setting the devices up."""

    def __str__(self) -> str:
        return _SETUP


Act: TypeAlias = Take | Load | SetUp


def write_acts(acts: Sequence[Act]) -> str:
    """Write acts in run-length form."""
    words = [str(act) for act in acts]
    items: list[str] = []
    at = 0
    while at < len(words):
        period, count = _repetition(words, at)
        group = "+".join(words[at : at + period])
        items.append(group if count == 1 else f"{count}x{group}")
        at += period * count
    return ",".join(items)


def read_acts(text: str, most: int = MAX_ACTS) -> tuple[Act, ...]:
    """Read what :func:`write_acts` wrote.

    Raises:
        ScheduleError: it is no such text, or stands for more than ``most`` acts.
    """
    # Nothing is repeated before all of the text is known to be short enough.
    runs = list(_runs(text, most))
    return tuple(chain.from_iterable(chain.from_iterable(repeat(*run) for run in runs)))


def _runs(text: str, most: int) -> Iterator[tuple[list[Act], int]]:
    """Give groups of acts, and how often each comes."""
    total = 0
    for item in _items(text):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ScheduleError(f"{_shown(item)} is no step of a schedule")
        count = int(match[1] or 1)
        group = [_act(word) for word in match[2].split("+")]
        total += count * len(group)
        if total > most:
            raise ScheduleError(f"the schedule has more than {most} steps")
        yield group, count


def _items(text: str) -> Iterator[str]:
    """Split at commas, as far as somebody reads."""
    start = 0
    while text and start <= len(text):
        stop = text.find(",", start)
        stop = len(text) if stop < 0 else stop
        yield text[start:stop]
        start = stop + 1


def _act(word: str) -> Act:
    if word == _SETUP:
        return SetUp()
    if match := _LOAD.fullmatch(word):
        return Load(int(match[1]))
    if match := _MOVED.fullmatch(word):
        return Take(_lane(match[1]), int(match[2]))
    return Take(_lane(word))


def _lane(word: str) -> str:
    if not word or not _LANE.fullmatch(word):
        raise ScheduleError(f"{_shown(word)} is no step of a schedule")
    return word


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _repetition(words: Sequence[str], at: int) -> tuple[int, int]:
    """Find the repetition at a place that says most with least: its period and count."""
    best = (1, 1)
    best_gain = 0
    for period in range(1, _MAX_PERIOD + 1):
        if at + 2 * period > len(words):
            break
        if best_gain >= period and words[at + period] != words[at]:
            continue
        count = _count(words, at, period)
        gain = (count - 1) * period
        if count > 1 and gain > best_gain:
            best, best_gain = (period, count), gain
    return best


def _count(words: Sequence[str], at: int, period: int) -> int:
    """Count how often a group of words comes, one behind the other."""
    stop = at + period
    while stop < len(words) and words[stop] == words[stop - period]:
        stop += 1
    return (stop - at) // period


def takes(lanes: Iterable[str]) -> tuple[Act, ...]:
    """Let items arrive, lane by lane."""
    known: dict[str, Take] = {}
    return tuple(known.setdefault(lane, Take(lane)) for lane in lanes)
