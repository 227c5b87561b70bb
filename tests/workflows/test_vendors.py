# SPDX-License-Identifier: GPL-2.0-or-later
"""Drivers that other packages add."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mfdtool.wire.vendors import mtty, pieces
from mfdtool.wire.vendors.registry import BUILT_IN
from mfdtool.wire.vendors.vendor import Evidence, Vendor
from mfdtool.workflows.vendors import GROUP, load_vendors
from tests.support.vendor_states import records
from tools.docs import DOCS

OTHER: Vendor = replace(mtty.VENDOR, name="other")
IMPOSTOR: Vendor = replace(mtty.VENDOR, text="not the one")
NAMELESS: Vendor = replace(mtty.VENDOR, name=pieces.VENDOR.name)


class Point(EntryPoint):
    """An entry point whose object is given, or cannot be loaded."""

    def load(self) -> object:
        """Give the object that the value names here."""
        if self.value == "exit":
            raise SystemExit(3)
        return {
            "other": OTHER,
            "impostor": IMPOSTOR,
            "mtty": mtty.VENDOR,
            "text": "text",
            "none": NAMELESS,
        }[self.value]


def point(name: str, value: str) -> Point:
    return Point(name, value, GROUP)


def test_installed_ones_are_no_trouble() -> None:
    registry, problems = load_vendors()
    assert problems == ()
    assert set(BUILT_IN.by_name.items()) <= set(registry.by_name.items())


def test_others_are_added() -> None:
    registry, problems = load_vendors([point("mtty", "mtty"), point("other", "other")])
    assert problems == ()
    assert list(registry.by_name) == [*BUILT_IN.by_name, "other"]
    assert registry.by_name["mtty"] is mtty.VENDOR


def test_what_cannot_be_used_is_told() -> None:
    registry, problems = load_vendors(
        [
            point("a", "impostor"),
            point("b", "text"),
            point("c", "absent"),
            point("d", "none"),
            point("e", "exit"),
        ]
    )
    assert registry.by_name == BUILT_IN.by_name
    assert problems == (
        "entry point a of mfdtool.vendors: mtty is there already",
        "entry point b of mfdtool.vendors: text is no Vendor",
        "entry point c of mfdtool.vendors: KeyError: 'absent'",
        "entry point d of mfdtool.vendors: none is there already",
        "entry point e of mfdtool.vendors: SystemExit: 3",
    )


def test_the_documents_example_can_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "vendors.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "mydriver.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("mydriver", "mypackage.mydriver:VENDOR", GROUP)
    assert f'{entry.name} = "{entry.value}"' in text
    registry, problems = load_vendors([entry])
    assert problems == ()
    assert registry.choose(Evidence(pci=(0x1234, 0x5678))).vendor is registry.by_name["mydriver"]
    found = records(registry.by_name["mydriver"], bytes.fromhex("03000000 01000000") + b"abc")
    assert [(each.length, each.name) for each in found] == [(11, "kind 1")]
