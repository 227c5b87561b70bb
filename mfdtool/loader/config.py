# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading a device's config (vfio/migration.c:vfio_load_device_config_state).

The config of a PCI device has no length on the wire: the destination reads what its own device
needs and expects END_OF_STATE behind it. So this must know the device; of an unknown one the
config tells it, as far as it makes sense (vfio/pci.c:vmstate_vfio_pci_config).

A read behind the end gives zeroes and leaves an error with the stream, which is noticed after the
field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from mfdtool.loader.destination import DeviceSpec
from mfdtool.loader.errno import EINVAL, EIO
from mfdtool.wire.constants import VFIOMarker
from mfdtool.wire.pci_config import CONVENTIONAL_SIZE, EXPRESS_SIZE
from mfdtool.wire.pci_state import (
    MSIX_ENTRY_SIZE,
    PCI_DEVICE_VERSION,
    PINS,
    VERSION_SIZE,
    Geometry,
    msix_vectors,
)
from mfdtool.wire.profile import MainStreamErrors, Profile

_MARKER_SIZE: Final = 8
_PIN_SIZE: Final = 4
_STATUS: Final = 0x06
_STATUS_CAP_LIST: Final = 0x10
_CAPABILITY_LIST: Final = 0x34
_CONFIG: Final = VFIOMarker.DEV_CONFIG_STATE.to_bytes(8)
_END: Final = VFIOMarker.END_OF_STATE.to_bytes(8)


class _Fixed(NamedTuple):
    """A byte of config space that must be the same on both sides, in the bits of the mask."""

    value: int
    cmask: int


MTTY_CONFIG: Final[Mapping[int, _Fixed]] = {
    0x00: _Fixed(0x48, 0xFF),
    0x01: _Fixed(0x43, 0xFF),
    0x02: _Fixed(0x53, 0xFF),
    0x03: _Fixed(0x32, 0xFF),
    _STATUS: _Fixed(0x00, _STATUS_CAP_LIST),
    0x08: _Fixed(0x10, 0xFF),
    0x09: _Fixed(0x02, 0xFF),
    0x0A: _Fixed(0x00, 0xFF),
    0x0B: _Fixed(0x07, 0xFF),
    0x0E: _Fixed(0x00, 0xFF),
    _CAPABILITY_LIST: _Fixed(0x00, 0xFF),
}
"""What pci.c:get_pci_config_device compares, and mtty's values there."""

MTTY_IDS: Final = bytes(MTTY_CONFIG[at].value for at in range(4))
"""Vendor and device id of mtty."""


@dataclass(frozen=True, slots=True)
class ConfigResult:
    """What came of loading a config.

    Attributes:
        errno: 0 if it was loaded.
        printed: what is written to stderr.
        rule: the rule that is broken, empty if none.
        trailing: bytes behind END_OF_STATE, which nobody reads.
    """

    errno: int = 0
    printed: tuple[str, ...] = ()
    rule: str = ""
    trailing: int = 0


