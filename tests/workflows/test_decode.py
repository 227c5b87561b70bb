# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoding: which frames are written, how, and whether anything was missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfdtool.report.filter import compile_filter
from mfdtool.stream.fields import UnknownFieldError
from mfdtool.stream.selection import Selection
from mfdtool.workflows.decode import OutputFormat, Plan, decode
from mfdtool.workflows.reading import Input, Reading
from tests.support.captures import CAPTURES

CLEAN = Input(capture=str(CAPTURES / "mtty-4ch-clean.pcap.gz"))
CUT_OFF = Input(capture=str(CAPTURES / "mtty-dst-lacks-device.pcap.gz"))


@pytest.fixture(scope="module")
def clean() -> Iterator[Reading]:
    with Reading(CLEAN) as reading:
        yield reading


def text(plan: Plan, source: Input = CLEAN) -> tuple[list[str], bool]:
    """Give the lines for a plan, and whether nothing was missing."""
    with Reading(source, keep_extents=plan.needs_extents) as reading:
        lines = "".join(decode(reading, plan)).splitlines()
        return lines, reading.complete


def test_all_formats_have_all_frames() -> None:
    lines, complete = text(Plan())
    assert complete
    assert len(lines) == 238
    jsonl, _ = text(Plan(format=OutputFormat.JSONL))
    assert [json.loads(line)["kind"] for line in jsonl].count("multifd.device_state") == 6
    assert len(jsonl) == 238
    csv, _ = text(Plan(format=OutputFormat.CSV))
    assert len(csv) == 1 + 238
    tree, _ = text(Plan(format=OutputFormat.TREE))
    assert [line for line in tree if line.startswith(("    0.", "    1."))] == lines


def test_fields() -> None:
    plan = Plan(fields=("channel", "idx"), predicate=compile_filter("idx < 2"))
    assert text(plan)[0] == ["multifd-1\t0", "multifd-2\t1"]


def test_unknown_field(clean: Reading) -> None:
    with pytest.raises(UnknownFieldError):
        decode(clean, Plan(format=OutputFormat.CSV, fields=("indx",)))


def test_selection_and_filter_and_count() -> None:
    selection = Selection(channels=frozenset({"multifd-2"}))
    lines, _ = text(Plan(selection=selection, predicate=compile_filter("idx")))
    assert [line.split()[1:3] for line in lines] == [["multifd-2", "#21"], ["multifd-2", "#23"]]
    # Times count from the first frame of the input, not from the first that is shown.
    assert lines[0].split()[0] == "0.650368"
    first, _ = text(Plan(selection=selection, predicate=compile_filter("idx"), count=1))
    assert first == lines[:1]


def test_only_what_was_looked_at_must_be_complete() -> None:
    assert text(Plan(count=20), CUT_OFF)[1]
    assert not text(Plan(), CUT_OFF)[1]
    # What is not shown counts: the frames that were asked for may be among the missing.
    assert not text(Plan(predicate=compile_filter("idx")), CUT_OFF)[1]


def test_undecoded_bytes_make_it_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "main"
    path.write_bytes(bytes.fromhex("5145564d00000003") + b"nonsense")
    lines, complete = text(Plan(), Input(main=path))
    assert not complete
    assert lines[-1].split(maxsplit=3)[2:] == [
        "#1",
        "undecoded      8 bytes: not an element of a main stream",
    ]


def test_hexdump_follows_each_frame() -> None:
    lines, _ = text(Plan(hexdump=True, predicate=compile_filter("is_config")))
    assert len(lines) == 1 + 18 + 4 + 1
    assert lines[1].startswith("    0000f380  11 22 33 44 00 00 00 01")
    assert lines[-1] == "    0000f4e0  ... 4068 more bytes"
    full, _ = text(Plan(hexdump=True, full=True, predicate=compile_filter("is_config")))
    assert len(full) == 1 + 18 + -(-4132 // 16)


def test_nothing_to_decode(tmp_path: Path) -> None:
    path = tmp_path / "main"
    path.write_bytes(b"x")
    lines, complete = text(Plan(format=OutputFormat.CSV, fields=("kind",)), Input(main=path))
    assert lines == ["kind", "undecoded"]
    assert not complete
