# SPDX-License-Identifier: GPL-2.0-or-later
"""``stats``: read an input to its end and measure its packets in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.stream.statistics import By, Measured, StatisticsCollector

if TYPE_CHECKING:
    from mfdtool.stream.selection import DevicesMet, Selection
    from mfdtool.workflows.reading import Reading


def measure(
    reading: Reading, *, by: By, selection: Selection, met: DevicesMet | None = None
) -> Measured:
    """Read everything and give the groups that have selected frames.

    ``met`` learns what devices there are.
    """
    collector = StatisticsCollector(by)
    add = collector.add
    if selection.is_everything:
        for frame in reading.frames():
            add(frame)
    else:
        for frame in reading.frames():
            if met is not None:
                met.add(frame)
            add(frame, counted=frame in selection)
    return collector.measured()
