# SPDX-License-Identifier: GPL-2.0-or-later
"""Quickly made values are the same as others."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from mfdtool.loader.state import Device
from mfdtool.wire.quick import quick_constructor, quick_replacer


@dataclass(frozen=True, slots=True)
class Base:
    first: int
    second: str = "two"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Base):
    third: bytes


def test_makes_equal_values() -> None:
    made = quick_constructor(Base)(1, "x")
    assert made == Base(1, "x")
    assert hash(made) == hash(Base(1, "x"))
    assert repr(made) == repr(Base(1, "x"))


def test_takes_fields_in_the_order_asked_for() -> None:
    construct = quick_constructor(Derived, ["third", "second", "first"])
    assert construct(b"3", "2", 1) == Derived(first=1, second="2", third=b"3")


def test_value_is_frozen() -> None:
    made = quick_constructor(Base)(1, "x")
    with pytest.raises(FrozenInstanceError):
        setattr(made, "first", 2)  # noqa: B010 - mypy knows that it is read-only


def test_wants_every_field() -> None:
    with pytest.raises(TypeError):
        quick_constructor(Base)(1)


def test_replaced_fields() -> None:
    change = quick_replacer(Device)
    before = Device(cur=3)
    assert change(before, cur=4, transfer=True) == replace(before, cur=4, transfer=True)
    assert change(before) == before == Device(cur=3)
    with pytest.raises(KeyError, match="colour"):
        change(before, colour=1)
