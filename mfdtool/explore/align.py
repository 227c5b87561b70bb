# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds a schedule's order again in a trace that is nearly the same.

A fault that is taken back gives a channel one packet more, or another one in its place. What is
the same before and after it keeps its place in the order; what is new comes right behind the item
before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from mfdtool.loader.events import Connect, DevicePacket, Marker
from mfdtool.schedule.acts import Act, Take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mfdtool.loader.recording import Entry
    from mfdtool.schedule.schedule import Schedule
    from mfdtool.schedule.trace import Trace


def adapted(schedule: Schedule, before: Trace, after: Trace) -> Schedule:
    """Give the order of ``before`` for ``after``; what moved packets do is given up."""
    if schedule.acts is None:
        return replace(schedule, digest=after.digest)
    followers = {lane.token: _followers(before, after, lane.token) for lane in after.lanes}
    counts: Counter[str] = Counter()
    acts: list[Act] = []
    for act in schedule.acts:
        if not isinstance(act, Take):
            acts.append(act)
            continue
        place = counts[act.lane]
        counts[act.lane] += 1
        acts += [Take(act.lane)] * followers.get(act.lane, {}).get(place, 0)
    if counts.total() == len(before.observed):
        # Everything arrived, so it does again.
        taken = Counter(act.lane for act in acts if isinstance(act, Take))
        for lane in after.lanes:
            acts += [Take(lane.token)] * (len(lane.entries) - taken[lane.token])
    return replace(schedule, digest=after.digest, acts=tuple(acts))


def _followers(before: Trace, after: Trace, token: str) -> dict[int, int]:
    """Say how many items of a lane arrive where one did, by its place there."""
    old = before.lanes[before.by_token[token]].entries if token in before.by_token else ()
    new = after.lanes[after.by_token[token]].entries
    head = _common(old, new)
    tail = min(_common(old[::-1], new[::-1]), len(old) - head, len(new) - head)
    counts = dict.fromkeys(range(len(old)), 1)
    middle_old, middle_new = len(old) - head - tail, len(new) - head - tail
    for place in range(head, head + middle_old):
        counts[place] = int(place - head < middle_new)
    extra = middle_new - middle_old
    if extra > 0 and old:
        counts[max(head + middle_old - 1, 0)] += extra
    return counts


def _common(first: Sequence[Entry], second: Sequence[Entry]) -> int:
    """Count the entries that are the same at the beginning."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if _look(one) != _look(other):
            break
        count += 1
    return count


def _look(entry: Entry) -> object:
    """Give what an item is, wherever it is in its channel."""
    event = entry.event
    if isinstance(event, Connect):
        return event
    item = event.item
    if isinstance(item, DevicePacket | Marker):
        return replace(item, data=replace(item.data, key=b""))
    return item
