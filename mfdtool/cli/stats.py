# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool stats``."""

from __future__ import annotations

import click

from mfdtool.cli.console import finish, reading_of, tell_unmatched, write_all
from mfdtool.cli.options import input_options, selection_options
from mfdtool.cli.status import ExitStatus
from mfdtool.report.stats import statistics_json, statistics_text
from mfdtool.stream.selection import DevicesMet, Selection
from mfdtool.stream.statistics import By
from mfdtool.workflows.reading import Input
from mfdtool.workflows.stats import measure


@click.command("stats")
@input_options
@selection_options
@click.option(
    "--by",
    type=click.Choice([by.value for by in By]),
    default=By.DEVICE.value,
    show_default=True,
    help="What makes a group.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(*, source: Input, selection: Selection, by: str, as_json: bool) -> ExitStatus:
    """Measure packets by channel, device or phase: how many, how large, how fast, in what order.

    By device, sizes and bytes are those of the device's data; otherwise those of whole frames.
    An inversion is a pair of packets of which the one with the greater idx arrived first; a packet
    is displaced by the difference between its rank in arrival and its rank in idx.
    """
    met = DevicesMet() if selection.devices else None
    with reading_of(source) as reading:
        measured = measure(reading, by=By(by), selection=selection, met=met)
        if as_json:
            import json

            write_all([json.dumps(statistics_json(measured), indent=2), "\n"])
        else:
            write_all(f"{line}\n" for line in statistics_text(measured))
        status = finish(reading)
        tell_unmatched(reading, selection, met)
    return status
