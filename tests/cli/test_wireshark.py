# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool wireshark``: where the script goes, and exit statuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.report.wireshark import wireshark_script


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder that dissectors are installed in; there is no tshark to ask."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".local/lib/wireshark/plugins"


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wireshark"]) == 0
    assert capsys.readouterr() == (wireshark_script(), "")


def test_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.lua"
    assert run(["wireshark", "-o", str(path), "--port", "4444", "--port", "80"]) == 0
    assert path.read_text() == wireshark_script([80, 4444])
    assert capsys.readouterr() == ("", "")


def test_install(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wireshark", "--install"]) == 0
    path = folder / "qemu_migration.lua"
    assert path.read_text() == wireshark_script()
    assert capsys.readouterr() == ("", f"mfdtool: wrote {path}\n")


def test_install_leaves_other_files_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir(parents=True)
    path = folder / "qemu_migration.lua"
    path.write_text("mine")
    assert run(["wireshark", "--install"]) == 2
    assert f"{path} was not written by mfdtool; --force replaces it." in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run(["wireshark", "--install", "--force"]) == 0
    assert path.read_text() == wireshark_script()


@pytest.mark.parametrize(
    "arguments",
    [["--install", "-o", "x.lua"], ["--force"], ["--port", "0"], ["--port", "65536"], ["extra"]],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["wireshark", *arguments]) == 2
    assert "Usage:" in capsys.readouterr().err


def test_unwritable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none" / "x.lua"
    assert run(["wireshark", "-o", str(path)]) == 5
    assert capsys.readouterr().err == f"mfdtool: {path}: No such file or directory\n"
