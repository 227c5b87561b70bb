# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the dissector goes, and what it does not overwrite."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfdtool.report.wireshark import wireshark_script
from mfdtool.workflows.wireshark import FILE_NAME, ForeignFileError, install, plugin_folder

USUAL = Path(".local/lib/wireshark/plugins")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty folder that is all of PATH; the home is ``tmp_path``."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def fake_tshark(folder: Path, body: str) -> None:
    path = folder / "tshark"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_folder_is_what_tshark_says(tools: Path) -> None:
    fake_tshark(tools, "echo 'Temp:  /tmp'\necho 'Personal Lua Plugins:\t/home/me/lua plugins'")
    assert plugin_folder() == Path("/home/me/lua plugins")


@pytest.mark.parametrize("body", ["exit 1", "echo Temp: /tmp", "echo 'Personal Lua Plugins:'"])
def test_folder_when_tshark_does_not_say(tools: Path, tmp_path: Path, body: str) -> None:
    fake_tshark(tools, body)
    assert plugin_folder() == tmp_path / USUAL


def test_folder_without_tshark(tools: Path, tmp_path: Path) -> None:
    assert not list(tools.iterdir())
    assert plugin_folder() == tmp_path / USUAL


def test_install(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "plugins"
    path = install(wireshark_script(), folder)
    assert path == folder / FILE_NAME
    assert path.read_text() == wireshark_script()
    # An older one of ours is replaced.
    assert install(wireshark_script([7]), folder) == path
    assert path.read_text() == wireshark_script([7])


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"-- mine \xff\n")
    with pytest.raises(ForeignFileError, match="was not written by mfdtool") as caught:
        install(wireshark_script(), tmp_path)
    assert caught.value.path == path
    assert path.read_bytes() == b"-- mine \xff\n"
    install(wireshark_script(), tmp_path, force=True)
    assert path.read_text() == wireshark_script()
