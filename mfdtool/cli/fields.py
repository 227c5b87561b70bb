# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool fields``: the names that ``decode`` shows and filters by."""

from __future__ import annotations

import click

from mfdtool.cli.console import write_all
from mfdtool.cli.status import ExitStatus
from mfdtool.report.catalog import catalog_json, catalog_text, entries_for
from mfdtool.stream.fields import UnknownFieldError


@click.command("fields")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(*, names: tuple[str, ...], as_json: bool) -> ExitStatus:
    """List the fields that decode shows and filters by.

    NAME is a field or a kind of frame, such as idx or multifd.device_state; without it all are
    listed; with it, also which kinds of frames have it, and where QEMU declares it.
    """
    try:
        entries = entries_for(names)
    except UnknownFieldError as error:
        raise click.UsageError(str(error)) from None
    text = catalog_json(entries) if as_json else catalog_text(entries, details=bool(names))
    write_all([text])
    return ExitStatus.OK
