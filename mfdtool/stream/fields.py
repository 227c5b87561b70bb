# SPDX-License-Identifier: GPL-2.0-or-later
"""The named values of frames: what JSON, tables, filters and documentation call them.

A value that does not apply is None, and is left out of what :func:`values` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import NoneType
from typing import Final, TypeAlias

from mfdtool.stream.field import Field, Getter, Scalar
from mfdtool.stream.field_tables import BY_KIND, BY_VALUE, COMMON
from mfdtool.stream.frames import Frame, Kind

FORMAT: Final = 1
"""Version of the JSON that frames are written as."""

Shape: TypeAlias = tuple[Kind, type[object]]
"""What decides which fields a frame has: its kind, and the class of its value."""


class UnknownFieldError(ValueError):
    """No kind of frame has a field of this ``name``; ``similar`` ones exist."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self.similar = tuple(get_close_matches(name, CATALOG))

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(self.similar)}?" if self.similar else ""
        return f"there is no field {self.name!r}{hint}"


@dataclass(frozen=True, slots=True)
class Definition:
    """A field as the kinds of frames in ``kinds`` have it; none are named if all have it."""

    field: Field
    kinds: tuple[Kind, ...]


@lru_cache(maxsize=256)
def fields_of(shape: Shape) -> tuple[Field, ...]:
    """List the fields that frames of a shape have, in the order in which they are shown."""
    kind, value = shape
    fields = BY_VALUE.get(value, BY_KIND[kind])
    if value is NoneType:
        fields = tuple(field for field in fields if not field.path.startswith("value"))
    return COMMON + fields


def values(frame: Frame) -> dict[str, Scalar]:
    """Give the values that a frame has, by name and in order."""
    getters = _getters_of((frame.kind, type(frame.value)))
    return {name: value for name, get in getters if (value := get(frame)) is not None}


def field_of(shape: Shape, name: str) -> Field | None:
    """Find a field of frames of a shape; None if they have it not."""
    return next((field for field in fields_of(shape) if field.name == name), None)


def definitions_of(name: str) -> tuple[Definition, ...]:
    """Give what a field is in the kinds of frames that have it.

    Raises:
        UnknownFieldError: no kind of frame has it.
    """
    try:
        return CATALOG[name]
    except KeyError:
        raise UnknownFieldError(name) from None


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Give the names back if they all are fields.

    Raises:
        UnknownFieldError: one is not.
    """
    checked = tuple(names)
    for name in checked:
        definitions_of(name)
    return checked


@lru_cache(maxsize=256)
def _getters_of(shape: Shape) -> tuple[tuple[str, Getter], ...]:
    return tuple((field.name, field.getter()) for field in fields_of(shape))


def _catalog() -> dict[str, tuple[Definition, ...]]:
    """Collect the fields by name; kinds where one is the same share a definition."""
    catalog: dict[str, tuple[Definition, ...]] = {
        field.name: (Definition(field, ()),) for field in COMMON
    }
    for kind, fields in BY_KIND.items():
        for field in fields:
            known = catalog.get(field.name, ())
            catalog[field.name] = _with_kind(known, kind, field)
    return catalog


def _with_kind(known: tuple[Definition, ...], kind: Kind, field: Field) -> tuple[Definition, ...]:
    for at, definition in enumerate(known):
        other = definition.field
        if (other.type, other.meaning, other.source) == (field.type, field.meaning, field.source):
            merged = Definition(other, (*definition.kinds, kind))
            return (*known[:at], merged, *known[at + 1 :])
    return (*known, Definition(field, (kind,)))


CATALOG: Final[Mapping[str, tuple[Definition, ...]]] = _catalog()
"""All fields by name, those that all frames have first."""
