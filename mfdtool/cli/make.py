# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool make``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mfdtool.cli.make_options import network_options, plan_options
from mfdtool.cli.status import ExitStatus
from mfdtool.errors import WireError
from mfdtool.fixtures.defects import DEFECTS
from mfdtool.report.units import count_text
from mfdtool.workflows.make import (
    Format,
    Made,
    Recipe,
    make,
    summary,
    write_capture,
    write_streams,
)

if TYPE_CHECKING:
    from mfdtool.fixtures.plan import Plan
    from mfdtool.fixtures.segments import Network

_STANDARD_OUTPUT: Final = "-"


def _list_defects(context: click.Context, _: click.Parameter, value: object) -> None:
    """Print all defects and end."""
    if not value or context.resilient_parsing:
        return
    width = max(map(len, DEFECTS))
    for defect in DEFECTS.values():
        rule = defect.rule
        click.echo(f"{defect.name:{width}}  {rule.id}  {rule.severity.value:7}  {defect.meaning}")
    context.exit(ExitStatus.OK)


@click.command("make")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Capture file, - for standard output; a directory with --format raw.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice([each.value for each in Format]),
    help="What to write; by default pcap if PATH ends so, else pcapng.",
)
@click.option(
    "--defect",
    "defects",
    metavar="NAME[:AT][@IDSTR]",
    multiple=True,
    help="Break something (repeatable).",
)
@click.option(
    "--list-defects",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_defects,
    help="List the defects and the rules that they break.",
)
@click.option("--json", "as_json", is_flag=True, help="Describe what was made in one JSON object.")
@plan_options
@network_options
def command(
    *,
    output: Path,
    file_format: str | None,
    defects: tuple[str, ...],
    as_json: bool,
    plan: Plan | None,
    seed: int,
    network: Network,
) -> ExitStatus:
    """Build a migration as a source would send it, break it if asked to, and write a capture.

    \b
    mfdtool make --channels 8 --device 00:05.0:64M --order reverse -o x.pcapng
    mfdtool make --random --seed 7 --defect duplicate-idx:3 --lost 0.01 -o x.pcap

    The same options give the same bytes.
    """
    chosen = _format_of(output, file_format)
    to_stdout = str(output) == _STANDARD_OUTPUT
    if to_stdout and (as_json or chosen is Format.RAW):
        raise click.UsageError("standard output takes one capture and nothing else.")
    if to_stdout and sys.stdout.isatty():
        raise click.UsageError("will not write binary data to a terminal; use -o PATH.")
    try:
        made = make(Recipe(plan=plan, seed=seed, defects=defects, network=network))
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    except WireError as error:
        raise click.UsageError(f"{error.path}: {error.reason}.") from None
    _write(made, output, chosen)
    if as_json:
        click.echo(json.dumps(summary(made), indent=2))
    else:
        click.echo(f"mfdtool: {output}: {_described(made)}", err=True)
    return ExitStatus.OK


def _format_of(output: Path, named: str | None) -> Format:
    if named is not None:
        return Format(named)
    return Format.PCAP if output.suffix == ".pcap" else Format.PCAPNG


def _write(made: Made, output: Path, chosen: Format) -> None:
    if chosen is Format.RAW:
        write_streams(made, output)
    elif str(output) == _STANDARD_OUTPUT:
        write_capture(made, sys.stdout.buffer, chosen)
        sys.stdout.buffer.flush()
    else:
        with output.open("wb") as file:
            write_capture(made, file, chosen)


def _described(made: Made) -> str:
    """Say in one line what was made."""
    channels = count_text(len(made.migration.connections), "connection")
    devices = count_text(len(made.whole.devices), "device")
    packets = count_text(len(made.migration.device_packets()), "device packet")
    return f"{channels}, {devices}, {packets}; {made.comment}"
