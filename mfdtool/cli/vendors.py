# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers whose state can be decoded, for commands that show them.

A module of its own: to look for installed packages takes longer than a short run of other commands.
"""

from __future__ import annotations

import click

from mfdtool.wire.vendors.registry import Registry
from mfdtool.workflows.vendors import load_vendors


def vendors_told() -> Registry:
    """Load the drivers whose state can be decoded, and tell which of them could not be loaded."""
    registry, problems = load_vendors()
    for problem in problems:
        click.echo(f"mfdtool: {problem}", err=True)
    return registry
