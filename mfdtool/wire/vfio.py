# SPDX-License-Identifier: GPL-2.0-or-later
"""VFIO: payload of multifd device state packets, and the records of main-stream sections.

A section's body is any number of DEV_DATA_STATE records and one terminator. The device's config
travels between DEV_CONFIG_STATE and END_OF_STATE, in a section of the main stream or as the
payload of the device's last packet; its length is written nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from construct import Bytes, Int32ub, Int64ub, Struct

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.codec import Buffer, Layout, Message, field
from mfdtool.wire.constants import (
    IDSTR_SIZE,
    MULTIFD_MAGIC,
    MULTIFD_VERSION,
    VFIO_PACKET_VERSION,
    MultiFDFlag,
    VFIOMarker,
    VFIOStateFlag,
)
from mfdtool.wire.text import until_nul

_MARKER_SIZE: Final = 8
_MARKERS_BY_VALUE: Final = {int(marker): marker for marker in VFIOMarker}


@dataclass(frozen=True, slots=True, kw_only=True)
class VFIODeviceStatePacket(Message):
    """Header of a device state packet's payload; device bytes or a config follow. Since 10.0."""

    SCHEMA = Struct(
        field("version", Int32ub, "format of this header, 0"),
        field("idx", Int32ub, "place in the device's stream, from 0; 0xffffffff is refused"),
        field("flags", Int32ub, "1 for the config, the device's last packet"),
    )
    SOURCE = "vfio/migration-multifd.c:VFIODeviceStatePacket"

    version: int = VFIO_PACKET_VERSION
    idx: int
    flags: int = 0

    @property
    def is_config(self) -> bool:
        """Whether the data is the device's config, not the device's bytes."""
        return bool(self.flags & VFIOStateFlag.CONFIG_STATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStateHeader(Message):
    """Multifd device state packet and VFIO header in one: the 288 bytes before the data.

    Valid only if ``next_packet_size`` is at least 12. ``version`` and ``flags`` are those of
    VFIODeviceStatePacket, the multifd header's are ``packet_version`` and ``packet_flags``.
    """

    SCHEMA = Struct(
        field("magic", Int32ub, "MULTIFD_MAGIC, 0x11223344"),
        field("packet_version", Int32ub, "version of the multifd protocol, 1"),
        field("packet_flags", Int32ub, "kind of packet, 0x40: device state"),
        field("idstr", Bytes(IDSTR_SIZE), "the device's path and /vfio, NUL-terminated"),
        field("instance_id", Int32ub, "number among entries with this idstr, normally 0"),
        field("next_packet_size", Int32ub, "bytes that follow, those from version on included"),
        field("version", Int32ub, "format of this header, 0"),
        field("idx", Int32ub, "place in the device's stream, from 0; 0xffffffff is refused"),
        field("flags", Int32ub, "1 for the config, the device's last packet"),
    )
    SOURCE = "multifd.h:MultiFDPacketDeviceState_t, vfio/migration-multifd.c:VFIODeviceStatePacket"

    magic: int = MULTIFD_MAGIC
    packet_version: int = MULTIFD_VERSION
    packet_flags: int = MultiFDFlag.DEVICE_STATE.value
    idstr: bytes
    instance_id: int = 0
    next_packet_size: int
    version: int = VFIO_PACKET_VERSION
    idx: int
    flags: int = 0

    @property
    def idstr_text(self) -> str:
        """The name up to its NUL."""
        return until_nul(self.idstr)

    @property
    def is_config(self) -> bool:
        """Whether the data is the device's config, not the device's bytes."""
        return bool(self.flags & VFIOStateFlag.CONFIG_STATE)


@dataclass(frozen=True, slots=True)
class Marker(Message):
    """Tag that begins a record of a VFIO section (vfio/migration.c:vfio_load_state)."""

    SCHEMA = Struct(field("value", Int64ub, "kind of record, 0xffffffffef10000N"))
    SOURCE = "vfio/migration.c:vfio_load_state"

    value: int

    @property
    def marker(self) -> VFIOMarker | None:
        """The marker, or None if QEMU knows no such tag."""
        return _MARKERS_BY_VALUE.get(self.value)

    @property
    def ends_body(self) -> bool:
        """Whether the section's body ends with this marker alone."""
        return self.value in _TERMINATORS


_TERMINATORS: Final = frozenset(
    {
        VFIOMarker.END_OF_STATE,
        VFIOMarker.DEV_INIT_DATA_SENT,
        VFIOMarker.DEV_CONFIG_LOAD_READY,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceData(Message):
    """Record of device bytes in the main stream, without the bytes."""

    SCHEMA = Struct(
        field("marker", Int64ub, "0xffffffffef100004"),
        field("size", Int64ub, "device bytes that follow"),
    )
    SOURCE = "vfio/migration.c:vfio_save_block"

    marker: int = VFIOMarker.DEV_DATA_STATE.value
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigBounds:
    """Where the bus-specific bytes of a config are, as positions in the bytes searched.

    They begin at ``start``, END_OF_STATE is at ``stop``. The destination ignores what is behind
    that, ``trailing`` bytes.
    """

    start: int
    stop: int
    trailing: int = 0


def locate_config(
    data: Buffer, *, channel: str = "", offset: int = 0, size: int | None = None
) -> ConfigBounds:
    """Find the bus-specific bytes in the data of a config packet.

    Give ``size`` if the device's own config size is known, as a destination does
    (vfio/migration.c:vfio_load_device_config_state). Otherwise ``data`` must end with END_OF_STATE.

    Raises:
        TruncatedError: ``data`` is too short for the two markers and ``size``.
        WireError: a marker is missing.
    """
    needed = 2 * _MARKER_SIZE + (size or 0)
    if len(data) < needed:
        raise TruncatedError(needed - len(data), path="config", offset=offset, channel=channel)
    stop = len(data) - _MARKER_SIZE if size is None else _MARKER_SIZE + size
    for position, expected in ((0, VFIOMarker.DEV_CONFIG_STATE), (stop, VFIOMarker.END_OF_STATE)):
        (value,) = MARKER_LAYOUT.unpack(data, position)
        if value != expected:
            raise WireError(
                f"{value:#x} is not {expected.name}", offset=offset + position, channel=channel
            )
    return ConfigBounds(start=_MARKER_SIZE, stop=stop, trailing=len(data) - stop - _MARKER_SIZE)


CONFIG_LIMIT: Final = 64 << 10
"""More bytes than a config has: that of a PCI device with 2048 MSI-X vectors has 37,140."""


def unwrap_config(data: Buffer) -> bytes:
    """Give the bus-specific bytes of a config packet's data; empty if its markers are wrong."""
    try:
        bounds = locate_config(data)
    except WireError:
        return b""
    return bytes(data[bounds.start : bounds.stop])


def wrap_config(config: bytes) -> bytes:
    """Put bus-specific bytes between the two markers."""
    first = Marker(VFIOMarker.DEV_CONFIG_STATE).build()
    return first + config + Marker(VFIOMarker.END_OF_STATE).build()


DEVICE_STATE_HEADER_LAYOUT: Final = Layout(DeviceStateHeader)
VFIO_PACKET_LAYOUT: Final = Layout(VFIODeviceStatePacket)
MARKER_LAYOUT: Final = Layout(Marker)
DEVICE_DATA_LAYOUT: Final = Layout(DeviceData)
