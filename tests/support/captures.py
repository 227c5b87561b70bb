# SPDX-License-Identifier: GPL-2.0-or-later
"""The real captures, decoded, and what QEMU's logs say about them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from mfdtool.packets import pcap
from mfdtool.packets.values import Record
from mfdtool.stream.connections import ScalarStreams
from mfdtool.stream.frames import Frame
from mfdtool.stream.migration import Decoder

CAPTURES: Final = Path(__file__).parents[2] / "captures"
NAMES: Final = tuple(sorted(path.name.split(".")[0] for path in CAPTURES.glob("mtty-*.pcap.gz")))


@cache
def load(name: str) -> memoryview:
    """Give a capture's bytes."""
    return memoryview(gzip.decompress((CAPTURES / f"{name}.pcap.gz").read_bytes()))


@cache
def records(name: str) -> tuple[Record, ...]:
    """Give a capture's records."""
    return tuple(pcap.read(load(name)))


def log(name: str, side: str = "dst") -> list[str]:
    """Give the lines of the destination's or the source's log."""
    return (CAPTURES / f"{name}.{side}.log").read_text().splitlines()


def decode(
    buffer: memoryview, chosen: Iterable[Record], *, every: int = 64, keeps: bool = False
) -> tuple[Decoder, list[Frame]]:
    """Decode records of a capture."""
    decoder = Decoder(keep_extents=keeps)
    frames: list[Frame] = []
    for window in ScalarStreams(buffer, chosen).windows(every=every):
        frames += decoder.feed(window)
    return decoder, frames + decoder.finish()


@cache
def decoded(name: str) -> tuple[Decoder, list[Frame]]:
    """Decode a whole capture, once."""
    return decode(load(name), records(name), keeps=True)
