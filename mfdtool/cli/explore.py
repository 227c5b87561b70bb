# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool explore``."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Final

import click

from mfdtool.cli.console import PATIENCE, finish, reading_of, write_all
from mfdtool.cli.interrupts import terminable
from mfdtool.cli.options import Said, destination_options, input_options
from mfdtool.cli.replay import target_value
from mfdtool.cli.replay_qemu import is_qemu, launch_options, launched
from mfdtool.cli.status import ExitStatus
from mfdtool.errors import ScheduleError
from mfdtool.explore.budget import NO_FAULTS, Budget, parse_budget
from mfdtool.live.targets import MODEL_TARGET, Target
from mfdtool.report.explore import explore_json, explore_text
from mfdtool.schedule.pick import MAX_DEPTH
from mfdtool.workflows.check import CheckOptions
from mfdtool.workflows.confirm import Confirming
from mfdtool.workflows.executors import ADDRESS
from mfdtool.workflows.explore import DEFAULT_LIMIT, ExploreOptions, explore
from mfdtool.workflows.reading import Input

_MOST_DRAWS: Final = 10**9
_MOST_JOBS: Final = 1024
_PCT: Final = re.compile(r"([1-9][0-9]{0,8}),([0-9]{1,3})")


def _budget(ctx: click.Context, param: click.Parameter, text: str | None) -> Budget:
    try:
        return NO_FAULTS if text is None else parse_budget(text)
    except ScheduleError as error:
        raise click.BadParameter(f"{error}.") from error


