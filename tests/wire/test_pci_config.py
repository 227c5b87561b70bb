# SPDX-License-Identifier: GPL-2.0-or-later
"""Config spaces: registers, BARs, and lists of capabilities that may lead anywhere."""

from __future__ import annotations

from random import Random

import pytest

from mfdtool.errors import TruncatedError
from mfdtool.wire.codec import Message, describe
from mfdtool.wire.pci_config import (
    BarKind,
    Express,
    Msi,
    Msix,
    PciHeader,
    PowerManagement,
    VendorSpecific,
    bar_and_offset,
    parse_capabilities,
)
from mfdtool.wire.pci_tables import (
    CAPABILITIES,
    EXTENDED_CAPABILITIES,
    PCI_COMMANDS,
    PCI_STATUSES,
    CapabilityId,
    PciCommand,
    PciStatus,
)
from tests.support.pci import CONNECTX, CONNECTX_CAPABILITIES, space

MESSAGES = (PciHeader, PowerManagement, Msi, Msix, Express, VendorSpecific)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_described(message: type[Message]) -> None:
    assert message.__doc__
    assert message.SOURCE
    for info in describe(message):
        assert info.meaning
        assert info.type.removesuffix(" or nothing") in {
            "u8",
            "le16",
            "le32",
            "le32[]",
            "bytes[7]",
        }


def test_places_are_those_of_the_standard() -> None:
    places = {info.name: info.offset for info in describe(PciHeader)}
    assert (places["command"], places["bars"], places["subsystem_id"]) == (0x04, 0x10, 0x2E)
    assert (places["capability_list"], places["interrupt_pin"]) == (0x34, 0x3D)
    assert PciHeader.SCHEMA.sizeof() == 64


def test_header() -> None:
    header = PciHeader.parse(space()[:64])
    assert header == CONNECTX
    assert header.device_class == 0x020000
    bars = [(bar.number, bar.kind, bar.address, bar.prefetchable) for bar in header.used_bars()]
    assert bars == [(0, BarKind.MEMORY64, 0x1_FE00_0000, True), (4, BarKind.IO, 0xC000, False)]


@pytest.mark.parametrize(
    ("registers", "bars"),
    [
        ((0,) * 6, []),
        ((0xFEB0_0000, 0, 0, 0, 0, 0), [(0, "memory32", 0xFEB0_0000)]),
        ((4, 1, 2, 0, 0, 0), [(0, "memory64", 1 << 32), (2, "memory32", 0)]),
        # A BAR of 64 bits in the last register has no other half.
        ((0, 0, 0, 0, 0, 0xFEB0_0004), [(5, "memory32", 0xFEB0_0000)]),
        ((0, 1, 0, 0, 0, 0), [(1, "io", 0)]),
    ],
)
def test_bars(registers: tuple[int, ...], bars: list[tuple[int, str, int]]) -> None:
    header = PciHeader(vendor_id=1, device_id=2, bars=registers)
    assert [(bar.number, bar.kind.value, bar.address) for bar in header.used_bars()] == bars


@pytest.mark.parametrize("size", range(64))
def test_header_at_every_length(size: int) -> None:
    with pytest.raises(TruncatedError):
        PciHeader.parse(space()[:size])


def test_capabilities_in_the_order_of_the_list() -> None:
    lists = parse_capabilities(space())
    assert lists.problems == ()
    assert [(each.offset, each.name) for each in lists.capabilities] == [
        (0x60, "EXP"),
        (0x9C, "MSIX"),
        (0x40, "PM"),
        (0x48, "MSI"),
        (0x74, "VNDR"),
        (0x100, "ARI"),
        (0x148, "ACS"),
    ]
    for each in lists.capabilities[:5]:
        assert each.body == CONNECTX_CAPABILITIES[each.offset]
    assert lists.capabilities[5].text == "Alternative Routing Id"
    assert lists.capabilities[5].version == 1
    found = lists.find(CapabilityId.MSI)
    assert found is not None
    assert isinstance(found.body, Msi)
    assert (found.body.enabled, found.body.mask, found.body.pending) == (True, 2, 1)


