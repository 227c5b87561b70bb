# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sequences that were sent to real destinations, and what became of them."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from mfdtool.loader.recording import Recording
from mfdtool.packets import pcap
from mfdtool.replay.observed import recordings_of
from tests.support.captures import CAPTURES, decode

VECTORS: Final = Path(__file__).parents[1] / "data" / "vectors"
EXPECTED: Final[dict[str, Any]] = json.loads((VECTORS / "verdicts.json").read_text())


@cache
def vector(name: str) -> Recording:
    """Give a vector as the loader takes it."""
    return _recording(VECTORS / f"{name}.pcap.gz")


@cache
def real_capture(name: str) -> Recording:
    """Give a real capture as the loader takes it."""
    return _recording(CAPTURES / f"{name}.pcap.gz")


def _recording(path: Path) -> Recording:
    view = memoryview(gzip.decompress(path.read_bytes()))
    decoder, frames = decode(view, pcap.read(view), keeps=True)
    (recording,) = recordings_of(frames, decoder.migrations)
    return recording
