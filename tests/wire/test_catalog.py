# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalog leaves no message out."""

from __future__ import annotations

from types import ModuleType

import pytest

from mfdtool.wire import iterable, main_stream, multifd, ram, return_path, vfio
from mfdtool.wire.catalog import CATALOG
from mfdtool.wire.codec import Message


@pytest.mark.parametrize(
    ("group", "module"),
    [
        ("main", main_stream),
        ("ram", ram),
        ("iterable", iterable),
        ("vfio", vfio),
        ("multifd", multifd),
        ("return_path", return_path),
    ],
)
def test_every_message_is_listed_once(group: str, module: ModuleType) -> None:
    defined = {
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Message)
        and value.__module__ == module.__name__
    }
    assert set(CATALOG[group]) == defined
    assert len(CATALOG[group]) == len(defined)
