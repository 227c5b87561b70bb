# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from mfdtool.cli.console import finish, reading_of, write_all
from mfdtool.cli.options import Said, destination_options, fail_on_option, input_options
from mfdtool.cli.status import ExitStatus
from mfdtool.report.verdict import verdict_json, verdict_text
from mfdtool.rules import Severity
from mfdtool.workflows.check import Checked, CheckOptions, against, check
from mfdtool.workflows.reading import Input


@click.command("check")
@input_options
@click.option("--migration", metavar="N", type=click.IntRange(min=0), help="Only this migration.")
@destination_options
@fail_on_option
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per migration.")
@click.option("--trace", is_flag=True, help="Write the destination's trace, as a QEMU log has it.")
@click.option(
    "--against",
    "log",
    metavar="DST.log",
    type=click.Path(path_type=Path),
    help="Compare with a real destination's log; exit with 1 if it diverges.",
)
def command(
    *,
    source: Input,
    migration: int | None,
    profile: str,
    destination: Said,
    fail_on: str,
    as_json: bool,
    trace: bool,
    log: Path | None,
) -> ExitStatus:
    """Tell what a destination would make of a migration.

    The migration is run through a model of QEMU's destination in the order in which it was
    observed, and checked against the rules that "mfdtool explain" explains. By default the
    destination is one that fits the source.
    """
    if sum((as_json, trace, log is not None)) > 1:
        raise click.UsageError("--json, --trace and --against exclude each other.")
    said, texts = destination
    options = CheckOptions(
        profile=profile,
        destination=said,
        said=texts,
        migration=migration,
        fail_on=Severity(fail_on),
    )
    with reading_of(source, keep_extents=True) as reading:
        checked = check(reading, options)
        is_bad = any(found.verdict.is_bad(options.fail_on) for found in checked)
        if log is not None:
            if len(checked) > 1:
                raise click.UsageError("name the --migration that --against is about.")
            is_bad = _compare(checked, log) or is_bad
        elif trace:
            write_all(f"{line}\n" for found in checked for line in found.trace())
        elif as_json:
            write_all(_json(checked))
        else:
            write_all(f"{line}\n" for found in checked for line in verdict_text(found.verdict))
        status = finish(reading)
    return ExitStatus.VERDICT if is_bad else status


def _json(checked: list[Checked]) -> Iterator[str]:
    """Write one object, or one a line if there are several."""
    indent = 2 if len(checked) == 1 else None
    for found in checked:
        yield json.dumps(verdict_json(found.verdict), indent=indent)
        yield "\n"


def _compare(checked: list[Checked], log: Path) -> bool:
    """Write what differs from a log; give whether anything does."""
    divergences = [found for one in checked for found in against(one, log)]
    if divergences:
        write_all(f"{found}\n" for found in divergences)
    else:
        write_all(["no divergence\n"])
    return bool(divergences)