class _Stream:
    """Reads like a QEMUFile (qemu-file.c): zeroes behind the end, and an error that stays."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self.failed = False

    def take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        self.position += len(taken)
        self.failed |= len(taken) < count
        return taken.ljust(count, b"\0")

    def peek(self) -> None:
        """Look one byte ahead for a subsection, as after every structure."""
        self.failed |= self.position >= len(self.data)


class _Trouble(Exception):
    """Loading stops: in which structure and field, and why."""

    def __init__(
        self, vmsd: str, field: str, errno: int, printed: tuple[str, ...] = (), type_: str = ""
    ) -> None:
        super().__init__(vmsd, field)
        self.vmsd = vmsd
        self.field = field
        self.errno = errno
        self.printed = printed
        self.type = type_


def first_marker(data: bytes) -> int:
    """Give the word that a config begins with, zero filled if there is not so much."""
    return int.from_bytes(data[:_MARKER_SIZE].ljust(_MARKER_SIZE, b"\0"))


def load_config(profile: Profile, spec: DeviceSpec, data: bytes) -> ConfigResult:
    """Load a config that begins with its marker; device names in errors are ``NAME``."""
    stream = _Stream(data, _MARKER_SIZE)
    if _is_pci(spec.idstr):
        try:
            _load_pci_device(stream, spec)
        except _Trouble as trouble:
            printed = (
                *_vmstate_lines(profile, trouble),
                "NAME: Failed to load device config space",
            )
            errno = profile.short_config_errno if trouble.errno == EIO else trouble.errno
            return ConfigResult(errno, printed, "config-refused")
    end = int.from_bytes(stream.take(_MARKER_SIZE))
    if end != VFIOMarker.END_OF_STATE:
        text = f"NAME: Failed loading device config space, end flag incorrect {end:#x}"
        return ConfigResult(EINVAL, (text,), "config-end")
    return ConfigResult(trailing=len(data) - stream.position)


def _is_pci(idstr: str) -> bool:
    """Whether a device is a PCI device, by the path that its bus gave it."""
    domain, colon, _ = idstr.partition(":")
    return bool(colon) and len(domain) == 4 and all(digit in "0123456789abcdef" for digit in domain)


def _load_pci_device(stream: _Stream, spec: DeviceSpec) -> None:
    geometry = _geometry(stream.data, spec)
    version = int.from_bytes(stream.take(VERSION_SIZE), signed=True)
    if not 0 <= version <= PCI_DEVICE_VERSION:
        text = f"Invalid value {version} expecting positive value <= {PCI_DEVICE_VERSION}"
        raise _Trouble("PCIDevice", "version_id", EINVAL, (text,), "int32 equal")
    _check_stream(stream, "PCIDevice", "version_id")
    config = stream.take(geometry.config)
    if spec.mtty_ports is not None:
        _compare_config(config)
    _check_stream(stream, "PCIDevice", "config")
    for _ in range(PINS):
        pin = int.from_bytes(stream.take(_PIN_SIZE))
        if pin > 1:
            text = f"irq state {pin}: must be 0 or 1."
            raise _Trouble("PCIDevice", "irq_state", EINVAL, (text,), "pci irq state")
    _check_stream(stream, "PCIDevice", "irq_state")
    stream.peek()
    _check_stream(stream, "VFIOPCIDevice", "pdev")
    if geometry.vectors:
        stream.take(MSIX_ENTRY_SIZE * geometry.vectors + -(-geometry.vectors // 8))
        _check_stream(stream, "VFIOPCIDevice", "pdev")
    stream.position += _display_size(stream)


def _check_stream(stream: _Stream, vmsd: str, field: str) -> None:
    if stream.failed:
        raise _Trouble(vmsd, field, EIO)


def _compare_config(config: bytes) -> None:
    for at, fixed in MTTY_CONFIG.items():
        if (config[at] ^ fixed.value) & fixed.cmask:
            text = (
                f"get_pci_config_device: Bad config data: i={at:#x} read: {config[at]:x}"
                f" device: {fixed.value:x} cmask: {fixed.cmask:x} wmask: 0 w1cmask:0"
            )
            raise _Trouble("PCIDevice", "config", EINVAL, (text,), "pci config")


def _display_size(stream: _Stream) -> int:
    """Give the length of the display's subsection, which few devices have."""
    name = b"VFIOPCIDevice/VFIODisplay"
    header = bytes((0x05, len(name))) + name
    if stream.data.startswith(header, stream.position):
        return len(header) + 4 + 28
    return 0


def _vmstate_lines(profile: Profile, trouble: _Trouble) -> tuple[str, ...]:
    """Write what vmstate.c:vmstate_load_state prints on its way out of the structures."""
    if profile.main_stream_errors is MainStreamErrors.PRINTED:
        lines = [*trouble.printed, f"Failed to load {trouble.vmsd}:{trouble.field}"]
        if trouble.vmsd == "PCIDevice":
            lines.append("Failed to load VFIOPCIDevice:pdev")
        return tuple(lines)
    if trouble.errno == EIO:
        return (f"Failed to load {trouble.vmsd} state: stream error: -{EIO}",)
    return (
        *trouble.printed,
        f"Failed to load element of type {trouble.type} for {trouble.field}: -{trouble.errno}",
    )


def _geometry(data: bytes, spec: DeviceSpec) -> Geometry:
    """Find the sizes that fit a config; those of a known device are known."""
    if spec.mtty_ports is not None:
        return Geometry(EXPRESS_SIZE, 0)
    start = _MARKER_SIZE + VERSION_SIZE
    vectors = msix_vectors(data[start : start + CONVENTIONAL_SIZE])
    for size in (EXPRESS_SIZE, CONVENTIONAL_SIZE):
        geometry = Geometry(size, vectors)
        if data[_MARKER_SIZE + geometry.size :].startswith((_END, b"\x05")):
            return geometry
    is_express = len(data) >= EXPRESS_SIZE
    return Geometry(EXPRESS_SIZE if is_express else CONVENTIONAL_SIZE, vectors)
