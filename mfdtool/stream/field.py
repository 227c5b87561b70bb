# SPDX-License-Identifier: GPL-2.0-or-later
"""What a field of a frame is: a name, a type, a meaning, and how its value is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, TypeAlias

from mfdtool.stream.frames import Frame

Scalar: TypeAlias = int | str | bool | list[Any] | dict[str, Any] | None
"""A value as JSON has it."""

Getter: TypeAlias = Callable[[Frame], Scalar]


class FieldType(Enum):
    """What a field's value is, in JSON."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"
    HEX = "hex string"
    """A number that JSON readers would round: a string like ``0xffffffffef100004``."""
    TIME = "time"
    """Seconds since the epoch: a decimal string with nine digits behind the point."""
    LIST = "list"
    OBJECT = "object"
    """Named values, which may be lists and objects; they take long to make."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of one kind of frame.

    Attributes:
        name: what users call it.
        type: what its value is.
        path: the attribute of `Frame`, dotted, that it is made from.
        meaning: one clause for people.
        source: where QEMU declares it, as ``file.c:symbol``; empty if it is mfdtool's own.
        convert: makes the value of the attribute; None if it is the value.
        optional: whether the value can be None.
    """

    name: str
    type: FieldType
    path: str
    meaning: str
    source: str = ""
    convert: Callable[[Any], Scalar] | None = None
    optional: bool = False

    def getter(self) -> Getter:
        """Give a function that takes the value out of a frame."""
        get = attrgetter(self.path)
        convert = self.convert
        if convert is None:
            return get
        return lambda frame: convert(get(frame))
