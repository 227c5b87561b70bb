# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers whose state can be decoded: those of mfdtool, and those that other packages add.

A package adds one by an entry point of the group ``mfdtool.vendors`` that names a
:class:`~mfdtool.wire.vendors.vendor.Vendor`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Final, NamedTuple

from mfdtool.wire.vendors import pieces
from mfdtool.wire.vendors.registry import BUILT_IN, Registry
from mfdtool.wire.vendors.vendor import Vendor, failure_text

GROUP: Final = "mfdtool.vendors"


class LoadedVendors(NamedTuple):
    """The drivers, and why others could not be had."""

    registry: Registry
    problems: tuple[str, ...]


def load_vendors(points: Iterable[EntryPoint] | None = None) -> LoadedVendors:
    """Collect the drivers; those of mfdtool come first, and nobody can replace them.

    ``points`` are the entry points to load, by default those that are installed. One that cannot
    be loaded is told and left out: a capture can be read without it.
    """
    vendors = list(BUILT_IN)
    names = {vendor.name: vendor for vendor in (*vendors, pieces.VENDOR)}
    problems = []
    for point in entry_points(group=GROUP) if points is None else points:
        try:
            vendor = point.load()
        except (Exception, SystemExit) as error:  # whatever another package's import raises
            problems.append(f"entry point {point.name} of {GROUP}: {failure_text(error)}")
            continue
        if not isinstance(vendor, Vendor):
            problems.append(f"entry point {point.name} of {GROUP}: {point.value} is no Vendor")
        elif names.setdefault(vendor.name, vendor) is vendor:
            vendors.append(vendor)
        else:
            problems.append(f"entry point {point.name} of {GROUP}: {vendor.name} is there already")
    return LoadedVendors(Registry(vendors), tuple(problems))
