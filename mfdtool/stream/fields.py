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

from mfdtool.stream.field import Field, FieldType, Getter, Scalar
from mfdtool.stream.field_tables import BY_KIND, BY_VALUE, COMMON
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.pci_fields import PCI_CONFIG

FORMAT: Final = 1
"""Version of the JSON that frames are written as."""

WITH_CONFIG: Final = frozenset({Kind.MULTIFD_DEVICE_STATE, Kind.VFIO_MARKER})
"""Kinds of which some frames carry a device's config."""

Shape: TypeAlias = tuple[Kind, type[object]]
"""What decides which fields a frame has: its kind, and the class of its value.

That of a frame that carries a config is ``bytes``, see `shape_of`.
"""


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


def shape_of(frame: Frame) -> Shape:
    """Give the shape of a frame."""
    return frame.kind, type(frame.config or frame.value)


@lru_cache(maxsize=256)
def fields_of(shape: Shape) -> tuple[Field, ...]:
    """List the fields that frames of a shape have, in the order in which they are shown."""
    kind, value = shape
    if value is bytes:
        return COMMON + BY_KIND[kind] + PCI_CONFIG
    fields = BY_VALUE.get(value, BY_KIND[kind])
    if value is NoneType:
        fields = tuple(field for field in fields if not field.path.startswith("value"))
    return COMMON + fields


def values(frame: Frame, *, objects: bool = True) -> dict[str, Scalar]:
    """Give the values that a frame has, by name and in order; ``objects`` only if wanted."""
    getters = _getters_of(shape_of(frame), objects=objects)
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
def _getters_of(shape: Shape, *, objects: bool) -> tuple[tuple[str, Getter], ...]:
    return tuple(
        (field.name, field.getter())
        for field in fields_of(shape)
        if objects or field.type is not FieldType.OBJECT
    )


def _catalog() -> dict[str, tuple[Definition, ...]]:
    """Collect the fields by name; kinds where one is the same share a definition."""
    catalog: dict[str, tuple[Definition, ...]] = {
        field.name: (Definition(field, ()),) for field in COMMON
    }
    for kind, fields in BY_KIND.items():
        for field in (*fields, *(PCI_CONFIG if kind in WITH_CONFIG else ())):
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
