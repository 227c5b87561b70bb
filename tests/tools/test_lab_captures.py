# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest's part of recording captures anew; the recording itself takes the lab."""

from __future__ import annotations

import hashlib
import tomllib

import pytest

from tests.live.lab.scenarios.migration import RECORDED
from tests.test_manifest import CAPTURES, MANIFEST
from tools.lab_captures import updated
from tools.record_ram_samples import SAMPLES, SAVEVM

TEXT = (CAPTURES / "MANIFEST.toml").read_text()
KEYS = ("sha256", "pages_sha256")
ENTRIES = {
    name: {
        key: hashlib.sha256(f"{name} {key}".encode()).hexdigest() for key in KEYS if key in entry
    }
    for name, entry in MANIFEST["files"].items()
}


def test_values_are_replaced_and_nothing_else() -> None:
    text = updated(TEXT, ENTRIES)
    expected = {name: {**entry, **ENTRIES[name]} for name, entry in MANIFEST["files"].items()}
    assert tomllib.loads(text) == {**MANIFEST, "files": expected}
    assert len(text) == len(TEXT)
    same = {
        name: {key: entry[key] for key in ENTRIES[name]}
        for name, entry in MANIFEST["files"].items()
    }
    assert updated(text, same) == TEXT


def test_every_file_is_made_by_one_of_both() -> None:
    """A capture that nothing records anew would be left behind."""
    stems = {name.split(".")[0] for name in MANIFEST["files"]}
    assert stems == {recorded.name for recorded in RECORDED} | {*SAMPLES, SAVEVM}


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("new.pcap.gz", {"sha256": "00"}, "the manifest has no sha256 of new.pcap.gz"),
        # This one has no such line, the next one does.
        ("mtty-main-stream-only.src.log", {"pages_sha256": "00"}, "no pages_sha256 of mtty-main"),
        ("ram-snapshot.stream.gz", {"pages_sha256": "00"}, "no pages_sha256 of ram-snapshot"),
    ],
)
def test_file_without_an_entry(name: str, values: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        updated(TEXT, {**ENTRIES, name: values})


def test_file_that_nothing_makes() -> None:
    some = {name: values for name, values in ENTRIES.items() if name != "ram-zlib.pcap.gz"}
    with pytest.raises(ValueError, match=r"nothing makes ram-zlib\.pcap\.gz"):
        updated(TEXT, some)
