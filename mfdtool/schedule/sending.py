# SPDX-License-Identifier: GPL-2.0-or-later
"""A schedule as bytes: what a source sends on which connection, in which order.

An item's bytes are those of its frame, and of the frames behind it that no other item was made of.
Of several items of one frame the first has them all. So a lane's items have every byte of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfdtool.errors import SinkError
from mfdtool.loader.events import Connect, Deliver, End
from mfdtool.schedule.acts import Take

if TYPE_CHECKING:
    from mfdtool.loader.recording import Entry
    from mfdtool.schedule.observation import Observation
    from mfdtool.schedule.schedule import Schedule
    from mfdtool.schedule.trace import Lane
    from mfdtool.stream.frames import Frame


@dataclass(frozen=True, slots=True)
class Send:
    """What one act of a schedule makes a source do.

    Attributes:
        position: its place in the order of sending.
        channel: the connection.
        entry: what it is to the destination.
        parts: its bytes.
    """

    position: int
    channel: str
    entry: Entry
    parts: tuple[memoryview, ...]

    @property
    def opens(self) -> bool:
        """Whether the connection is made before the bytes are sent."""
        return isinstance(self.entry.event, Connect)

    @property
    def ends(self) -> End | None:
        """How the connection ends with it; None if it does not."""
        event = self.entry.event
        return event.item if isinstance(event, Deliver) and isinstance(event.item, End) else None


def sends(observation: Observation, schedule: Schedule) -> Iterator[Send]:
    """Give what is sent, in a schedule's order.

    Raises:
        ScheduleError: the schedule is not one of this trace.
        SinkError: bytes of it were not captured.
    """
    frames = {
        id(entry.event): found
        for lane in observation.trace.lanes
        for entry, found in _shares(lane, observation.by_channel.get(lane.name, ()))
    }
    lengths = {each.name: each.stream.length for each in observation.migration.channels}
    for position, (_, entry) in enumerate(schedule.arrivals(observation.trace)):
        if entry is not None:
            parts = tuple(
                part
                for frame in frames[id(entry.event)]
                for part in _parts(frame, lengths[frame.channel.name])
            )
            yield Send(position, entry.channel, entry, parts)


def in_order_of_reading(sent: Iterable[Send], read: Iterable[Entry]) -> list[Send]:
    """Put what is sent in the order in which it is read; what nobody reads comes last.

    Each channel's order stays, as it is read in that order.
    """
    places: dict[int, int] = {}
    for entry in read:
        places.setdefault(id(entry.event), len(places))
    found = sorted(sent, key=lambda send: places.get(id(send.entry.event), len(places)))
    return [replace(send, position=position) for position, send in enumerate(found)]


def steps_of_threads(schedule: Schedule) -> int:
    """Count the steps of load threads and of the main thread, which nobody can enforce outside."""
    return sum(not isinstance(act, Take) for act in schedule.acts or ())


def _shares(lane: Lane, frames: tuple[Frame, ...]) -> Iterator[tuple[Entry, tuple[Frame, ...]]]:
    """Share a lane's frames among its items."""
    places = {frame.number: place for place, frame in enumerate(frames)}
    starts = [
        len(frames) if entry.number is None and number else places.get(entry.number, 0)
        for number, entry in enumerate(lane.entries)
    ]
    behind = [*starts[1:], len(frames)]
    for number in reversed(range(len(starts))):
        # Items of the same frame end where the last of them does.
        if behind[number] <= starts[number]:
            behind[number] = behind[number + 1] if number + 1 < len(starts) else len(frames)
    for number, entry in enumerate(lane.entries):
        is_first = not number or starts[number] > starts[number - 1]
        low = starts[number] if number else 0
        yield entry, frames[low : behind[number]] if is_first else ()


def _parts(frame: Frame, length: int) -> Iterator[memoryview]:
    """Give a frame's bytes, which end with the channel's.

    Raises:
        SinkError: some were not captured.
    """
    position, stop = frame.offset, min(frame.end, length)
    for extent in frame.extents:
        if extent.start > position:
            break
        part = extent.view[position - extent.start : stop - extent.start]
        position += len(part)
        yield part
    if position < stop:
        name = frame.channel.name
        where = name if frame.number is None else f"{name}#{frame.number}"
        raise SinkError(
            f"{where}: {stop - position} bytes from offset {position} on were not captured,"
            " so nothing behind them can be sent"
        )
