# SPDX-License-Identifier: GPL-2.0-or-later
"""``device info``: what a VFIO device can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mfdtool.errors import SinkError
from mfdtool.live.vfio.uapi import DeviceFlag, DeviceState, MigrationFlag

if TYPE_CHECKING:
    from mfdtool.live.vfio.device import VfioDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What an open device said of itself.

    Attributes:
        name: PCI address, UUID, or the descriptor.
        driver: the driver's name; empty if unknown.
        sysfs: its folder; empty if unknown.
        way: how it was opened.
        flags: what it is.
        migration: its migration states; none if it cannot be migrated.
        refusal: why it cannot be migrated; empty if it can.
        state: the state it is in; None without migration.
        data_size: how much state there is, about, in bytes; None if the driver does not tell.
        logs_dma: whether it can log which pages it writes.
    """

    name: str
    driver: str
    sysfs: str
    way: str
    flags: DeviceFlag
    migration: MigrationFlag
    refusal: str
    state: DeviceState | None
    data_size: int | None
    logs_dma: bool


def device_info(device: VfioDevice) -> DeviceInfo:
    """Ask an open device; its state is not changed.

    Raises:
        SinkError: it does not answer.
    """
    refusal = ""
    migration = MigrationFlag(0)
    try:
        migration = device.migration()
    except SinkError as error:
        refusal = str(error).removeprefix(f"{device.name}: ")
    location = device.location
    return DeviceInfo(
        name=device.name,
        driver=location.driver if location else "",
        sysfs=location.sysfs if location else "",
        way=device.way,
        flags=device.flags(),
        migration=migration,
        refusal=refusal,
        state=device.state() if migration else None,
        data_size=device.data_size() if migration else None,
        logs_dma=device.logs_dma(),
    )


def info_json(info: DeviceInfo) -> dict[str, Any]:
    """Give it as a JSON object."""
    return {
        "format": 1,
        "device": info.name,
        "driver": info.driver or None,
        "sysfs": info.sysfs or None,
        "opened": info.way,
        "flags": [flag.name for flag in info.flags],
        "migration": [flag.name for flag in info.migration],
        "refusal": info.refusal or None,
        "state": info.state.name if info.state is not None else None,
        "stop_copy_length": info.data_size,
        "dma_logging": info.logs_dma,
    }
