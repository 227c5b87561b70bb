# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the dissector where Wireshark looks for one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from mfdtool.report.wireshark import is_ours

FILE_NAME: Final = "qemu_migration.lua"

_FOLDER: Final = "Personal Lua Plugins:"
_USUAL: Final = Path(".local/lib/wireshark/plugins")
_PATIENCE: Final = 30
_BEGINNING: Final = 4096


class ForeignFileError(ValueError):
    """The file at ``path`` is somebody else's, and is left alone."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was not written by mfdtool")
        self.path = path


def plugin_folder() -> Path:
    """Tell where the user's Lua plugins are: what tshark says, else where they usually are."""
    command = ["tshark", "-G", "folders"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Path.home() / _USUAL
    for line in done.stdout.splitlines():
        if line.startswith(_FOLDER) and (named := line.removeprefix(_FOLDER).strip()):
            return Path(named)
    return Path.home() / _USUAL


def install(script: str, folder: Path, *, force: bool = False) -> Path:
    """Write the script into a folder, which is made if there is none; give the file's path.

    Raises:
        ForeignFileError: a file is there that mfdtool did not write, and ``force`` is not set.
        OSError: it cannot be written.
    """
    path = folder / FILE_NAME
    if not force and path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            if not is_ours(file.read(_BEGINNING)):
                raise ForeignFileError(path)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    return path
