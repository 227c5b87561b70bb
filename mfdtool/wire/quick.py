# SPDX-License-Identifier: GPL-2.0-or-later
"""A constructor for values of which a capture has millions, and a `replace` for them.

The ``__init__`` of a frozen dataclass looks up and calls ``object.__setattr__`` for every field.
Filling the slots through their descriptors makes the same value in half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def quick_constructor(made: type[T], names: Sequence[str] | None = None) -> Callable[..., T]:
    """Give a function that makes values of a frozen, slotted dataclass.

    It takes all fields by position, in the order of ``names`` (without them: of the class), and
    has neither defaults nor ``__post_init__``. Like `dataclasses`, this compiles source text that
    it has put together, here of nothing but numbers.
    """
    if names is None:
        names = [field.name for field in fields(made)]
    namespace: dict[str, Any] = {"made": made, "new": object.__new__}
    steps = []
    for index, name in enumerate(names):
        namespace[f"put_{index}"] = getattr(made, name).__set__
        steps.append(f"put_{index}(value, field_{index})")
    arguments = ", ".join(f"field_{index}" for index in range(len(names)))
    lines = ("value = new(made)", *steps, "return value")
    exec(f"def construct({arguments}):\n    " + "\n    ".join(lines), namespace)
    construct: Callable[..., T] = namespace["construct"]
    return construct


def quick_replacer(made: type[T]) -> Callable[..., T]:
    """Give a function that does for values of one class what `dataclasses.replace` does for all.

    The class must be one for :func:`quick_constructor`, with two fields or more. A field that it
    does not have is a KeyError.
    """
    setters = {field.name: getattr(made, field.name).__set__ for field in fields(made)}
    values_of = attrgetter(*setters)
    construct = quick_constructor(made)

    def changed(value: T, /, **changes: Any) -> T:
        new = construct(*values_of(value))
        for name, field in changes.items():
            setters[name](new, field)
        return new

    return changed