def test_msix() -> None:
    msix = Msix(flags=0xC7FF, table=0x2003, pba=0x3000)
    assert (msix.vectors, msix.enabled, msix.masked) == (2048, True, True)
    assert bar_and_offset(msix.table) == (3, 0x2000)
    assert (Msix(flags=0).vectors, Msix(flags=0).enabled, Msix(flags=0).masked) == (1, False, False)


@pytest.mark.parametrize(
    ("flags", "size"), [(0x0000, 10), (0x0080, 14), (0x0100, 20), (0x0180, 24)]
)
def test_msi_has_four_shapes(flags: int, size: int) -> None:
    data = CapabilityId.MSI.to_bytes() + b"\0" + flags.to_bytes(2, "little") + bytes(20)
    message, used = Msi.parse_prefix(data)
    assert used == size
    assert message.build() == data[:size]


@pytest.mark.parametrize("size", [64, 0x61, 0x62, 0x70, 0xA0, 256, 0x102, 0x104, 0x149, 0x14C])
def test_space_cut_anywhere(size: int) -> None:
    lists = parse_capabilities(space()[:size])
    whole = parse_capabilities(space())
    assert all(each.offset < size for each in lists.capabilities)
    assert [each.offset for each in lists.capabilities] == [
        each.offset for each in whole.capabilities[: len(lists.capabilities)]
    ]


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (0x34, 0x20, "a capability at 0x20, outside of 0x40-0xff"),
        (0x61, 0x60, "the list of capabilities comes back to 0x60"),
        (0x75, 0x9C, "the list of capabilities comes back to 0x9c"),
        (0x34, 0xFC, ""),
        (0x103, 0x10, "the list of extended capabilities comes back to 0x100"),
    ],
)
def test_pointers_that_lead_nowhere(at: int, value: int, problem: str) -> None:
    made = bytearray(space())
    made[at] = value
    if at == 0x103:
        made[0x102] = 0x01
    lists = parse_capabilities(made)
    assert lists.problems == ((problem,) if problem else ())


def test_capability_that_is_cut_off() -> None:
    made = bytearray(space())
    made[0x34] = 0xFC
    made[0xFC] = CapabilityId.MSIX
    lists = parse_capabilities(made)
    assert lists.problems == ("capability MSIX at 0xfc is cut off",)
    assert lists.capabilities[0].body is None


def test_extended_list() -> None:
    unknown = space(extended=((0x100, 0x7F, 2, 0xFFC), (0xFFC, 0x01, 1, 0x40)))
    lists = parse_capabilities(unknown)
    names = [(each.name, each.text) for each in lists.capabilities if each.extended]
    assert names == [("0x7f", "unknown capability"), ("ERR", "Advanced Error Reporting")]
    assert lists.problems == ("an extended capability at 0x40, outside of 0x100-0xfff",)
    empty = parse_capabilities(space(extended=()))
    assert not any(each.extended for each in empty.capabilities)
    absent = bytearray(space(extended=()))
    absent[0x100:0x104] = b"\xff" * 4
    assert not any(each.extended for each in parse_capabilities(absent).capabilities)


def test_no_list_without_the_status_bit() -> None:
    header = PciHeader(vendor_id=1, device_id=2, capability_list=0x40)
    assert parse_capabilities(space(header, size=256)).capabilities == ()


@pytest.mark.parametrize("seed", range(50))
def test_any_bytes(seed: int) -> None:
    random = Random(seed)
    made = bytearray(random.randbytes(random.choice((64, 256, 300, 4096))))
    made[0x06] |= 0x10
    lists = parse_capabilities(made)
    assert len(lists.capabilities) <= 48 + 960
    places = [each.offset for each in lists.capabilities]
    assert len(places) == len(set(places))


def test_tables() -> None:
    assert set(PCI_COMMANDS) == set(PciCommand)
    assert set(PCI_STATUSES) == set(PciStatus)
    for table in (CAPABILITIES, EXTENDED_CAPABILITIES):
        symbols = [meaning.symbol for meaning in table.values()]
        assert len(symbols) == len(set(symbols))
    for member in CapabilityId:
        assert CAPABILITIES[member].symbol == member.name
