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
from mfdtool.schedule.observation import Observation, observations_of
from tests.support.captures import CAPTURES, decode

VECTORS: Final = Path(__file__).parents[1] / "data" / "vectors"
EXPECTED: Final[dict[str, Any]] = json.loads((VECTORS / "verdicts.json").read_text())


@cache
def vector(name: str) -> Recording:
    """Give a vector as the loader takes it."""
    return vector_observation(name).recording


@cache
def vector_observation(name: str) -> Observation:
    """Give a vector as faults are made in it."""
    return _observation(VECTORS / f"{name}.pcap.gz")


@cache
def real_capture(name: str) -> Recording:
    """Give a real capture as the loader takes it."""
    return observation(name).recording


@cache
def observation(name: str) -> Observation:
    """Give a real capture as faults are made in it."""
    return _observation(CAPTURES / f"{name}.pcap.gz")


def _observation(path: Path) -> Observation:
    view = memoryview(gzip.decompress(path.read_bytes()))
    decoder, frames = decode(view, pcap.read(view), keeps=True)
    (found,) = observations_of(frames, decoder.migrations)
    return found
