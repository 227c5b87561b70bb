# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool bisect``."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Final

import click

from mfdtool.cli.console import finish, reading_of, write_all
from mfdtool.cli.interrupts import terminable
from mfdtool.cli.options import Said, destination_options, input_options
from mfdtool.cli.replay import fault_values, open_target, order_value, target_value
from mfdtool.cli.replay_qemu import launch_options, launched
from mfdtool.cli.status import ExitStatus
from mfdtool.explore.bisect import Progress
from mfdtool.live.targets import MODEL_TARGET, ModelTarget, Target
from mfdtool.report.bisect import NOTHING, Real, Written, cause_json, cause_text
from mfdtool.schedule.faults import Fault
from mfdtool.schedule.schedule import RECORDED, Pace
from mfdtool.workflows.bisect import Bisected, BisectOptions, bisect
from mfdtool.workflows.check import CheckOptions
from mfdtool.workflows.reading import Input
from mfdtool.workflows.replay import ReplayOptions, plan

_EVERY: Final = 10
"""Tries between two lines of progress."""


@click.command("bisect")
@input_options
@click.option(
    "--to",
    "target",
    metavar="TARGET",
    default=str(MODEL_TARGET),
    show_default=True,
    callback=target_value,
    help="What is asked whether it fails, as for replay.",
)
@launch_options
@click.option(
    "--run",
    "run",
    metavar="COMMAND",
    help="Ask a command instead: it gets a capture's path; exit status 0 is good, 1 to 127 bad,"
    " 125 cannot say, 128 and more stops.",
)
@click.option(
    "--repeat",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Try everything so often; it fails if it fails once.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="With --run: a command that takes longer is bad.",
)
@click.option(
    "--order",
    metavar="ORDER",
    default=RECORDED,
    show_default=True,
    callback=order_value,
    help="The order that fails, as for replay.",
)
@click.option(
    "--fault",
    "faults",
    metavar="FAULT",
    multiple=True,
    callback=fault_values,
    help="A fault that it fails with, as for replay (repeatable).",
)
@click.option(
    "--policy",
    "pace",
    type=click.Choice([pace.value for pace in Pace]),
    help="How fast load threads are, as for replay.",
)
@click.option("--device", metavar="IDSTR", help="With fd:N: the device that it is.")
@click.option("--migration", metavar="N", type=click.IntRange(min=0), help="Which migration.")
@destination_options
@click.option(
    "-o",
    "--output",
    metavar="PREFIX",
    help="Write PREFIX.schedule, PREFIX.pcapng and PREFIX_test.py.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the cause as a JSON object.")
@click.option("--yes", "agreed", is_flag=True, help="Do not ask before touching a device.")
def command(
    *,
    source: Input,
    target: Target,
    launch: str | None,
    deadline: float,
    run: str | None,
    repeat: int,
    timeout: float | None,
    order: str,
    faults: tuple[Fault, ...],
    pace: str | None,
    device: str | None,
    migration: int | None,
    profile: str,
    destination: Said,
    output: str | None,
    as_json: bool,
    agreed: bool,
) -> ExitStatus:
    """Reduce a failing migration to what it takes to fail.

    Packets, faults, bytes, and deviations from the recorded order are taken away as long as the
    failure stays the same: the same outcome, rule and device. What is left is 1-minimal: without
    any one of it, it does not fail like this.
    """
    if run is not None and not run.strip():
        raise click.UsageError("--run: there is no command.")
    if run is not None and not isinstance(target, ModelTarget):
        raise click.UsageError("--run and --to exclude each other.")
    if timeout is not None and run is None:
        raise click.UsageError("--timeout is for --run.")
    if output is not None and not Path(output).parent.is_dir():
        raise click.UsageError(f"--output: there is no folder {Path(output).parent}.")
    qemu = launched(target, launch, deadline, by="--to")
    said, texts = destination
    replayed = ReplayOptions(
        destination=CheckOptions(
            profile=profile, destination=said, said=texts, migration=migration
        ),
        order=order,
        pace=None if pace is None else Pace(pace),
        faults=faults,
        target=target,
        device=device,
    )
    options = BisectOptions(command=run, repeat=repeat, timeout=timeout, qemu=qemu)
    with terminable(), reading_of(source, keep_extents=True) as reading:
        made = plan(reading, replayed)
        has_sink = qemu is None and not isinstance(target, ModelTarget)
        open_sink = partial(open_target, made, agreed=agreed) if has_sink else None
        meter = _Meter(every=_EVERY if qemu is None else 1)
        try:
            found = bisect(reading, made, options, open_sink=open_sink, progress=meter.show)
        finally:
            meter.clear()
        finish(reading)
        if found is None:
            click.echo("mfdtool: it does not fail, so there is nothing to reduce", err=True)
            return ExitStatus.VERDICT
        written = NOTHING if output is None else _saved(found, output, timeout)
    _write(found, written, as_json=as_json)
    return ExitStatus.LIVE if output is not None and not written.files else ExitStatus.OK


