# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands that open a VFIO device have in common: its name, and the question before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import click

from mfdtool.live.vfio.device import VfioDevice, open_at, open_device
from mfdtool.live.vfio.kernel import Kernel, LinuxKernel
from mfdtool.live.vfio.locate import INHERITED, locate

Callback: TypeAlias = Callable[..., Any]

KERNEL: Kernel = LinuxKernel()
"""The kernel that devices are opened on."""


def device_options(function: Callback) -> Callback:
    """Add DEVICE and --yes; the function gets ``name`` and ``agreed``."""

    agreed = click.option("--yes", "agreed", is_flag=True, help="Do not ask before opening it.")
    return click.argument("name", metavar="DEVICE")(agreed(function))


@contextmanager
def opened(name: str, *, agreed: bool, effect: str) -> Iterator[VfioDevice]:
    """Open a device when the user agrees to it; ``effect`` says what will happen.

    Raises:
        SinkError: it is in use, or cannot be opened.
    """
    try:
        location = None if INHERITED.fullmatch(name) else locate(name, KERNEL)
        if location is None:
            _ask(name, agreed=agreed, effect=effect)
        else:
            told = f"{location.name}, driver {location.driver or 'unknown'}"
            _ask(told, agreed=agreed, effect=f"opening may reset it; {effect}")
        device = open_device(name, KERNEL) if location is None else open_at(location, KERNEL)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    with device:
        yield device


def _ask(told: str, *, agreed: bool, effect: str) -> None:
    if agreed:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{told}: {effect}. There is nobody to ask: say --yes.")
    click.confirm(f"{told}: {effect}. Go on?", abort=True, err=True)
