# SPDX-License-Identifier: GPL-2.0-or-later
"""Main streams of real machines without VFIO devices, and QEMU's own account of their state."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "data" / "main_streams"
NAMES: Final = tuple(sorted(path.name.split(".")[0] for path in FOLDER.glob("*.bin.gz")))


def path_of(name: str) -> Path:
    """Give the compressed stream's file."""
    return FOLDER / f"{name}.bin.gz"


def stream(name: str) -> bytes:
    """Give the stream."""
    return gzip.decompress(path_of(name).read_bytes())


def state(name: str) -> str:
    """Give what ``analyze-migration.py -d state`` printed."""
    return gzip.decompress((FOLDER / f"{name}.state.json.gz").read_bytes()).decode()
