# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool info``."""

from __future__ import annotations

import json

import click

from mfdtool.cli.console import finish, reading_of, write_all
from mfdtool.cli.options import input_options
from mfdtool.cli.status import ExitStatus
from mfdtool.cli.vendors import vendors_told
from mfdtool.report.info import overview_text
from mfdtool.report.info_json import overview_json
from mfdtool.workflows.info import summarise
from mfdtool.workflows.reading import Input


@click.command("info")
@input_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(*, source: Input, as_json: bool) -> ExitStatus:
    """Show what a capture holds, on one screen.

    CAPTURE is a pcap or pcapng file, plain or compressed, or a file that holds main streams: a raw
    one, a libvirt save image, a qcow2 image with snapshots. "-" is standard input. Times
    are seconds since the migration's first byte.
    """
    vendors = vendors_told()
    with reading_of(source) as reading:
        overview = summarise(reading, vendors)
        if as_json:
            write_all([json.dumps(overview_json(overview), indent=2), "\n"])
        else:
            write_all(f"{line}\n" for line in overview_text(overview))
        return finish(reading)
