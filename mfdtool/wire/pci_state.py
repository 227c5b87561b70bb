# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI: what QEMU sends as the config of a VFIO device.

::

    state := version config_space pins [msix_table msix_pending] [display]

The sizes are not on the wire: a destination knows its own device (vfio/pci.c:vfio_pci_load_config).
Here they follow from the MSI-X capability in the config space, and from the length of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct as Compiled
from typing import Final, NamedTuple

from construct import Int32ul, Struct

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.codec import Buffer, Message, field
from mfdtool.wire.pci_config import (
    CONVENTIONAL_SIZE,
    EXPRESS_SIZE,
    HEADER_SIZE,
    Capability,
    Msix,
    PciHeader,
    parse_capabilities,
)
from mfdtool.wire.pci_tables import CapabilityId

PCI_DEVICE_VERSION: Final = 2
"""PCIDevice's version_id, in front of the config space (pci/pci.c:vmstate_pci_device)."""

VERSION_SIZE: Final = 4
PINS: Final = 4
"""INTx pins, INTA to INTD."""

MSIX_ENTRY_SIZE: Final = 16

_PIN: Final = Compiled(">I")
_SUBSECTION: Final = 5
_MASKED: Final = 1


class Geometry(NamedTuple):
    """Sizes that are not on the wire: config space in bytes, and MSI-X vectors."""

    config: int
    vectors: int

    @property
    def pins_at(self) -> int:
        """Where the INTx pins are, from the start of the state."""
        return VERSION_SIZE + self.config

    @property
    def table_at(self) -> int:
        """Where the MSI-X table is."""
        return self.pins_at + PINS * _PIN.size

    @property
    def pending_at(self) -> int:
        """Where the MSI-X pending bits are."""
        return self.table_at + MSIX_ENTRY_SIZE * self.vectors

    @property
    def size(self) -> int:
        """Length of the state, without subsections."""
        return self.pending_at + -(-self.vectors // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class MsixEntry(Message):
    """An entry of the MSI-X table, as it is in the BAR."""

    SCHEMA = Struct(
        field("address_lo", Int32ul, "address that is written to, the low half"),
        field("address_hi", Int32ul, "the high half"),
        field("data", Int32ul, "what is written there"),
        field("control", Int32ul, "bit 0: masked"),
    )
    SOURCE = "pci/msix.c:msix_save"

    address_lo: int
    address_hi: int = 0
    data: int
    control: int = 0

    @property
    def address(self) -> int:
        """The address that is written to."""
        return self.address_hi << 32 | self.address_lo

    @property
    def masked(self) -> bool:
        """Whether the vector is masked."""
        return bool(self.control & _MASKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PciState:
    """The config of a PCI device.

    Attributes:
        version: PCIDevice's version_id.
        space: the config space, 256 or 4096 bytes.
        header: its first 64 bytes.
        capabilities: both lists.
        pins: state of the INTx pins, each 0 or 1; fewer than four of a config that is cut.
        torn: bytes of a pin that is not whole.
        vectors: entries that the MSI-X table should have, 0 without MSI-X.
        table: the MSI-X table's bytes.
        pending: the MSI-X pending bits.
        rest: what follows, a subsection for a display or nothing.
        problems: what is not as it should be.
    """

    version: int
    space: bytes
    header: PciHeader
    capabilities: tuple[Capability, ...] = ()
    pins: tuple[int, ...] = (0,) * PINS
    torn: bytes = b""
    vectors: int = 0
    table: bytes = b""
    pending: bytes = b""
    rest: bytes = b""
    problems: tuple[str, ...] = ()

    @property
    def geometry(self) -> Geometry:
        """The sizes by which it was taken apart."""
        return Geometry(len(self.space), self.vectors)

    @property
    def msix(self) -> Msix | None:
        """The MSI-X capability."""
        for capability in self.capabilities:
            if isinstance(capability.body, Msix):
                return capability.body
        return None

    def entries(self) -> Iterator[MsixEntry]:
        """Give the entries of the MSI-X table that are there."""
        for at in range(0, len(self.table) - MSIX_ENTRY_SIZE + 1, MSIX_ENTRY_SIZE):
            yield MsixEntry.parse(self.table[at : at + MSIX_ENTRY_SIZE])

    def pending_vectors(self) -> Iterator[int]:
        """Give the numbers of the vectors whose pending bit is set."""
        for vector in range(min(self.vectors, 8 * len(self.pending))):
            if self.pending[vector // 8] >> vector % 8 & 1:
                yield vector

    def build(self) -> bytes:
        """Encode it again, by its bytes: the space, not the header taken from it."""
        version = self.version.to_bytes(VERSION_SIZE, "big")
        pins = b"".join(map(_PIN.pack, self.pins))
        return version + self.space + pins + self.torn + self.table + self.pending + self.rest


def parse_pci_state(data: Buffer, *, channel: str = "", offset: int = 0) -> PciState:
    """Take the config of a PCI device apart; ``data`` is what is between its two markers.

    What does not fit is told among ``problems``, and what is there is shown.

    Raises:
        TruncatedError: there is not even a header.
    """
    least = VERSION_SIZE + HEADER_SIZE
    if len(data) < least:
        missing = least - len(data)
        raise TruncatedError(missing, path="config", offset=offset, channel=channel)
    raw = bytes(data)
    problems: list[str] = []
    geometry = find_geometry(raw)
    if not _fits(raw, geometry):
        problems.append(
            f"{len(raw)} bytes, {geometry.size} would be a config space of {geometry.config}"
            f" bytes with {geometry.vectors} MSI-X vectors"
        )
    space = raw[VERSION_SIZE : geometry.pins_at]
    lists = parse_capabilities(space)
    version = int.from_bytes(raw[:VERSION_SIZE])
    if version > PCI_DEVICE_VERSION:
        problems.append(f"version {version}, a destination takes {PCI_DEVICE_VERSION} or less")
    pins = raw[geometry.pins_at : geometry.table_at]
    whole = len(pins) - len(pins) % _PIN.size
    return PciState(
        version=version,
        space=space,
        header=PciHeader.parse(space[:HEADER_SIZE]),
        capabilities=lists.capabilities,
        pins=tuple(pin for (pin,) in _PIN.iter_unpack(pins[:whole])),
        torn=pins[whole:],
        vectors=geometry.vectors,
        table=raw[geometry.table_at : geometry.pending_at],
        pending=raw[geometry.pending_at : geometry.size],
        rest=raw[geometry.size :],
        problems=(*problems, *lists.problems),
    )


def find_geometry(data: bytes) -> Geometry:
    """Find the sizes that fit a config, which begins with its version; the likelier if none does.

    ``data`` may go on behind the config.
    """
    vectors = msix_vectors(data[VERSION_SIZE : VERSION_SIZE + CONVENTIONAL_SIZE])
    for size in (EXPRESS_SIZE, CONVENTIONAL_SIZE):
        geometry = Geometry(size, vectors)
        if _fits(data, geometry):
            return geometry
    is_express = len(data) >= EXPRESS_SIZE
    return Geometry(EXPRESS_SIZE if is_express else CONVENTIONAL_SIZE, vectors)


def _fits(data: bytes, geometry: Geometry) -> bool:
    """Whether nothing but a subsection is behind a config of this size."""
    size = geometry.size
    return len(data) == size or (len(data) > size and data[size] == _SUBSECTION)


def msix_vectors(space: Buffer) -> int:
    """Count the MSI-X vectors of a device by its config space, 0 if it has none."""
    if len(space) < HEADER_SIZE:
        return 0
    msix = parse_capabilities(space[:CONVENTIONAL_SIZE])
    found = msix.find(CapabilityId.MSIX)
    return found.body.vectors if found is not None and isinstance(found.body, Msix) else 0


def read_pci_state(data: Buffer) -> PciState | None:
    """Take a config apart if it is one of a PCI device; None if it is too short for that."""
    try:
        return parse_pci_state(data)
    except WireError:
        return None