class _Meter:
    """Says how far it is, on a terminal."""

    def __init__(self, *, every: int) -> None:
        self._is_wanted = sys.stderr.isatty()
        self._every = every
        self._is_shown = False

    def show(self, progress: Progress) -> None:
        """Say it now and then."""
        if self._is_wanted and progress.tests % self._every == 0:
            text = f"{progress.tests} tries: {progress.items} items, {progress.faults} faults"
            self._is_shown = True
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _write(found: Bisected, written: Written, *, as_json: bool) -> None:
    seen, real = found.seen, None
    if seen is not None:
        real = Real(seen.words, seen.said, seen.ending.signal, found.started)
    if as_json:
        shown = cause_json(
            found.cause,
            found.signature,
            found.sentence,
            reproduce=found.reproduce,
            command=found.command,
            real=real,
            written=written,
        )
        write_all([json.dumps(shown, indent=2), "\n"])
        return
    lines = cause_text(
        found.cause,
        found.signature,
        found.sentence,
        reproduce=found.reproduce,
        command=found.command,
        real=real,
        written=written,
    )
    write_all(f"{line}\n" for line in lines)


def _saved(found: Bisected, prefix: str, timeout: float | None) -> Written:
    """Write the files of what is left; what was found is shown even if that does not work."""
    try:
        return _save(found, prefix, timeout)
    except OSError as error:
        click.echo(f"mfdtool: {error.filename}: {error.strerror}", err=True)
        return NOTHING


def _save(found: Bisected, prefix: str, timeout: float | None) -> Written:
    """Write the files of what is left, all that there can be."""
    capture, order, test = f"{prefix}.pcapng", f"{prefix}.schedule", f"{prefix}_test.py"
    if found.reproduction is None:
        click.echo(f"mfdtool: no {capture}: {found.lacking}", err=True)
        return NOTHING
    files = {capture: found.reproduction.capture(found.sentence, *_repeated(found, prefix))}
    if found.alone is None:
        click.echo(f"mfdtool: no {order}: {found.lacking}", err=True)
    else:
        files[order] = f"{found.alone.schedule}\n".encode("ascii")
    if (text := _test(found, timeout)) is None:
        click.echo(f"mfdtool: no {test}: only the target fails like this", err=True)
    else:
        files[test] = text.encode()
    for name, content in files.items():
        Path(name).write_bytes(content)
    if found.command is not None:
        again = f"{found.command} {shlex.quote(capture)}"
    else:
        assert found.alone is not None, "otherwise there is no reproduction"
        again = found.alone.command(prefix)
    return Written(files=tuple(files), reproduce=again, kept=found.kept)


def _repeated(found: Bisected, prefix: str) -> list[str]:
    """Give what a capture says of how to repeat it."""
    if found.alone is None or found.command is not None:
        return []
    return [found.alone.command(Path(prefix).name)]


def _test(found: Bisected, timeout: float | None) -> str | None:
    """Write a test; None if nobody but a target could say what it asserts."""
    assert found.reproduction is not None
    if found.command is not None:
        return found.reproduction.command_test(found.command, found.sentence, timeout=timeout)
    if found.alone is None or not found.is_modelled:
        return None
    words = (*found.alone.words, "--order", str(found.alone.schedule))
    return found.reproduction.test(found.signature, found.sentence, words)
