# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI: the registers of a config space, and its lists of capabilities.

QEMU sends the config space as the guest sees it, little-endian, 256 bytes or 4096. Both lists in
it are chains of pointers that a broken migration can bend at will: they are followed inside their
own area only, and to each place once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from construct import Bytes, Int8ub, Int16ul, Int32ul, Struct, this

from mfdtool.errors import WireError
from mfdtool.wire.codec import Buffer, Message, describe, field, listed, optional
from mfdtool.wire.pci_tables import (
    CAPABILITIES,
    EXTENDED_CAPABILITIES,
    CapabilityId,
    PciStatus,
)

CONVENTIONAL_SIZE: Final = 256
EXPRESS_SIZE: Final = 4096
HEADER_SIZE: Final = 64
BARS: Final = 6

_BAR_IO: Final = 0x1
_BAR_64: Final = 0x4
_BAR_TYPE: Final = 0x6
_BAR_PREFETCH: Final = 0x8
_MSI_64BIT: Final = 0x80
_MSI_MASKBIT: Final = 0x100
_MSIX_SIZE: Final = 0x7FF
_MSIX_BIR: Final = 0x7
_NOTHING_THERE: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class PciHeader(Message):
    """Header of a device that is no bridge (header type 0)."""

    SCHEMA = Struct(
        field("vendor_id", Int16ul, "PCI vendor id"),
        field("device_id", Int16ul, "PCI device id, by its vendor's numbers"),
        field("command", Int16ul, "what the guest lets the PCI device do"),
        field("status", Int16ul, "what the PCI device can do, and errors"),
        field("revision_id", Int8ub, "revision of the device"),
        field("prog_if", Int8ub, "programming interface of the class"),
        field("subclass", Int8ub, "class, the low byte"),
        field("base_class", Int8ub, "class, the high byte"),
        field("cache_line_size", Int8ub, "in words of 4 bytes"),
        field("latency_timer", Int8ub, "in bus clocks"),
        field("header_type", Int8ub, "0 for a device; 0x80: it has several functions"),
        field("bist", Int8ub, "built-in self test"),
        field("bars", listed(BARS, Int32ul), "base address registers"),
        field("cardbus_cis", Int32ul, "CardBus CIS pointer"),
        field("subsystem_vendor_id", Int16ul, "who made the board"),
        field("subsystem_id", Int16ul, "which board, by its maker's numbers"),
        field("rom_address", Int32ul, "expansion ROM; bit 0: enabled"),
        field("capability_list", Int8ub, "where the first capability is, 0 if there is none"),
        field("reserved", Bytes(7), "0"),
        field("interrupt_line", Int8ub, "the guest's own note"),
        field("interrupt_pin", Int8ub, "1 to 4 for INTA to INTD, 0 if it has none"),
        field("min_gnt", Int8ub, "bus time it needs, in quarters of a microsecond"),
        field("max_lat", Int8ub, "how often it needs the bus"),
    )
    SOURCE = "pci/pci.c:vmstate_info_pci_config"

    vendor_id: int
    device_id: int
    command: int = 0
    status: int = 0
    revision_id: int = 0
    prog_if: int = 0
    subclass: int = 0
    base_class: int = 0
    cache_line_size: int = 0
    latency_timer: int = 0
    header_type: int = 0
    bist: int = 0
    bars: tuple[int, ...] = (0,) * BARS
    cardbus_cis: int = 0
    subsystem_vendor_id: int = 0
    subsystem_id: int = 0
    rom_address: int = 0
    capability_list: int = 0
    reserved: bytes = bytes(7)
    interrupt_line: int = 0
    interrupt_pin: int = 0
    min_gnt: int = 0
    max_lat: int = 0

    @property
    def device_class(self) -> int:
        """Base class, subclass and programming interface as one number of three bytes."""
        return self.base_class << 16 | self.subclass << 8 | self.prog_if

    def used_bars(self) -> Iterator[Bar]:
        """Give the BARs that are not zero; one of 64 bits takes two registers."""
        number = 0
        while number < BARS:
            raw = self.bars[number]
            bar = _bar(number, raw, self.bars[number + 1] if number + 1 < BARS else 0)
            if bar.register or bar.address:
                yield bar
            number += 2 if bar.kind is BarKind.MEMORY64 else 1


class BarKind(StrEnum):
    """What a base address register maps."""

    IO = "io"
    MEMORY32 = "memory32"
    MEMORY64 = "memory64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A base address register: ``register`` is its first word as it is in the config space."""

    number: int
    kind: BarKind
    address: int
    prefetchable: bool
    register: int


