# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines made of frames by templates, one template per shape of frame.

A template becomes one f-string expression, compiled once: several times as fast as to make a dict
of each frame first. Like `dataclasses`, this evaluates source text that it has put together; all
of it comes from the tables of fields, and nothing from the input or the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from mfdtool.stream.fields import Shape
    from mfdtool.stream.frames import Frame

Convert: TypeAlias = Callable[[Any], Any]
Write: TypeAlias = "Callable[[Frame], str]"


class Value(NamedTuple):
    """A place in a template for an attribute of the frame, by way of ``convert`` if there is one.

    What that gives is written as ``str`` writes it.
    """

    path: str
    convert: Convert | None = None


def compile_template(pieces: Iterable[str | Value]) -> Write:
    """Make a function that writes frames of one shape: fixed text, and values in between."""
    converts: dict[str, Convert] = {}
    parts = ["''"]
    for piece in pieces:
        if isinstance(piece, str):
            parts.append(repr(piece))
            continue
        value = f"frame.{piece.path}"
        if piece.convert is not None:
            name = f"convert_{len(converts)}"
            converts[name] = piece.convert
            value = f"{name}({value})"
        parts.append(f"f'{{{value}}}'")
    write: Write = eval(f"lambda frame: {' '.join(parts)}", converts)
    return write


class Templates:
    """Writes frames of all shapes; ``compile_shape`` is asked once for each.

    Attributes:
        header: what comes before the first frame.
    """

    header = ""

    def __init__(self, compile_shape: Callable[[Shape], Write]) -> None:
        self._compile = compile_shape
        self._writers: dict[Shape, Write] = {}

    def begin(self, first: Frame) -> None:
        """Take the input's first frame, which changes nothing."""

    def write(self, frame: Frame) -> str:
        """Give a frame's line, with its end."""
        shape = frame.kind, type(frame.config or frame.value)
        writer = self._writers.get(shape)
        if writer is None:
            writer = self._writers[shape] = self._compile(shape)
        return writer(frame)
