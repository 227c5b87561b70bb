# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool decode``: every frame of the migrations, as text, tree, JSON or CSV."""

from __future__ import annotations

import click

from mfdtool.cli.console import finish, reading_of, tell_unmatched, uses_colour, write_all
from mfdtool.cli.options import input_options, selection_options
from mfdtool.cli.status import ExitStatus
from mfdtool.report.filter import FilterError, compile_filter
from mfdtool.stream.fields import UnknownFieldError, check_names
from mfdtool.stream.selection import DevicesMet, Selection
from mfdtool.workflows.decode import OutputFormat, Plan, Predicate, decode
from mfdtool.workflows.reading import Input


def _fields(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Split comma-separated names, and refuse unknown ones."""
    names = [name.strip() for entry in value for name in entry.split(",")]
    try:
        return check_names(filter(None, names))
    except UnknownFieldError as error:
        raise click.BadParameter(f"{error} (mfdtool fields lists them)") from None


def _filter(ctx: click.Context, param: click.Parameter, value: str | None) -> Predicate | None:
    if value is None:
        return None
    try:
        return compile_filter(value)
    except FilterError as error:
        raise click.BadParameter(str(error)) from None


@click.command("decode")
@input_options
@selection_options
@click.option(
    "-T",
    "output_format",
    type=click.Choice([choice.value for choice in OutputFormat]),
    default=OutputFormat.TEXT.value,
    show_default=True,
    help="How to write frames.",
)
@click.option(
    "-e",
    "fields",
    metavar="FIELD[,FIELD...]",
    multiple=True,
    callback=_fields,
    help="Write these fields: columns of csv and text, keys of jsonl (repeatable).",
)
@click.option(
    "-Y",
    "predicate",
    metavar="FILTER",
    callback=_filter,
    help="Only frames that pass, as in 'kind == multifd.device_state && idx >= 2'.",
)
@click.option("-x", "hexdump", is_flag=True, help="Dump the bytes of each frame.")
@click.option("--full", is_flag=True, help="With -x: all bytes, not the first ones only.")
@click.option(
    "-2",
    "twice",
    is_flag=True,
    help="Read twice, for the vmdescription first: sections before the switchover need it.",
)
@click.option("-c", "count", metavar="N", type=click.IntRange(min=1), help="Stop after N frames.")
def command(
    *,
    source: Input,
    selection: Selection,
    output_format: str,
    fields: tuple[str, ...],
    predicate: Predicate | None,
    hexdump: bool,
    full: bool,
    twice: bool,
    count: int | None,
) -> ExitStatus:
    """Print every packet, section and message of the migrations in CAPTURE.

    CAPTURE is a pcap or pcapng file, plain or compressed, or a file that holds main streams: a raw
    one, a libvirt save image, a qcow2 image with snapshots. '-' is standard input. Frames
    come in the order in which their last byte arrived.
    """
    plan = Plan(
        format=OutputFormat(output_format),
        fields=fields,
        selection=selection,
        predicate=predicate,
        count=count,
        hexdump=hexdump,
        full=full,
        colour=uses_colour(),
    )
    _check(plan)
    met = DevicesMet() if selection.devices else None
    with reading_of(source, keep_extents=plan.needs_extents) as reading:
        if twice:
            reading.learn()
        write_all(decode(reading, plan, met=met))
        status = finish(reading)
        tell_unmatched(reading, selection, met, to_end=count is None)
    return status


def _check(plan: Plan) -> None:
    """Refuse options that contradict each other."""
    if plan.full and not plan.hexdump:
        raise click.UsageError("--full goes with -x.")
    if plan.hexdump and plan.format not in {OutputFormat.TEXT, OutputFormat.TREE}:
        raise click.UsageError(f"-x goes with -T text or tree, not with {plan.format}.")
    if plan.fields and plan.format in {OutputFormat.TREE, OutputFormat.SCAPY}:
        raise click.UsageError(f"-e goes with -T text, jsonl or csv, not with {plan.format}.")
