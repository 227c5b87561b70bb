# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration as it was captured: the source of recordings, and what faults are made in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mfdtool.schedule.observed import recording_of
from mfdtool.schedule.trace import Trace, trace_of

if TYPE_CHECKING:
    from mfdtool.loader.recording import Recording
    from mfdtool.stream.frames import Frame
    from mfdtool.stream.migration import Migration


@dataclass(frozen=True)
class Observation:
    """One migration's channels and frames.

    Attributes:
        migration: the channels, and what they belong to.
        frames: all its frames in the order of arrival, with their bytes.
    """

    migration: Migration
    frames: tuple[Frame, ...]

    @cached_property
    def recording(self) -> Recording:
        """The same as events for the loader."""
        return recording_of(self.migration, self.frames)

    @cached_property
    def trace(self) -> Trace:
        """The same as lanes for schedules."""
        return trace_of(self.recording)

    @cached_property
    def by_channel(self) -> dict[str, tuple[Frame, ...]]:
        """The frames of each channel."""
        channels: dict[str, list[Frame]] = {}
        for frame in self.frames:
            channels.setdefault(frame.channel.name, []).append(frame)
        return {name: tuple(frames) for name, frames in channels.items()}


def observations_of(frames: Iterable[Frame], migrations: list[Migration]) -> list[Observation]:
    """Sort the frames of a capture, in order of arrival and with their bytes, by migration.

    ``migrations`` is the decoder's list; it is looked at when the frames are through.
    """
    by_migration: dict[int, list[Frame]] = {}
    for frame in frames:
        by_migration.setdefault(frame.channel.migration, []).append(frame)
    return [
        Observation(migration, tuple(by_migration.get(migration.index, ())))
        for migration in migrations
    ]
