# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``extract`` shows decoded: a device's config, and the records of its state."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from mfdtool.cli.console import finish, reading_of
from mfdtool.cli.status import ExitStatus
from mfdtool.cli.vendors import vendors_told
from mfdtool.report.pci_tree import config_json, config_rows
from mfdtool.report.row import format_rows
from mfdtool.stream.device_data import ConfigExtractor, DeviceExtractor
from mfdtool.wire.pci_state import parse_pci_state
from mfdtool.wire.vendors import pieces
from mfdtool.workflows.extract import FileSpool, TextBuffer, extract
from mfdtool.workflows.records import RecordsExtraction

if TYPE_CHECKING:
    from mfdtool.wire.vendors.registry import Registry
    from mfdtool.wire.vendors.vendor import Vendor
    from mfdtool.workflows.extract import Extraction, Sink
    from mfdtool.workflows.reading import Input
    from mfdtool.workflows.records import RecordsResult

AUTO: Final = "auto"


def show_config(
    source: Input,
    device: str,
    sink: Sink,
    *,
    migration: int,
    as_json: bool,
    tell: Callable[[Extraction], None],
) -> ExitStatus:
    """Write a device's config field by field.

    Raises:
        CaptureError: there is none, or it is not one of a PCI device.
    """
    with reading_of(source, keep_extents=True) as reading:
        data = TextBuffer()
        result = extract(reading, ConfigExtractor(migration, device), data)
        tell(result)
        finish(reading)
        if data.text:
            state = parse_pci_state(data.text)
            if as_json:
                sink.write(json.dumps(config_json(state), indent=2).encode() + b"\n")
            else:
                sink.write(format_rows(config_rows(state)).encode())
        whole = result.complete and not reading.problems
        return ExitStatus.OK if whole else ExitStatus.INCOMPLETE


def show_records(
    source: Input, device: str, sink: Sink, *, migration: int, vendor: str, as_json: bool
) -> ExitStatus:
    """Write a line for each record of a device's state.

    Raises:
        CaptureError: there is no such device.
    """
    registry = vendors_told()
    wanted = _vendor(registry, vendor)
    with reading_of(source, keep_extents=True) as reading, FileSpool() as spool:
        extractor = DeviceExtractor(migration, device, spool)
        with RecordsExtraction(extractor, registry, vendor=wanted, as_json=as_json) as records:
            result = records.run(reading)
            _tell(result)
            finish(reading)
            for block in records.text():
                sink.write(block)
        whole = result.complete and not reading.problems
        return ExitStatus.OK if whole else ExitStatus.INCOMPLETE


def _vendor(registry: Registry, name: str) -> Vendor | None:
    """Find the driver that the user named; None for automatic choice."""
    if name == AUTO:
        return None
    if name == pieces.VENDOR.name:
        return pieces.VENDOR
    known = registry.by_name
    if name not in known:
        names = ", ".join((AUTO, pieces.VENDOR.name, *known))
        raise click.BadParameter(f"{name!r} is none of {names}.", param_hint="--vendor")
    return known[name]


def _tell(result: RecordsResult) -> None:
    for note in result.notes:
        click.echo(f"mfdtool: {note}", err=True)
    for hole in result.holes:
        click.echo(f"mfdtool: missing: {hole}", err=True)
    for problem in result.problems:
        click.echo(f"mfdtool: {problem}", err=True)
    if result.why:
        click.echo(f"mfdtool: driver {result.vendor}: {result.why}", err=True)