def _bar(number: int, raw: int, following: int) -> Bar:
    if raw & _BAR_IO:
        kind, address = BarKind.IO, raw & ~0x3
    elif raw & _BAR_TYPE == _BAR_64 and number + 1 < BARS:
        kind, address = BarKind.MEMORY64, raw & ~0xF | following << 32
    else:
        kind, address = BarKind.MEMORY32, raw & ~0xF
    prefetchable = kind is not BarKind.IO and bool(raw & _BAR_PREFETCH)
    return Bar(number=number, kind=kind, address=address, prefetchable=prefetchable, register=raw)


# Capabilities that have their fields decoded. All begin with their id and the next one's place.

_ID: Final = field("id", Int8ub, "which capability")
_NEXT: Final = field("next", Int8ub, "where the next one is, 0 if it is the last")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerManagement(Message):
    """Power Management capability."""

    SCHEMA = Struct(
        _ID,
        _NEXT,
        field("pmc", Int16ul, "what the device can do"),
        field("ctrl", Int16ul, "bits 0-1: power state, D0 to D3"),
        field("ppb_extensions", Int8ub, "for bridges"),
        field("data", Int8ub, "what ctrl selects"),
    )
    SOURCE = "vfio/pci.c:vfio_add_std_cap"

    id: int = CapabilityId.PM.value
    next: int = 0
    pmc: int = 0
    ctrl: int = 0
    ppb_extensions: int = 0
    data: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Msi(Message):
    """MSI capability; its flags tell which fields there are."""

    SCHEMA = Struct(
        _ID,
        _NEXT,
        field("flags", Int16ul, "bit 0: enabled, 4-6: log2 of the vectors in use"),
        field("address_lo", Int32ul, "address that is written to, the low half"),
        field("address_hi", optional(this.flags & _MSI_64BIT, Int32ul), "the high half"),
        field("data", Int16ul, "what is written there"),
        field("reserved", optional(this.flags & _MSI_MASKBIT, Int16ul), "0"),
        field("mask", optional(this.flags & _MSI_MASKBIT, Int32ul), "vectors that are masked"),
        field("pending", optional(this.flags & _MSI_MASKBIT, Int32ul), "vectors that wait"),
    )
    SOURCE = "pci/msi.c:msi_init"

    id: int = CapabilityId.MSI.value
    next: int = 0
    flags: int = 0
    address_lo: int = 0
    address_hi: int | None = None
    data: int = 0
    reserved: int | None = None
    mask: int | None = None
    pending: int | None = None

    @property
    def enabled(self) -> bool:
        """Whether the guest uses it."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Msix(Message):
    """MSI-X capability; table and pending bits themselves are in a BAR."""

    SCHEMA = Struct(
        _ID,
        _NEXT,
        field("flags", Int16ul, "bits 0-10: vectors less one, 14: all masked, 15: enabled"),
        field("table", Int32ul, "the table's offset in its BAR; bits 0-2: which BAR"),
        field("pba", Int32ul, "the pending bits' offset in their BAR; bits 0-2: which BAR"),
    )
    SOURCE = "pci/msix.c:msix_init"

    id: int = CapabilityId.MSIX.value
    next: int = 0
    flags: int = 0
    table: int = 0
    pba: int = 0

    @property
    def vectors(self) -> int:
        """How many entries the table has."""
        return (self.flags & _MSIX_SIZE) + 1

    @property
    def enabled(self) -> bool:
        """Whether the guest uses it."""
        return bool(self.flags & 0x8000)

    @property
    def masked(self) -> bool:
        """Whether all vectors are masked at once."""
        return bool(self.flags & 0x4000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Express(Message):
    """PCI Express capability, as much of it as all devices have."""

    SCHEMA = Struct(
        _ID,
        _NEXT,
        field("flags", Int16ul, "bits 0-3: version, 4-7: kind of device or port"),
        field("devcap", Int32ul, "what the device can do"),
        field("devctl", Int16ul, "what of it is on"),
        field("devsta", Int16ul, "errors seen"),
        field("lnkcap", Int32ul, "what the link can do"),
        field("lnkctl", Int16ul, "what of it is on"),
        field("lnksta", Int16ul, "bits 0-3: speed, 4-9: width"),
    )
    SOURCE = "vfio/pci.c:vfio_setup_pcie_cap"

    id: int = CapabilityId.EXP.value
    next: int = 0
    flags: int = 0
    devcap: int = 0
    devctl: int = 0
    devsta: int = 0
    lnkcap: int = 0
    lnkctl: int = 0
    lnksta: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorSpecific(Message):
    """Vendor-specific capability, without what the vendor put there."""

    SCHEMA = Struct(_ID, _NEXT, field("length", Int8ub, "its bytes, these three included"))
    SOURCE = "vfio/pci.c:vfio_add_vendor_specific_cap"

    id: int = CapabilityId.VNDR.value
    next: int = 0
    length: int = 3


_BODIES: Final[dict[int, type[Message]]] = {
    CapabilityId.PM: PowerManagement,
    CapabilityId.MSI: Msi,
    CapabilityId.VNDR: VendorSpecific,
    CapabilityId.EXP: Express,
    CapabilityId.MSIX: Msix,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """An entry of one of the two lists.

    Attributes:
        offset: its place in the config space.
        id: its number, which means something else in each list.
        extended: whether it is of the list behind the first 256 bytes.
        version: an extended one's version.
        body: its fields, if they are known and all there.
    """

    offset: int
    id: int
    extended: bool = False
    version: int = 0
    body: Message | None = None

    @property
    def name(self) -> str:
        """Its symbol: ``MSIX``, ``ERR``, ...; its number if it is not known."""
        known = (EXTENDED_CAPABILITIES if self.extended else CAPABILITIES).get(self.id)
        return known.symbol if known is not None else f"{self.id:#x}"

    @property
    def text(self) -> str:
        """Its name in words."""
        known = (EXTENDED_CAPABILITIES if self.extended else CAPABILITIES).get(self.id)
        return known.text if known is not None else "unknown capability"


@dataclass(frozen=True, slots=True)
class CapabilityLists:
    """Both lists in the order of their pointers, and where these lead nowhere."""

    capabilities: tuple[Capability, ...]
    problems: tuple[str, ...]

    def find(self, kind: CapabilityId) -> Capability | None:
        """Give the first capability of a kind, as QEMU takes it."""
        for capability in self.capabilities:
            if capability.id == kind and not capability.extended:
                return capability
        return None


def parse_capabilities(space: Buffer) -> CapabilityLists:
    """Follow both lists of a config space of 64 bytes or more."""
    problems: list[str] = []
    found = [*_standard(space, problems), *_extended(space, problems)]
    return CapabilityLists(tuple(found), tuple(problems))


def _standard(space: Buffer, problems: list[str]) -> Iterator[Capability]:
    stop = min(len(space), CONVENTIONAL_SIZE)
    status = int.from_bytes(space[_STATUS_AT : _STATUS_AT + 2], "little")
    if not status & PciStatus.CAP_LIST:
        return
    seen: set[int] = set()
    at = space[_LIST_AT] & ~3
    while at:
        if not HEADER_SIZE <= at <= stop - 2:
            problems.append(f"a capability at {at:#x}, outside of {HEADER_SIZE:#x}-{stop - 1:#x}")
            return
        if at in seen:
            problems.append(f"the list of capabilities comes back to {at:#x}")
            return
        seen.add(at)
        yield _capability(space[at:stop], at, problems)
        at = space[at + 1] & ~3


def _capability(data: Buffer, at: int, problems: list[str]) -> Capability:
    kind = data[0]
    message = _BODIES.get(kind)
    body = None
    if message is not None:
        try:
            body, _ = message.parse_prefix(data)
        except WireError:
            problems.append(f"capability {CAPABILITIES[kind].symbol} at {at:#x} is cut off")
    return Capability(offset=at, id=kind, body=body)


def _extended(space: Buffer, problems: list[str]) -> Iterator[Capability]:
    stop = len(space)
    if stop < CONVENTIONAL_SIZE + 4:
        return
    seen: set[int] = set()
    at = CONVENTIONAL_SIZE
    while at:
        if not CONVENTIONAL_SIZE <= at <= stop - 4:
            problems.append(f"an extended capability at {at:#x}, outside of 0x100-{stop - 1:#x}")
            return
        if at in seen:
            problems.append(f"the list of extended capabilities comes back to {at:#x}")
            return
        seen.add(at)
        word = int.from_bytes(space[at : at + 4], "little")
        if word in (0, _NOTHING_THERE):
            # An empty list has this for its first entry.
            return
        yield Capability(offset=at, id=word & 0xFFFF, extended=True, version=(word >> 16) & 0xF)
        at = (word >> 20) & ~3


def bar_and_offset(register: int) -> tuple[int, int]:
    """Split where an MSI-X table or its pending bits are: number of the BAR, offset in it."""
    return register & _MSIX_BIR, register & ~_MSIX_BIR


_PLACES: Final = {info.name: info.offset or 0 for info in describe(PciHeader)}
_STATUS_AT: Final = _PLACES["status"]
_LIST_AT: Final = _PLACES["capability_list"]
