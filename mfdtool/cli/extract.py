# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool extract``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from mfdtool.cli.console import finish, reading_of
from mfdtool.cli.extract_views import AUTO, show_config, show_records
from mfdtool.cli.options import input_options
from mfdtool.cli.status import ExitStatus
from mfdtool.report.json_text import indented
from mfdtool.report.vmstate import VmStateExtractor
from mfdtool.stream.device_data import ConfigExtractor, DeviceExtractor
from mfdtool.stream.extraction import (
    ChannelExtractor,
    DescriptionExtractor,
    Extractor,
    Spool,
)
from mfdtool.stream.pages import PageExtractor
from mfdtool.workflows.extract import Extraction, FileSpool, OutputFile, Sink, TextBuffer, extract
from mfdtool.workflows.reading import Input

_WHAT: Final = "--device, --config, --vmstate, --vmdesc, --channel, --ram-page"

Make = Callable[[int, Spool], Extractor]
"""Makes the extractor for a migration."""


def _number(low: int, high: int) -> Callable[[click.Context, click.Parameter, str | None], object]:
    """Make a callback for an option that is a number, in decimal or as 0x..."""

    def convert(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
        return None if value is None else _parse(value, low, high)

    return convert


def _page(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    block, colon, offset = value.rpartition(":")
    if not colon or not block:
        raise click.BadParameter(f"{value!r} is not BLOCK:OFFSET, as in pc.ram:0x1000.")
    return block, _parse(offset, 0, (1 << 64) - 1)


def _parse(text: str, low: int, high: int) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number.") from None
    if not low <= number <= high:
        raise click.BadParameter(f"{text} is not between {low:#x} and {high:#x}.")
    return number


@click.command("extract")
@input_options(vmdesc="--with-vmdesc")
@click.option("--device", metavar="IDSTR", help="The device's state as its driver gets it.")
@click.option("--config", metavar="IDSTR", help="The device's config, without its markers.")
@click.option("--vmstate", is_flag=True, help="The state of all devices, as JSON.")
@click.option("--vmdesc", is_flag=True, help="The vmdescription's JSON text.")
@click.option("--channel", metavar="NAME", help="A channel's stream: main, multifd-0, ...")
@click.option(
    "--ram-page",
    "page",
    metavar="BLOCK:OFFSET",
    callback=_page,
    help="The last content of a page that was sent, as in pc.ram:0x1000.",
)
@click.option("--with-markers", is_flag=True, help="With --config: everything in the packet.")
@click.option("--decode", is_flag=True, help="With --config: show its fields, not its bytes.")
@click.option("--records", is_flag=True, help="With --device: list its driver's records.")
@click.option(
    "--vendor",
    metavar="NAME",
    default=AUTO,
    show_default=True,
    help="With --records: the driver, or none; auto takes the one that speaks for itself.",
)
@click.option("--json", "as_json", is_flag=True, help="With --decode, --records: write JSON.")
@click.option("--pretty", is_flag=True, help="With --vmdesc: indent the text.")
@click.option(
    "--migration",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Which migration, from 0 in order of appearance.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write there, not to standard output.",
)
@click.option(
    "--fill-gaps",
    "fill",
    metavar="BYTE",
    callback=_number(0, 255),
    help="Put this byte in the place of missing ones; otherwise writing stops at the first.",
)
def command(
    *,
    source: Input,
    device: str | None,
    config: str | None,
    vmstate: bool,
    vmdesc: bool,
    channel: str | None,
    page: tuple[str, int] | None,
    with_markers: bool,
    decode: bool,
    records: bool,
    vendor: str,
    as_json: bool,
    pretty: bool,
    migration: int,
    output: Path | None,
    fill: int | None,
) -> ExitStatus:
    """Write device state, a config, a page, a stream or the vmdescription to a file.

    Exactly one of --device, --config, --vmstate, --vmdesc, --channel and --ram-page says what.
    Devices are named 0000:00:05.0/vfio, 0000:00:05.0 or 00:05.0.

    --vmstate writes what QEMU's scripts/analyze-migration.py -d state does, for any input.

    Missing bytes are never replaced in silence: without --fill-gaps, what comes before the first
    hole is written, all holes are listed on standard error, and the exit status is 4.
    """
    choices: list[Make] = []
    if device is not None:
        choices.append(lambda index, spool: DeviceExtractor(index, device, spool))
    if config is not None:
        choices.append(
            lambda index, spool: ConfigExtractor(index, config, with_markers=with_markers)
        )
    if vmstate:
        choices.append(lambda index, spool: VmStateExtractor(index))
    if vmdesc:
        choices.append(lambda index, spool: DescriptionExtractor(index))
    if channel is not None:
        choices.append(lambda index, spool: ChannelExtractor(index, channel))
    if page is not None:
        size = source.page_size
        choices.append(lambda index, spool: PageExtractor(index, *page, page_size=size))
    if len(choices) != 1:
        raise click.UsageError(f"name one of {_WHAT}.")
    if with_markers and config is None:
        raise click.UsageError("--with-markers goes with --config.")
    if pretty and not vmdesc:
        raise click.UsageError("--pretty goes with --vmdesc.")
    if decode and (config is None or with_markers or fill is not None):
        raise click.UsageError("--decode goes with --config, without --with-markers, --fill-gaps.")
    if records and (device is None or fill is not None):
        raise click.UsageError("--records goes with --device, without --fill-gaps.")
    if (as_json and not (decode or records)) or (vendor != AUTO and not records):
        raise click.UsageError("--json goes with --decode and --records, --vendor with --records.")
    _refuse(output, source, is_text=vmdesc or vmstate or decode or records)
    if config is not None and decode:
        with _opened(output) as sink:
            return show_config(
                source, config, sink, migration=migration, as_json=as_json, tell=_tell
            )
    if device is not None and records:
        with _opened(output) as sink:
            return show_records(
                source, device, sink, migration=migration, vendor=vendor, as_json=as_json
            )
    return _extract(
        source,
        choices[0],
        output,
        migration=migration,
        fill=fill,
        is_pretty=pretty,
        needs_end=channel == "main" or page is not None,
        learns=vmstate,
    )


def _extract(
    source: Input,
    make: Make,
    output: Path | None,
    *,
    migration: int,
    fill: int | None,
    is_pretty: bool,
    needs_end: bool,
    learns: bool,
) -> ExitStatus:
    """Write what an extractor gives; more of it would follow where a stream lacks its end."""
    with reading_of(source, keep_extents=True) as reading, FileSpool() as spool:
        extractor = make(migration, spool)
        if learns:
            reading.learn()
        with _opened(output) as sink:
            text = TextBuffer()
            result = extract(reading, extractor, text if is_pretty else sink, fill=fill)
            _tell(result)
            finish(reading)
            if is_pretty:
                for piece in indented(text.text):
                    sink.write(piece)
        whole = result.complete and not reading.problems
        if needs_end:
            whole = whole and not reading.unfinished
        return ExitStatus.OK if whole else ExitStatus.INCOMPLETE


def _refuse(output: Path | None, source: Input, *, is_text: bool) -> None:
    """Refuse to overwrite the input, or to write bytes to a terminal."""
    if output is None or str(output) == "-":
        if not is_text and sys.stdout.isatty():
            raise click.UsageError("will not write binary data to a terminal; use -o FILE.")
        return
    inputs = [source.capture, source.main, *source.multifd]
    for path in inputs:
        if path is not None and _is_same(output, Path(path)):
            raise click.UsageError(f"{output} is the input.")


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _opened(output: Path | None) -> Iterator[Sink]:
    """Open the output; a file is left alone unless there is something to write."""
    if output is None or str(output) == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    file = OutputFile(output)
    try:
        yield file
        file.write(b"")
    finally:
        file.close()


def _tell(result: Extraction) -> None:
    for note in result.notes:
        click.echo(f"mfdtool: {note}", err=True)
    for hole in result.holes:
        click.echo(f"mfdtool: missing: {hole}", err=True)
    for problem in result.problems:
        click.echo(f"mfdtool: {problem}", err=True)
