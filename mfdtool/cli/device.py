# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool device``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from mfdtool.cli.console import write_all
from mfdtool.cli.status import ExitStatus
from mfdtool.cli.vfio import device_options, opened
from mfdtool.report.units import count_text, size_text
from mfdtool.workflows.device import DeviceInfo, device_info, info_json


@click.group("device")
def command() -> None:
    """Show what a VFIO device can do."""


@command.command("info")
@device_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def info(*, name: str, agreed: bool, as_json: bool) -> ExitStatus:
    """Show a device's state, what its driver can do, and how much state there is.

    DEVICE is a PCI address (0000:03:00.1), an mdev's UUID, a folder of sysfs, a group
    (/dev/vfio/7), a character device (/dev/vfio/devices/vfio0) or device-fd:N. It is opened and
    closed again, and refused if it is in use. Exits with 1 if it cannot be migrated.
    """
    with opened(name, agreed=agreed, effect="it is asked what it can do") as device:
        found = device_info(device)
    if as_json:
        write_all([json.dumps(info_json(found), indent=2), "\n"])
    else:
        write_all(f"{line}\n" for line in _text(found))
    return ExitStatus.VERDICT if found.refusal else ExitStatus.OK


def _text(info: DeviceInfo) -> Iterator[str]:
    yield f"Device      {info.name}" + (f", driver {info.driver}" if info.driver else "")
    if info.sysfs:
        yield f"Sysfs       {info.sysfs}"
    yield f"Opened by   {info.way}"
    if info.refusal:
        yield f"Migration   no: {info.refusal}"
        return
    yield f"Migration   {', '.join(str(flag.name) for flag in info.migration)}"
    assert info.state is not None
    yield f"State       {info.state.name}"
    size = info.data_size
    told = "the driver does not tell" if size is None else f"{count_text(size, 'byte')}"
    yield f"Size        {told}" + (f", about {size_text(size)}" if size and size >= 1024 else "")
    yield f"DMA log     {'yes' if info.logs_dma else 'no'}"
