# SPDX-License-Identifier: GPL-2.0-or-later
"""The config of a PCI device: found sizes, MSI-X, and configs that do not fit."""

from __future__ import annotations

from random import Random

import pytest

from mfdtool.errors import TruncatedError
from mfdtool.fixtures.pci import pci_config
from mfdtool.wire.pci_config import PciHeader
from mfdtool.wire.pci_state import (
    Geometry,
    find_geometry,
    msix_vectors,
    parse_pci_state,
    read_pci_state,
)
from tests.support.captures import decoded
from tests.support.pci import CONNECTX_CAPABILITIES, config, space


def test_real_config() -> None:
    (frame,) = [each for each in decoded("mtty-4ch-clean")[1] if each.config]
    state = parse_pci_state(frame.config)
    assert state.problems == ()
    assert state.build() == frame.config
    header = state.header
    assert (header.vendor_id, header.device_id, header.command) == (0x4348, 0x3253, 0x0103)
    assert (header.device_class, header.revision_id, header.interrupt_pin) == (0x070002, 0x10, 1)
    assert [(bar.kind.value, bar.address) for bar in header.used_bars()] == [
        ("io", 0xC010),
        ("io", 0xC018),
    ]
    assert (state.version, len(state.space), state.pins) == (2, 4096, (0, 0, 0, 0))
    assert (state.capabilities, state.vectors, state.msix, state.rest) == ((), 0, None, b"")


@pytest.mark.parametrize("size", [256, 4096])
@pytest.mark.parametrize("vectors", [0, 1, 7, 8, 9, 2048])
def test_round_trip(size: int, vectors: int) -> None:
    data = pci_config(size=size, vectors=vectors)
    state = parse_pci_state(data)
    assert state.problems == ()
    assert state.geometry == Geometry(size, vectors) == find_geometry(data)
    assert state.geometry.size == len(data)
    assert state.build() == data
    assert [entry.data for entry in state.entries()] == [0x4020 + n for n in range(vectors)]
    assert not list(state.pending_vectors())


def test_msix() -> None:
    state = parse_pci_state(config(space()))
    assert state.problems == ()
    assert list(state.pending_vectors()) == [0, 2]
    (first, *_) = state.entries()
    assert (first.address, first.data, first.masked) == (0xFEE01000, 0x4020, False)
    assert state.msix == CONNECTX_CAPABILITIES[0x9C]


def test_masked_entry() -> None:
    data = bytearray(config(space()))
    data[4 + 4096 + 16 + 12] = 1
    assert [entry.masked for entry in parse_pci_state(data).entries()] == [True, False, False]


def test_display_subsection() -> None:
    display = b"\x05\x19VFIOPCIDevice/VFIODisplay" + (1).to_bytes(4) + bytes(28)
    state = parse_pci_state(pci_config(size=256, vectors=2) + display)
    assert (state.problems, state.rest) == ((), display)
    assert state.geometry == Geometry(256, 2)


@pytest.mark.parametrize("size", range(0, 68, 7))
def test_less_than_a_header(size: int) -> None:
    data = config(space())[:size]
    with pytest.raises(TruncatedError) as caught:
        parse_pci_state(data)
    assert caught.value.missing == 68 - size
    assert read_pci_state(data) is None


@pytest.mark.parametrize("size", [68, 100, 259, 260, 276, 277, 1000, 4096, 4099, 4100, 4116, 4164])
def test_cut_config(size: int) -> None:
    data = config(space())
    state = parse_pci_state(data[:size])
    assert state.header == PciHeader.parse(space()[:64])
    assert state.problems[0].startswith(f"{size} bytes, ")
    assert state.build() == data[:size]


def test_every_split_gives_what_is_there() -> None:
    data = config(space(size=256), vectors=3)
    for size in range(68, len(data)):
        state = parse_pci_state(data[:size])
        assert state.problems
        assert state.build() == data[:size]
        assert len(state.pins) == max(0, min(4, (size - 260) // 4))
        assert len(list(state.entries())) == max(0, min(3, (size - 276) // 16))


def test_version() -> None:
    data = bytearray(pci_config(size=256))
    data[3] = 3
    assert parse_pci_state(data).problems == ("version 3, a destination takes 2 or less",)


def test_msix_vectors() -> None:
    assert msix_vectors(space()) == 3
    assert msix_vectors(space(capabilities={})) == 0
    assert msix_vectors(b"") == 0


@pytest.mark.parametrize("seed", range(30))
def test_any_bytes(seed: int) -> None:
    random = Random(seed)
    data = random.randbytes(random.randrange(68, 5000))
    state = parse_pci_state(data)
    assert len(state.table) <= len(data)
    assert all(vector < 2048 for vector in state.pending_vectors())
