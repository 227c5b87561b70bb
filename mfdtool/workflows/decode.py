# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool decode``: from an input to text, frame by frame as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from mfdtool.report.csv import DEFAULT_COLUMNS, CsvLines, TabLines
from mfdtool.report.hexdump import hexdump
from mfdtool.report.jsonl import JsonLines
from mfdtool.report.text import TextLines
from mfdtool.report.tree import Tree
from mfdtool.stream.frames import Frame
from mfdtool.stream.selection import DevicesMet, Selection
from mfdtool.workflows.reading import Reading

Predicate: TypeAlias = Callable[[Frame], bool]


class OutputFormat(StrEnum):
    """How frames are written."""

    TEXT = "text"
    TREE = "tree"
    JSONL = "jsonl"
    CSV = "csv"
    SCAPY = "scapy"


class Renderer(Protocol):
    """Writes frames.

    Attributes:
        header: what comes before the first frame.
    """

    @property
    def header(self) -> str: ...

    def begin(self, first: Frame) -> None:
        """Take the input's first frame, whether it is to be written or not."""

    def write(self, frame: Frame) -> str:
        """Give the text for a frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write.

    Attributes:
        format: how.
        fields: the columns or keys, none for the format's usual ones.
        selection: which frames.
        predicate: which of those; None for all.
        count: how many frames at most; None for all.
        hexdump: whether each frame's bytes follow it.
        full: whether the hex dump leaves nothing out.
        colour: whether text may be coloured.
    """

    format: OutputFormat = OutputFormat.TEXT
    fields: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    predicate: Predicate | None = None
    count: int | None = None
    hexdump: bool = False
    full: bool = False
    colour: bool = False

    @property
    def needs_extents(self) -> bool:
        """Whether frames must refer to their bytes, which takes longer."""
        return self.hexdump or self.format in {OutputFormat.TREE, OutputFormat.SCAPY}


def decode(reading: Reading, plan: Plan, *, met: DevicesMet | None = None) -> Iterator[str]:
    """Give the text of an input's frames, piece by piece; ``met`` learns what devices there are.

    Raises:
        UnknownFieldError: a name in ``plan.fields`` is no field.
    """
    renderer = renderer_for(plan)
    return _pieces(reading, plan, renderer, met)


def renderer_for(plan: Plan) -> Renderer:
    """Choose what writes the frames.

    Raises:
        UnknownFieldError: a name in ``plan.fields`` is no field.
    """
    if plan.format is OutputFormat.JSONL:
        return JsonLines(plan.fields)
    if plan.format is OutputFormat.CSV:
        return CsvLines(plan.fields or DEFAULT_COLUMNS)
    if plan.format is OutputFormat.TREE:
        return Tree(colour=plan.colour)
    if plan.format is OutputFormat.SCAPY:
        # Scapy takes long to import, and nothing else here needs it.
        from dissectors.show import Layers

        return Layers()
    return TabLines(plan.fields) if plan.fields else TextLines(colour=plan.colour)


def _pieces(
    reading: Reading, plan: Plan, renderer: Renderer, met: DevicesMet | None
) -> Iterator[str]:
    if renderer.header:
        yield renderer.header
    write = renderer.write
    for frames in _wanted(reading, plan, renderer, met):
        if not plan.hexdump:
            yield from map(write, frames)
            continue
        for frame in frames:
            yield write(frame)
            yield from hexdump(frame, full=plan.full)


def _wanted(
    reading: Reading, plan: Plan, renderer: Renderer, met: DevicesMet | None
) -> Iterator[list[Frame]]:
    """Give the frames to be written in batches: that is less work for each than one by one."""
    left = plan.count
    begun = False
    for batch in _batches(reading, plan):
        if batch and not begun:
            renderer.begin(batch[0])
            begun = True
        if met is not None:
            for frame in batch:
                met.add(frame)
        frames = _chosen(batch, plan)
        yield frames
        if left is not None:
            left -= len(frames)
            if not left:
                return


def _batches(reading: Reading, plan: Plan) -> Iterator[list[Frame]]:
    """Give all frames; one by one if what comes after the last one wanted must not matter."""
    if plan.count is not None:
        yield from ([frame] for frame in reading.frames())
        return
    for batch in reading.batches():
        reading.note(batch)
        yield batch


def _chosen(batch: list[Frame], plan: Plan) -> list[Frame]:
    selection, predicate = plan.selection, plan.predicate
    if not selection.is_everything:
        batch = [frame for frame in batch if frame in selection]
    return batch if predicate is None else list(filter(predicate, batch))
