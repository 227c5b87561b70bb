# SPDX-License-Identifier: GPL-2.0-or-later
"""``make``: build a migration, break it if that is wanted, and write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, Final

from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.captures import pcap_blocks, pcapng_blocks
from mfdtool.fixtures.defects import parse_defect
from mfdtool.fixtures.generate import random_plan
from mfdtool.fixtures.items import MAIN, RETURN_PATH
from mfdtool.fixtures.segments import Network, transmit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from mfdtool.fixtures.defects import Defect
    from mfdtool.fixtures.migration import Migration
    from mfdtool.fixtures.plan import Plan
    from mfdtool.fixtures.segments import Transmission

_NETWORK_SALT: Final = 0x6E6574
"""Keeps the faults of the network apart from what is random in the migration."""


class Format(StrEnum):
    """What is written."""

    PCAPNG = "pcapng"
    PCAP = "pcap"
    RAW = "raw"
    """One file for each channel's stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to make.

    Attributes:
        plan: the migration; None for a random one.
        seed: of everything that is random.
        defects: what to break, each ``NAME[:AT][@DEVICE]``, in this order.
        network: how it travels.
    """

    plan: Plan | None = None
    seed: int = 0
    defects: tuple[str, ...] = ()
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A migration that was made.

    Attributes:
        recipe: what was wanted.
        plan: what was planned.
        whole: the migration before anything was broken in it.
        migration: the migration.
        defects: what was broken.
        transmission: its way through the network, and what a capture has of it.
    """

    recipe: Recipe
    plan: Plan
    whole: Migration
    migration: Migration
    defects: tuple[Defect, ...]
    transmission: Transmission

    @property
    def comment(self) -> str:
        """One line about how it was made."""
        parts = [f"QEMU {self.plan.profile.name}, seed {self.recipe.seed}"]
        parts += [
            f"{text} breaks {defect.rule.id} {defect.rule.name}"
            for text, defect in zip(self.recipe.defects, self.defects, strict=True)
        ]
        return "; ".join(parts)


def make(recipe: Recipe) -> Made:
    """Build what is wanted.

    Raises:
        ValueError: no source could carry out the plan, a defect does not exist or has nothing
            to break, or the network could carry nothing.
    """
    plan = recipe.plan or random_plan(Random(recipe.seed))
    whole = migration = assemble(plan)
    defects = []
    for text in recipe.defects:
        defect, where = parse_defect(text)
        migration = defect.apply(migration, at=where.at, device=where.device)
        defects.append(defect)
    return Made(
        recipe=recipe,
        plan=plan,
        whole=whole,
        migration=migration,
        defects=tuple(defects),
        transmission=transmit(migration, recipe.network, Random(recipe.seed ^ _NETWORK_SALT)),
    )


def write_capture(made: Made, file: BinaryIO, file_format: Format) -> None:
    """Write a capture file.

    Raises:
        OSError: it cannot be written.
        ValueError: frames are too long for the format.
    """
    if file_format is Format.PCAP:
        file.writelines(pcap_blocks(made.transmission))
    else:
        file.writelines(pcapng_blocks(made.transmission, comments=[made.comment]))


def write_streams(made: Made, directory: Path) -> list[Path]:
    """Write each channel's stream to a file of its own, named after the channel; give the files.

    Raises:
        OSError: one of them cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for channel, data in made.migration.streams().items():
        path = directory / channel
        path.write_bytes(data)
        paths.append(path)
    return paths


def summary(made: Made) -> dict[str, Any]:
    """Give what was made as a JSON object: what a decoder and a destination should find."""
    channels = made.migration.channels
    return {
        "format": 1,
        "profile": made.plan.profile.name,
        "machine": made.plan.machine_type,
        "seed": made.recipe.seed,
        "page_size": made.plan.page_size,
        "multifd_channels": sum(name not in {MAIN, RETURN_PATH} for name in channels),
        "devices": list(_devices(made)),
        "defects": [
            {
                "defect": text,
                "rule": defect.rule.id,
                "name": defect.rule.name,
                "severity": defect.rule.severity.value,
            }
            for text, defect in zip(made.recipe.defects, made.defects, strict=True)
        ],
        "frames": {name: len(made.migration.of(name)) for name in channels},
        "records": len(made.transmission.frames),
        "lost": {
            name: sum(span.size for span in spans)
            for name, spans in made.transmission.lost.items()
            if spans
        },
    }


def _devices(made: Made) -> Iterator[dict[str, Any]]:
    """Give what each device must get, as a verdict tells what it got."""
    for device in made.whole.devices:
        stream = made.whole.device_stream(device)
        yield {
            "idstr": device.idstr,
            "instance_id": device.instance_id,
            "buffers": len(stream.buffers),
            "bytes": len(stream.data),
            "sha256": sha256(stream.data).hexdigest(),
        }
