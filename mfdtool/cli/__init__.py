# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: parse, call one workflow, render, choose the exit status.

This module knows the subcommands by name only. Each is imported when it is called, so that
``mfdtool --help`` answers at once. A command's function returns its exit status.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import click
from click.exceptions import Exit

from mfdtool import __version__
from mfdtool.cli.status import ExitStatus, status_of_error
from mfdtool.errors import MfdtoolError


class Target(NamedTuple):
    """Where a subcommand is implemented, and its line in the list of commands."""

    module: str
    help: str


COMMANDS: Final[Mapping[str, Target]] = {
    "info": Target("mfdtool.cli.info", "Show what a capture holds, on one screen."),
    "decode": Target("mfdtool.cli.decode", "Print every packet, section and message."),
    "check": Target("mfdtool.cli.check", "Tell what a destination would make of a migration."),
    "stats": Target("mfdtool.cli.stats", "Measure packets by channel, device or phase."),
    "extract": Target("mfdtool.cli.extract", "Write device state, pages or streams to a file."),
    "fields": Target("mfdtool.cli.fields", "List the fields that decode shows and filters by."),
    "explain": Target("mfdtool.cli.explain", "Explain a rule and where it comes from."),
    "make": Target("mfdtool.cli.make", "Build a migration, valid or deliberately broken."),
    "record": Target("mfdtool.cli.record", "Record a migration, or a device's own state."),
    "replay": Target("mfdtool.cli.replay", "Replay a recording in any order, into any target."),
    "explore": Target("mfdtool.cli.explore", "Try all orders in which a migration could arrive."),
    "bisect": Target("mfdtool.cli.bisect", "Reduce a failing recording to what it takes to fail."),
    "device": Target("mfdtool.cli.device", "Show what a VFIO device can do."),
    "wireshark": Target("mfdtool.cli.wireshark", "Write a dissector for Wireshark."),
}
"""Each module's ``command`` is the click command."""


GC_THRESHOLD: Final = 1_000_000
"""Frames come by the hundred thousand and make no cycles: to look for some among them as often as
Python does by default takes a quarter of the time of ``decode``."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called."""

    targets: Mapping[str, Target] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List those commands whose modules are installed."""
        return [name for name, target in self.targets.items() if find_spec(target.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is no such one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(self.targets[cmd_name].module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        rows = [(name, self.targets[name].help) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the options, of which ``--help`` writes; that nobody reads it is no error."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            # Before click sees it, which would exit with status 1.
            raise Exit(ExitStatus.PIPE) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; that nobody reads its output is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise Exit(ExitStatus.PIPE) from None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="mfdtool", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """See, record, replay and explain QEMU multifd VFIO migrations."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def run(args: Sequence[str] | None = None) -> int:
    """Run a command line without the program's name; give the exit status.

    All errors that mfdtool raises on purpose end here, as one line on standard error.
    """
    status = ExitStatus.OK
    try:
        result = cli.main(args, prog_name="mfdtool", standalone_mode=False)
        status = ExitStatus(result or ExitStatus.OK)
    except click.Abort:
        status = ExitStatus.INTERRUPTED
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        status = ExitStatus(error.exit_code)
    except MfdtoolError as error:
        _complain(str(error))
        status = status_of_error(error)
    except OSError as error:
        _complain(_describe(error))
        status = ExitStatus.LIVE
    return _flush(status)


def main() -> NoReturn:
    """Run the program."""
    _replace_closed_streams()
    gc.set_threshold(GC_THRESHOLD)
    status = run()
    with suppress(OSError):
        sys.stderr.flush()
    # All is closed and written: to take the interpreter apart would cost a tenth of a short run.
    os._exit(status)


def _replace_closed_streams() -> None:
    """Put something in the place of standard streams that are closed.

    No file may get their numbers. What is read or written there fails as it would have; messages
    go nowhere, since nobody wants them.
    """
    for number, name, flags, mode in (
        (0, "stdin", os.O_WRONLY, "r"),
        (1, "stdout", os.O_RDONLY, "w"),
        (2, "stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            # In this order it is the lowest number that is free.
            os.open(os.devnull, flags)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _complain(text: str) -> None:
    """Say what is wrong; that nobody hears it does not change how it ended."""
    with suppress(OSError):
        click.echo(f"mfdtool: {text}", err=True)


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _flush(status: ExitStatus) -> ExitStatus:
    """Write out what is buffered; what cannot be written must not be tried again at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return ExitStatus.PIPE
        if status is not ExitStatus.LIVE:
            _complain(f"standard output: {error.strerror}")
        return ExitStatus.LIVE
    return status
