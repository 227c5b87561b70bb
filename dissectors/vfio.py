# SPDX-License-Identifier: GPL-2.0-or-later
"""VFIO device state: payload of multifd packets, and records of the main stream."""

from __future__ import annotations

from typing import Any, Final

from scapy.fields import FieldLenField, FlagsField, IntField, StrField
from scapy.packet import Packet, Raw

from dissectors.fields import (
    DataField,
    Message,
    TruncatedError,
    XLongEnumField,
    flag_symbols,
    shorten,
    symbols,
)
from mfdtool.wire.constants import (
    VFIO_PACKET_VERSION,
    VFIO_STATE_FLAGS,
    VFIOMarker,
    VFIOStateFlag,
)

MARKER_SIZE: Final = 8

_MARKERS: Final = symbols(VFIOMarker)
_CONFIG: Final = VFIOMarker.DEV_CONFIG_STATE.to_bytes(MARKER_SIZE)
_DATA: Final = VFIOMarker.DEV_DATA_STATE.to_bytes(MARKER_SIZE)
_END: Final = VFIOMarker.END_OF_STATE.to_bytes(MARKER_SIZE)


class VFIODeviceStatePacket(Message):
    """Header of a multifd packet's payload (vfio/migration-multifd.c:VFIODeviceStatePacket).

    Behind it are bytes of the device, or its config.
    """

    fields_desc = [
        IntField("version", VFIO_PACKET_VERSION),
        IntField("idx", 0),
        FlagsField("flags", 0, 32, flag_symbols(VFIO_STATE_FLAGS)),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Everything behind the header is its payload: the packet around it knows the length."""
        return s, b""

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """A config between its two markers, if the flag says so and they are there."""
        if self.flags & VFIOStateFlag.CONFIG_STATE.value and is_config(payload):
            return VFIOConfigState
        return Raw


class ConfigField(StrField):
    """Everything before the last marker; shown in hex, and only the beginning."""

    def __init__(self, name: str) -> None:
        super().__init__(name, b"", remain=MARKER_SIZE)

    def i2repr(self, pkt: Packet | None, x: bytes) -> str:
        """Show some bytes and their number."""
        return shorten(x)


class VFIOConfigState(Packet):
    """A device's config and its two markers (vfio/migration.c:vfio_save_device_config_state).

    The length of ``config`` is not in the stream: it is all that is between the markers.
    """

    fields_desc = [
        XLongEnumField("marker", VFIOMarker.DEV_CONFIG_STATE.value, _MARKERS),
        ConfigField("config"),
        XLongEnumField("end", VFIOMarker.END_OF_STATE.value, _MARKERS),
    ]

    def pre_dissect(self, s: bytes) -> bytes:
        """Refuse what has no room for two markers."""
        if len(s) < 2 * MARKER_SIZE:
            raise TruncatedError(f"{2 * MARKER_SIZE - len(s)} bytes more wanted")
        return s


class VFIOMarkerRecord(Message):
    """Record of a VFIO section (vfio/migration.c:vfio_load_state).

    The config behind DEV_CONFIG_STATE is not part of it, since its length is not in the stream.
    Dissecting a record with data gives a :class:`VFIODeviceData`.
    """

    fields_desc = [XLongEnumField("marker", VFIOMarker.END_OF_STATE.value, _MARKERS)]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_args: Any, **_kargs: Any) -> type[Packet]:
        """Choose the class by the marker."""
        return VFIODeviceData if _pkt.startswith(_DATA) else cls


class VFIODeviceData(Message):
    """Record with bytes of the device (vfio/migration.c:vfio_save_block)."""

    fields_desc = [
        XLongEnumField("marker", VFIOMarker.DEV_DATA_STATE.value, _MARKERS),
        FieldLenField("size", None, fmt="Q", length_of="data"),
        DataField("data", b"", length_from=lambda record: record.size),
    ]


def is_config(data: bytes) -> bool:
    """Tell whether bytes are a config between its markers."""
    whole = len(data) >= 2 * MARKER_SIZE
    return whole and data.startswith(_CONFIG) and data.endswith(_END)
