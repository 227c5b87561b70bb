# SPDX-License-Identifier: GPL-2.0-or-later
"""``info``: read an input to its end and sum it up."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mfdtool.capture.source import STANDARD_INPUT
from mfdtool.report.overview import Overview
from mfdtool.stream.summary import SummaryCollector
from mfdtool.wire.vendors.registry import BUILT_IN, Registry

if TYPE_CHECKING:
    from mfdtool.workflows.reading import Reading


def summarise(reading: Reading, vendors: Registry = BUILT_IN) -> Overview:
    """Read everything and give what there is to know; damage is among its problems.

    ``vendors`` are the drivers that devices' state is compared with.
    """
    collector = SummaryCollector()
    for frame in reading.frames():
        collector.add(frame)
    capture = reading.input.capture
    return Overview(
        path=capture or "",
        size=_size(capture),
        info=reading.info,
        counters=reading.counters,
        migrations=collector.summaries(reading.decoder.migrations),
        others=tuple(reading.decoder.others),
        problems=tuple(reading.problems),
        complete=reading.complete,
        remarks=tuple(reading.remarks),
        vendors=vendors,
    )


def _size(capture: str | None) -> int | None:
    """Give a file's length; None for standard input, and for a file that has gone since."""
    if capture is not None and capture != STANDARD_INPUT:
        with suppress(OSError):
            return Path(capture).stat().st_size
    return None
