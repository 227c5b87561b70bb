# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool info`` and ``mfdtool stats``: options and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mfdtool.cli import run

CLEAN = str(Path(__file__).parents[2] / "captures" / "mtty-4ch-clean.pcap.gz")


@pytest.mark.parametrize("command", ["info", "stats"])
def test_json(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, CLEAN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", CLEAN]) == 0
    out, err = capsys.readouterr()
    assert "stop-copy  72 bytes in 5 packets on multifd-0, multifd-1, multifd-2" in out
    assert not err


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ([], ["0000:00:05.0/vfio"] * 3),
        (["--by", "phase"], ["setup", "precopy", "switchover", "completion"]),
        (["--by", "channel", "--channel", "multifd-2"], ["multifd-2"]),
        (["--by", "phase", "--channel", "multifd-2"], ["setup", "precopy", "completion"]),
        (["--device", "00:06.0"], ["nothing to measure"]),
    ],
)
def test_stats(capsys: pytest.CaptureFixture[str], args: list[str], names: list[str]) -> None:
    assert run(["stats", CLEAN, *args]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.partition(",")[0] for line in lines if line and not line.startswith(" ")]
    assert heads == names


@pytest.mark.parametrize("command", ["info", "stats"])
def test_truncated(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    truncated = tmp_path / "truncated.pcap.gz"
    truncated.write_bytes(Path(CLEAN).read_bytes()[:200_000])
    assert run([command, str(truncated)]) == 4
    assert "the compressed data ends early" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "stats"])
def test_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert run([command, str(empty)]) == 3
    assert "is empty" in capsys.readouterr().err
    assert run([command]) == 2