def _pct(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _PCT.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not N,DEPTH.")
    draws, depth = int(match[1]), int(match[2])
    if not 1 <= depth <= MAX_DEPTH:
        raise click.BadParameter(f"{text!r}: DEPTH is from 1 to {MAX_DEPTH}.")
    return draws, depth


def _target(ctx: click.Context, param: click.Parameter, text: str | None) -> Target | None:
    if text is None:
        return None
    target = target_value(ctx, param, text)
    if not is_qemu(target):
        raise click.BadParameter(f"{text!r} is none of qemu:tcp:HOST:PORT, qemu:unix:PATH.")
    return target


def _cluster(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    if text is not None and not ADDRESS.fullmatch(text):
        raise click.BadParameter(f"{text!r} is not tcp://HOST:PORT.")
    return text


@click.command("explore")
@input_options
@click.option("--migration", metavar="N", type=click.IntRange(min=0), help="Which migration.")
@destination_options
@click.option(
    "--faults",
    "budget",
    metavar="KIND=N,...",
    callback=_budget,
    help="Faults that may happen, so many of each kind at most, as in drop=1,set=2. Kinds are drop,"
    " dup, set, corrupt, truncate, disconnect. All combinations are tried.",
)
@click.option(
    "--limit",
    metavar="STATES",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="States of each variant of the recording that are looked at; bounds the memory.",
)
@click.option(
    "--time", "seconds", metavar="SECONDS", type=click.FloatRange(min=0), help="Stop after that."
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1, max=_MOST_JOBS),
    help="Processes; by default one for each core.",
)
@click.option(
    "--cluster",
    metavar="tcp://HOST:PORT",
    callback=_cluster,
    help="Work on a Dask cluster instead; its workers need mfdtool too.",
)
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write there what is known, every few seconds and at the end.",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Go on from a checkpoint of the same exploration.",
)
@click.option(
    "--random",
    "draws",
    metavar="N",
    type=click.IntRange(min=1, max=_MOST_DRAWS),
    help="Run N orders at random instead of all.",
)
@click.option(
    "--pct",
    metavar="N,DEPTH",
    callback=_pct,
    help="Run N orders with random priorities of threads, which change DEPTH - 1 times.",
)
@click.option(
    "--seed",
    metavar="S",
    type=click.IntRange(min=0, max=10**17),
    help="Of the first such order, 0 by default; the next ones have S+1, S+2, ...",
)
@click.option(
    "--confirm",
    "target",
    metavar="qemu:...",
    callback=_target,
    help="Replay the example of each way to end into a real destination, which --launch starts:"
    " qemu:tcp:HOST:PORT or qemu:unix:PATH, as for replay.",
)
@launch_options
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")
def command(
    *,
    source: Input,
    migration: int | None,
    profile: str,
    destination: Said,
    budget: Budget,
    limit: int,
    seconds: float | None,
    jobs: int | None,
    cluster: str | None,
    checkpoint: Path | None,
    resume: Path | None,
    draws: int | None,
    pct: tuple[int, int] | None,
    seed: int | None,
    target: Target | None,
    launch: str | None,
    deadline: float,
    as_json: bool,
) -> ExitStatus:
    """Try all orders in which a migration could arrive.

    Network and threads can bring device packets, the main stream and the load threads' steps into
    any order that keeps that of each channel. All of them are run on the model of QEMU's
    destination, with faults if you allow some, and for each way to end the smallest example is
    shown as a command. Exits with 1 if there is another end than "completed", or if a real
    destination does not confirm one.
    """
    if draws is not None and pct is not None:
        raise click.UsageError("--random and --pct exclude each other.")
    if seed is not None and draws is None and pct is None:
        raise click.UsageError(
            "--seed goes with --random or --pct; otherwise all orders are tried."
        )
    if jobs is not None and cluster is not None:
        raise click.UsageError("--jobs and --cluster exclude each other.")
    qemu = launched(target or MODEL_TARGET, launch, deadline, by="--confirm")
    progress = _Progress()
    said, texts = destination
    options = ExploreOptions(
        destination=CheckOptions(
            profile=profile, destination=said, said=texts, migration=migration
        ),
        budget=budget,
        limit=limit,
        seconds=seconds,
        jobs=1 if cluster is not None else jobs or os.cpu_count() or 1,
        cluster=cluster,
        checkpoint=checkpoint if checkpoint is not None else resume,
        resume=resume,
        draws=pct[0] if pct is not None else draws,
        depth=pct[1] if pct is not None else None,
        seed=seed or 0,
        confirm=None
        if target is None or qemu is None
        else Confirming(target=target, qemu=qemu, tell=progress.tell_confirming),
    )
    with terminable(), reading_of(source, keep_extents=True) as reading:
        try:
            explored = explore(reading, options, progress.tell)
        finally:
            progress.clear()
        status = finish(reading)
    if as_json:
        write_all([json.dumps(explore_json(explored), indent=2), "\n"])
    else:
        write_all(f"{line}\n" for line in explore_text(explored))
    if explored.unsaved:
        click.echo(f"mfdtool: {explored.unsaved}; the checkpoint is an older one", err=True)
    if explored.is_interrupted:
        return ExitStatus.INTERRUPTED
    if explored.unsaved:
        return ExitStatus.INPUT
    confirmed = explored.confirmed or ()
    if any(each.failure for each in confirmed):
        return ExitStatus.LIVE
    is_bad = explored.found.is_bad or not all(each.agrees for each in confirmed)
    return ExitStatus.VERDICT if is_bad else status


class _Progress:
    """A line on a terminal that says how far it has come."""

    def __init__(self) -> None:
        self._is_on = sys.stderr.isatty()
        self._start = time.monotonic()
        self._is_shown = False

    def tell(self, jobs: int, states: int) -> None:
        """Show it, once it takes long."""
        seconds = time.monotonic() - self._start
        if self._is_on and seconds > PATIENCE:
            self._is_shown = True
            self._write(f"mfdtool: {jobs:,} jobs, {states:,} states, {seconds:.0f} s")

    def tell_confirming(self, number: int, count: int) -> None:
        """Show which example is replayed into a real destination."""
        if self._is_on:
            self._is_shown = True
            self._write(f"mfdtool: asking a real destination about {number} of {count}")

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()
