# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool wireshark``."""

from __future__ import annotations

from pathlib import Path

import click

from mfdtool.cli.console import write_all
from mfdtool.cli.status import ExitStatus
from mfdtool.report.wireshark import wireshark_script
from mfdtool.workflows.wireshark import ForeignFileError, install, plugin_folder


@click.command("wireshark")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to FILE, not to standard output.",
)
@click.option("--install", "installs", is_flag=True, help="Put it where Wireshark finds it.")
@click.option(
    "--port",
    "ports",
    metavar="N",
    multiple=True,
    type=click.IntRange(1, 65535),
    help="Take TCP port N to be a migration, whatever it begins with (repeatable).",
)
@click.option("--force", is_flag=True, help="With --install: replace a file of somebody else's.")
def command(
    *, output: Path | None, installs: bool, ports: tuple[int, ...], force: bool
) -> ExitStatus:
    """Write a dissector for Wireshark and tshark, in Lua.

    \b
    mfdtool wireshark --install
    mfdtool wireshark -o qemu_migration.lua
    tshark -X lua_script:qemu_migration.lua -r CAPTURE -Y qemu_mig

    It knows migrations by what their connections begin with, on any port. --port is for captures
    that lack the beginning, and for migrations over TLS.
    """
    if installs and output is not None:
        raise click.UsageError("--install and --output exclude each other.")
    if force and not installs:
        raise click.UsageError("--force goes with --install.")
    script = wireshark_script(ports)
    if output is not None:
        output.write_text(script, encoding="utf-8")
    elif installs:
        try:
            path = install(script, plugin_folder(), force=force)
        except ForeignFileError as error:
            raise click.UsageError(f"{error}; --force replaces it.") from None
        click.echo(f"mfdtool: wrote {path}", err=True)
    else:
        write_all([script])
    return ExitStatus.OK
