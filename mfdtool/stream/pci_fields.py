# SPDX-License-Identifier: GPL-2.0-or-later
"""Fields of frames that carry a PCI device's config: what the guest's view of the device was.

A config of another kind has none of them: all are optional.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from mfdtool.stream.field import Field, FieldType, Scalar
from mfdtool.wire.codec import describe
from mfdtool.wire.pci_config import Bar, Capability, PciHeader
from mfdtool.wire.pci_state import PciState, read_pci_state

pci_state: Final = lru_cache(maxsize=16)(read_pci_state)
"""The same, for a config whose fields are asked for one by one."""


def bar_json(bar: Bar) -> dict[str, Any]:
    """Give a BAR's values by name."""
    return {
        "bar": bar.number,
        "kind": bar.kind.value,
        "address": f"{bar.address:#x}",
        "prefetchable": bar.prefetchable,
    }


def capability_json(capability: Capability) -> dict[str, Any]:
    """Give a capability's place and name."""
    return {
        "offset": f"{capability.offset:#x}",
        "id": f"{capability.id:#x}",
        "name": capability.name,
        "extended": capability.extended,
    }


def _field(
    name: str,
    kind: FieldType,
    meaning: str,
    take: Callable[[PciState], Scalar],
    source: str = PciHeader.SOURCE,
) -> Field:
    def convert(config: bytes) -> Scalar:
        state = pci_state(config)
        return None if state is None else take(state)

    return Field(name, kind, "config", meaning, source, convert, optional=True)


def _register(name: str) -> Field:
    """Make a field of a register of the header, by its name there."""
    meaning = next(info.meaning for info in describe(PciHeader) if info.name == name)
    return _field(
        f"pci_{name}", FieldType.HEX, meaning, lambda state: hex(getattr(state.header, name))
    )


_MSIX_SOURCE: Final = "pci/msix.c:msix_save"

PCI_CONFIG: Final = (
    _register("vendor_id"),
    _register("device_id"),
    _field(
        "pci_class",
        FieldType.HEX,
        "PCI base class, subclass and programming interface",
        lambda state: hex(state.header.device_class),
    ),
    _register("command"),
    _register("status"),
    _field(
        "pci_config_size",
        FieldType.INTEGER,
        "bytes of PCI config space, 256 or 4096",
        lambda state: len(state.space),
        "pci/pci.c:vmstate_pci_device",
    ),
    _field(
        "pci_bars",
        FieldType.LIST,
        "PCI BARs that are not zero: number, kind and address of each",
        lambda state: [bar_json(bar) for bar in state.header.used_bars()],
    ),
    _field(
        "pci_capabilities",
        FieldType.LIST,
        "PCI capabilities: offset, id and name of each",
        lambda state: [capability_json(each) for each in state.capabilities],
    ),
    _field(
        "msix_vectors",
        FieldType.INTEGER,
        "entries of the MSI-X table, absent without MSI-X",
        lambda state: state.vectors or None,
        _MSIX_SOURCE,
    ),
    _field(
        "msix_pending",
        FieldType.LIST,
        "MSI-X vectors whose pending bit is set, absent without MSI-X",
        lambda state: list(state.pending_vectors()) if state.vectors else None,
        _MSIX_SOURCE,
    ),
    _field(
        "pci_problems",
        FieldType.LIST,
        "what is wrong with a PCI device's config; absent if nothing is",
        lambda state: list(state.problems) or None,
        "vfio/pci.c:vfio_pci_load_config",
    ),
)
"""Fields besides those of the frame's kind."""
