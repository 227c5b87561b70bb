# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds a device in sysfs, by whatever name the user has for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.errors import SinkError

if TYPE_CHECKING:
    from mfdtool.live.vfio.kernel import Kernel

GROUPS: Final = "/dev/vfio"
CDEVS: Final = "/dev/vfio/devices"

NAMES: Final = (
    "a PCI address (0000:03:00.1), an mdev's UUID, a folder of sysfs, a group (/dev/vfio/7),"
    " a character device (/dev/vfio/devices/vfio0) or device-fd:N"
)
"""What a device can be called."""

INHERITED: Final = re.compile(r"device-fd:(\d{1,9})")
"""An open device that a parent process handed on."""

_PCI: Final = "/sys/bus/pci/devices"
_MDEV: Final = "/sys/bus/mdev/devices"
_SYSFS_GROUPS: Final = "/sys/kernel/iommu_groups"
_SYSFS_CDEVS: Final = "/sys/class/vfio-dev"

_PCI_ADDRESS: Final = re.compile(
    r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", re.IGNORECASE
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GROUP: Final = re.compile(rf"{GROUPS}/(\d+)")
_CDEV: Final = re.compile(rf"{CDEVS}/(vfio\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A device and the nodes that it can be opened by.

    Attributes:
        name: PCI address or UUID: what a group knows it by.
        sysfs: its folder, without symbolic links.
        driver: the driver that it is bound to; empty if none.
        group: path of its group's node; empty if there is none.
        cdev: path of its own node; empty if there is none.
    """

    name: str
    sysfs: str
    driver: str
    group: str
    cdev: str


def locate(text: str, kernel: Kernel) -> Location:
    """Find a device.

    Raises:
        ValueError: this is no name of a device.
        SinkError: there is no such device, or no VFIO driver has it.
    """
    location = _describe(_folder(text, kernel), kernel)
    if not location.group and not location.cdev:
        raise SinkError(f"{location.name}: {_why_closed(location, kernel)}")
    if _CDEV.fullmatch(text):
        return _only(location, cdev=text)
    if _GROUP.fullmatch(text):
        return _only(location, group=text)
    return location


def _folder(text: str, kernel: Kernel) -> str:
    """Give a device's folder in sysfs, as it may be a symbolic link."""
    if match := _GROUP.fullmatch(text):
        return _folder_of_group(text, match[1], kernel)
    if match := _CDEV.fullmatch(text):
        return f"{_SYSFS_CDEVS}/{match[1]}/device"
    if match := _PCI_ADDRESS.fullmatch(text):
        return f"{_PCI}/{match[1] or '0000'}:{match[2]}".lower()
    if _UUID.fullmatch(text):
        return f"{_MDEV}/{text.lower()}"
    if text.startswith("/sys/"):
        return text.rstrip("/")
    raise ValueError(f"{text!r} is not {NAMES}")


def _folder_of_group(node: str, number: str, kernel: Kernel) -> str:
    folder = f"{_SYSFS_GROUPS}/{number}/devices"
    try:
        names = kernel.names(folder)
    except OSError as error:
        raise SinkError(f"{node}: there is no such group") from error
    if len(names) != 1:
        listed = ", ".join(names) or "nothing"
        raise SinkError(f"{node}: the group has {listed}: name one device")
    return f"{folder}/{names[0]}"


def _describe(folder: str, kernel: Kernel) -> Location:
    try:
        sysfs = kernel.resolve(folder)
    except OSError as error:
        raise SinkError(f"{folder}: there is no such device") from error
    group = _linked(f"{sysfs}/iommu_group", kernel)
    node = f"{GROUPS}/{group}" if group else ""
    return Location(
        name=sysfs.rpartition("/")[2],
        sysfs=sysfs,
        driver=_linked(f"{sysfs}/driver", kernel),
        group=node if node and kernel.exists(node) else "",
        cdev=_cdev(sysfs, kernel),
    )


def _linked(link: str, kernel: Kernel) -> str:
    """Give the name of what a link points to; empty if there is none."""
    try:
        return kernel.resolve(link).rpartition("/")[2]
    except OSError:
        return ""


def _cdev(sysfs: str, kernel: Kernel) -> str:
    try:
        names = kernel.names(f"{sysfs}/vfio-dev")
    except OSError:
        return ""
    nodes = [f"{CDEVS}/{name}" for name in names]
    return next((node for node in nodes if kernel.exists(node)), "")


def _why_closed(location: Location, kernel: Kernel) -> str:
    if not location.driver:
        return "no driver has it: bind it to vfio-pci, or to its vendor's VFIO driver"
    if not kernel.exists(GROUPS):
        return f"there is no {GROUPS}: load a VFIO driver (modprobe vfio-pci)"
    if not _linked(f"{location.sysfs}/iommu_group", kernel):
        return f"it is in no IOMMU group (driver {location.driver}): is the IOMMU on?"
    return (
        f"{location.driver} has it, which is no VFIO driver:"
        " bind it to vfio-pci, or to its vendor's VFIO driver"
    )


def _only(location: Location, *, group: str = "", cdev: str = "") -> Location:
    """Leave the one way to open a device that was asked for."""
    return Location(
        name=location.name,
        sysfs=location.sysfs,
        driver=location.driver,
        group=group,
        cdev=cdev,
    )
