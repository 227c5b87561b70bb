# SPDX-License-Identifier: GPL-2.0-or-later
"""Config spaces and configs of PCI devices, put together of their capabilities."""

from __future__ import annotations

from collections.abc import Mapping

from mfdtool.fixtures.pci import pci_config
from mfdtool.wire.codec import Message
from mfdtool.wire.pci_config import Express, Msi, Msix, PciHeader, PowerManagement, VendorSpecific

CONNECTX = PciHeader(
    vendor_id=0x15B3,
    device_id=0x101E,
    command=0x0406,
    status=0x0010,
    base_class=0x02,
    bars=(0xFE00000C, 0x1, 0, 0, 0xC001, 0),
    subsystem_vendor_id=0x15B3,
    subsystem_id=0x0016,
    capability_list=0x60,
)
"""A virtual function of a network card, with all kinds of BARs."""

CONNECTX_CAPABILITIES: Mapping[int, Message] = {
    0x60: Express(next=0x9C, flags=0x0002, devcap=0x10008FE1, lnkcap=0x00437103, lnksta=0x0103),
    0x9C: Msix(next=0x40, flags=0x8002, table=0x00002000, pba=0x00003004),
    0x40: PowerManagement(next=0x48, pmc=0x0003, ctrl=0x0008),
    0x48: Msi(
        next=0x74,
        flags=0x0185,
        address_lo=0xFEE01000,
        address_hi=0,
        data=0x4021,
        reserved=0,
        mask=2,
        pending=1,
    ),
    0x74: VendorSpecific(length=0x18),
}
"""By place; the list is not in the order of places."""


def space(
    header: PciHeader = CONNECTX,
    capabilities: Mapping[int, Message] = CONNECTX_CAPABILITIES,
    *,
    size: int = 4096,
    extended: tuple[tuple[int, int, int, int], ...] = (
        (0x100, 0x0E, 1, 0x148),
        (0x148, 0x0D, 1, 0),
    ),
) -> bytes:
    """Give a config space; ``extended`` has place, id, version and next place of each."""
    made = bytearray(size)
    made[:64] = header.build()
    for at, capability in capabilities.items():
        data = capability.build()
        made[at : at + len(data)] = data
    for at, kind, version, following in extended if size > 256 else ():
        word = kind | version << 16 | following << 20
        made[at : at + 4] = word.to_bytes(4, "little")
    return bytes(made)


def config(made: bytes, *, vectors: int = 3, pending: int = 0b101) -> bytes:
    """Give what is between the markers, with the table that the library's builder makes."""
    built = pci_config(size=len(made), vectors=vectors)
    bits = -(-vectors // 8)
    head, tail = built[:4], built[4 + len(made) : len(built) - bits]
    return head + made + tail + pending.to_bytes(bits, "little")
