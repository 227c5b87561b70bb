# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames a user asked for, by migration, channel and device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.stream.frames import Frame
from mfdtool.wire.multifd import MultiFDPacketDeviceState
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT_DOMAIN: Final = "0000:"
_DEVICES_KEPT: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Frames that are wanted; what is empty or None does not restrict.

    A device is given by its idstr, or by the first part of it: ``0000:00:05.0/vfio``,
    ``0000:00:05.0``, and ``00:05.0`` where the PCI domain is 0.
    """

    migration: int | None = None
    channels: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()

    @property
    def is_everything(self) -> bool:
        """Whether no frame is left out."""
        return self.migration is None and not self.channels and not self.devices

    def __contains__(self, frame: Frame) -> bool:
        if self.migration is not None and frame.channel.migration != self.migration:
            return False
        if self.channels and frame.channel.name not in self.channels:
            return False
        if not self.devices:
            return True
        idstr = device_of(frame)
        return idstr is not None and is_device(idstr, self.devices)


class DevicesMet:
    """Remembers which devices frames were about, for a user who asks for one that is not there."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, frame: Frame) -> None:
        """Take a frame, whether it is wanted or not."""
        idstr = device_of(frame)
        if idstr and len(self._names) < _DEVICES_KEPT:
            self._names.setdefault(idstr)

    @property
    def devices(self) -> list[str]:
        """Those that have VFIO state."""
        return [name for name in self._names if name == "vfio" or name.endswith("/vfio")]

    def unmatched(self, wanted: Iterable[str]) -> list[str]:
        """Give the ``wanted`` names that meant none of the devices."""
        return sorted(
            text for text in wanted if not any(is_device(name, (text,)) for name in self._names)
        )


def device_of(frame: Frame) -> str | None:
    """Give the idstr of the device (or other SaveVM entry) that a frame is about."""
    if frame.section is not None:
        return frame.section.idstr
    if isinstance(frame.value, DeviceStateHeader | MultiFDPacketDeviceState):
        return frame.value.idstr_text
    return None


def is_device(idstr: str, wanted: Iterable[str]) -> bool:
    """Tell whether one of the ``wanted`` names means the device ``idstr``."""
    return any(
        idstr == name or idstr.startswith(f"{name}/")
        for text in wanted
        for name in (text, _ROOT_DOMAIN + text)
    )
