# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices' states that a vmdescription does not fit, or that none tells of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.fixtures.vmstate import Field, PlainDevice, State, description
from mfdtool.wire.constants import Command
from mfdtool.wire.main_stream import VmDescriptionHeader
from tests.support.streams import EOF, command, full, main_start

FIELDS = (
    Field(name="low", type="uint32", data=b"\0\0\0\1"),
    Field(name="high", type="uint32", data=b"\0\0\0\2"),
)
LONGER = Field(name="high", type="uint32", data=bytes(8))
PAIR = PlainDevice(idstr="pair", state=State(name="pair", fields=FIELDS))
OTHER = replace(PAIR, state=replace(PAIR.state, fields=(FIELDS[0], LONGER)))


def stream_of(directory: Path, *described: PlainDevice) -> str:
    """Write a stream with the state of a pair, and what is said of it."""
    data = main_start() + command(Command.SWITCHOVER_START)
    data += full(3, "pair", PAIR.state.body()) + EOF
    if described:
        text = description((each.describe() for each in described), machine="pc", page_size=4096)
        data += VmDescriptionHeader(length=len(text)).build() + text
    path = directory / "main"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    "args", [["info"], ["decode"], ["stats", "--by", "phase"], ["extract", "--vmstate"]]
)
def test_bytes_that_no_field_claims_are_told(
    args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*args, "--main", stream_of(tmp_path, PAIR)]) == 0
    assert capfd.readouterr().err == ""
    assert run([*args, "--main", stream_of(tmp_path, OTHER)]) == 4
    assert "bytes 0-7 are undecoded, high ends behind the body's end" in capfd.readouterr().err


def test_info_counts_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = stream_of(tmp_path, OTHER)
    assert run(["info", "--main", path]) == 4
    assert "Missing     8 bytes that could not be decoded\n" in capfd.readouterr().out
    assert run(["info", "--json", "--main", path]) == 4
    (migration,) = json.loads(capfd.readouterr().out)["migrations"]
    assert (migration["undecoded_bytes"], migration["undescribed_bytes"]) == (8, 0)
    assert migration["channels"][0]["undecoded_bytes"] == 8


def test_no_description_is_no_loss(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = stream_of(tmp_path)
    assert run(["info", "--main", path]) == 0
    shown = capfd.readouterr()
    assert "            no vmdescription tells of 1 section, 8 bytes: no fields\n" in shown.out
    assert "Missing     nothing\n" in shown.out
    assert shown.err == ""
    assert run(["info", "--json", "--main", path]) == 0
    (migration,) = json.loads(capfd.readouterr().out)["migrations"]
    assert (migration["undescribed_sections"], migration["undescribed_bytes"]) == (1, 8)
