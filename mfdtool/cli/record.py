# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool record``: the group of all that records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from mfdtool.cli import LazyGroup, Target

COMMANDS: Final[Mapping[str, Target]] = {
    "proxy": Target(
        "mfdtool.cli.record_proxy", "Forward a migration to its destination and record it."
    ),
    "device": Target("mfdtool.cli.record_device", "Record what a VFIO device says of its state."),
}


class RecordGroup(LazyGroup):
    """The group of the commands above."""

    targets = COMMANDS


@click.group("record", cls=RecordGroup)
def command() -> None:
    """Record a migration, or a device's own state, as pcapng."""
