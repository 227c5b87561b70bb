# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool replay --to qemu:...``: the options, and what is said."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import click

from mfdtool.cli.console import write_all
from mfdtool.cli.status import ExitStatus
from mfdtool.live.qemu.launch import completed_command
from mfdtool.live.targets import QemuTcpTarget, QemuUnixTarget, Target
from mfdtool.report.replay_qemu import report_json, report_text
from mfdtool.report.verdict import verdict_json, verdict_text
from mfdtool.rules import Severity
from mfdtool.workflows.replay import Plan
from mfdtool.workflows.replay_qemu import (
    DEADLINE,
    QemuOptions,
    prepared,
    replay_into_qemu,
)

Callback: TypeAlias = Callable[..., Any]

_LONGEST: Final = 3600.0


def launch_options(function: Callback) -> Callback:
    """Add options; the function gets ``launch`` and ``deadline``."""
    options = (
        click.option(
            "--launch",
            metavar="COMMAND",
            help="With qemu:...: start this QEMU, which gets what it lacks, and is always killed.",
        ),
        click.option(
            "--deadline",
            metavar="SECONDS",
            type=click.FloatRange(0.1, _LONGEST),
            default=DEADLINE,
            show_default=True,
            help="With qemu:...: silence of so long is a stall.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def compare_option(function: Callback) -> Callback:
    """Add an option; the function gets ``compare``."""
    return click.option(
        "--compare",
        is_flag=True,
        help="With qemu:...: run the model too, and show differences.",
    )(function)


def is_qemu(target: Target) -> bool:
    """Whether a target is a QEMU."""
    return isinstance(target, QemuTcpTarget | QemuUnixTarget)


def check(options: QemuOptions, target: Target, *, is_watched: bool) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: it does not.
    """
    if not is_qemu(target):
        if options.launch is not None or options.compare:
            raise click.UsageError("--launch and --compare go with --to qemu:...")
    elif is_watched:
        raise click.UsageError("--step, --until and --device look into the model, not into a QEMU.")


def launched(target: Target, launch: str | None, deadline: float, *, by: str) -> QemuOptions | None:
    """Give how a QEMU is started again and again; None if the target is none.

    ``by`` is the option that names the target.

    Raises:
        UsageError: a QEMU has to be launched and is not, or the command line does not do.
    """
    if not is_qemu(target):
        if launch is not None:
            raise click.UsageError(f"--launch goes with {by} qemu:...")
        return None
    if launch is None:
        raise click.UsageError(
            f"{target} takes one migration: with {by} a QEMU is started for each try,"
            " so --launch COMMAND is needed."
        )
    try:
        completed_command(shlex.split(launch), "")
    except ValueError as error:
        raise click.UsageError(f"--launch: {error}.") from None
    return QemuOptions(launch=launch, deadline=deadline)


def replay_qemu(
    made: Plan,
    options: QemuOptions,
    *,
    status: ExitStatus,
    fail_on: Severity,
    as_json: bool,
    trace: bool,
) -> ExitStatus:
    """Carry a replay into a QEMU out, and write what became of it; give the exit status."""
    try:
        replayed = replay_into_qemu(prepared(made), options)
    except ValueError as error:
        raise click.UsageError(f"--launch: {error}.") from None
    verdict, report = replayed.verdict, replayed.report
    if as_json:
        members = {**verdict_json(verdict), **report_json(report)}
        write_all([json.dumps(members, indent=2), "\n"])
    elif trace:
        write_all(f"{line}\n" for line in replayed.lines)
        click.echo(f"mfdtool: repeat with: {verdict.reproduce}", err=True)
    else:
        lines = [*verdict_text(verdict), *report_text(report), f"repeat with: {verdict.reproduce}"]
        write_all(f"{line}\n" for line in lines)
    if verdict.outcome is None:
        what = "; ".join(f"{name} {how}" for name, how in report.closed if how)
        told = f": {what}" if what else ""
        click.echo(f"mfdtool: only its own monitor knows how it ended{told}", err=True)
        return ExitStatus.LIVE
    return ExitStatus.VERDICT if verdict.is_bad(fail_on) else status
