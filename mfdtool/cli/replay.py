# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool replay``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

import click

from mfdtool.cli.console import finish, reading_of, write_all
from mfdtool.cli.interrupts import terminable
from mfdtool.cli.options import Said, destination_options, fail_on_option, input_options
from mfdtool.cli.replay_qemu import check, compare_option, is_qemu, launch_options, replay_qemu
from mfdtool.cli.status import ExitStatus
from mfdtool.cli.vfio import opened
from mfdtool.errors import ScheduleError, SinkError
from mfdtool.live.fd_sink import is_open
from mfdtool.live.targets import (
    MODEL_TARGET,
    ONE_DEVICE,
    VFIO,
    DeviceTarget,
    FdTarget,
    ModelTarget,
    Target,
    Wanted,
    open_sink,
    parse_target,
)
from mfdtool.replay.driver import Moment
from mfdtool.replay.sink import Sink
from mfdtool.report.replay import moment_lines
from mfdtool.report.verdict import verdict_json, verdict_text
from mfdtool.rules import Severity
from mfdtool.schedule.address import Address, parse_address
from mfdtool.schedule.faults import Fault, parse_fault
from mfdtool.schedule.schedule import RECORDED, Pace, is_schedule
from mfdtool.stream.selection import is_device
from mfdtool.workflows.check import Checked, CheckOptions
from mfdtool.workflows.reading import Input
from mfdtool.workflows.replay import (
    FILE,
    NAMES,
    NO_STEPS,
    PICKED,
    SCHEDULE,
    Plan,
    ReplayOptions,
    carry_out,
    config_of,
    entry_of,
    is_at,
    plan,
)
from mfdtool.workflows.replay import save as save_schedule
from mfdtool.workflows.replay_qemu import QemuOptions

_ALL: Final = "all"
_STANDARD: Final = {1: "standard output", 2: "standard error"}
_EFFECT: Final = "its state is replaced by the recording's, or lost"


def target_value(ctx: click.Context, param: click.Parameter, text: str) -> Target:
    try:
        target = parse_target(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    if isinstance(target, FdTarget) and target.number in _STANDARD:
        name = _STANDARD[target.number]
        raise click.BadParameter(f"{text} is {name}, which carries text; use another descriptor.")
    return target


def order_value(ctx: click.Context, param: click.Parameter, text: str) -> str:
    if text in NAMES or text.startswith((FILE, *PICKED)) or is_schedule(text):
        return text
    listed = ", ".join([*NAMES, *(f"{name}..." for name in (*PICKED, FILE, SCHEDULE))])
    raise click.BadParameter(f"{text!r} is none of {listed}.")


def fault_values(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> tuple[Fault, ...]:
    try:
        return tuple(parse_fault(text) for text in texts)
    except ScheduleError as error:
        raise click.BadParameter(f"{error}.") from error


def _address(ctx: click.Context, param: click.Parameter, text: str | None) -> Address | None:
    try:
        return None if text is None else parse_address(text)
    except ScheduleError as error:
        raise click.BadParameter(f"{error}.") from error


def _steps(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> tuple[Address, ...] | None:
    if _ALL in texts:
        return None
    try:
        return tuple(parse_address(text) for text in texts)
    except ScheduleError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command("replay")
@input_options
@click.option(
    "--to",
    "target",
    metavar="TARGET",
    default=str(MODEL_TARGET),
    show_default=True,
    callback=target_value,
    help="Where it goes: model; fd:N, an inherited descriptor that gets a device's data;"
    " device:PATH or device-fd:N, a VFIO device; or qemu:tcp:HOST:PORT or qemu:unix:PATH, a QEMU"
    " that waits for a migration.",
)
@launch_options
@compare_option
@click.option("--yes", "agreed", is_flag=True, help="Do not ask before touching a device.")
@click.option(
    "--order",
    metavar="ORDER",
    default=RECORDED,
    show_default=True,
    callback=order_value,
    help=f"Order of the device packets: {', '.join(NAMES)}, random:SEED, pct:SEED,DEPTH,"
    " file:PATH, or a schedule (mfd1:...).",
)
@click.option(
    "--fault",
    "faults",
    metavar="FAULT",
    multiple=True,
    callback=fault_values,
    help="Something that goes wrong on the way (repeatable): drop:PACKET, duplicate:PACKET,"
    " corrupt:PACKET:OFFSET+LENGTH, truncate:PACKET:LENGTH, set:PACKET:FIELD=VALUE,"
    " hold:PACKET:UNTIL, disconnect:PACKET. A PACKET is multifd-2#14 or dev=0000:00:05.0,idx=7.",
)
@click.option(
    "--policy",
    "pace",
    type=click.Choice([pace.value for pace in Pace]),
    help="How fast load threads are: as observed, eager, held back as long as possible, or as"
    " the schedule's steps say.",
)
@click.option("--reassign", is_flag=True, help="The order may move packets to other channels.")
@click.option(
    "--device",
    metavar="IDSTR",
    help="Which of the devices fd:N or device:PATH is, if there are several.",
)
@click.option(
    "--step",
    "steps",
    metavar="PACKET",
    multiple=True,
    callback=_steps,
    help="Show the loader's state when this packet was read (repeatable); 'all' for each event.",
)
@click.option(
    "--until", metavar="PACKET", callback=_address, help="Stop when this packet was read."
)
@click.option(
    "--save",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the schedule there, for --order file:FILE.",
)
@click.option("--migration", metavar="N", type=click.IntRange(min=0), help="Which migration.")
@destination_options
@fail_on_option
@click.option("--json", "as_json", is_flag=True, help="Write the verdict as a JSON object.")
@click.option("--trace", is_flag=True, help="Write the destination's trace, as a QEMU log has it.")
def command(
    *,
    source: Input,
    target: Target,
    launch: str | None,
    deadline: float,
    compare: bool,
    agreed: bool,
    order: str,
    faults: tuple[Fault, ...],
    pace: str | None,
    reassign: bool,
    device: str | None,
    steps: tuple[Address, ...] | None,
    until: Address | None,
    save: Path | None,
    migration: int | None,
    profile: str,
    destination: Said,
    fail_on: str,
    as_json: bool,
    trace: bool,
) -> ExitStatus:
    """Replay a migration in any order, with faults, into a target.

    The model of QEMU's destination always runs, and decides what happens next. A target carries
    that out: what it answers counts, not what the model would have said. Every run ends with the
    command that repeats it.

    Packets are named CHANNEL#NUMBER as "mfdtool decode" shows them, or dev=IDSTR,idx=N[,nth=N].
    """
    if as_json and trace:
        raise click.UsageError("--json and --trace exclude each other.")
    if pace is not None and order.startswith(PICKED):
        raise click.UsageError(f"with --order {order} the seed decides how fast load threads are.")
    if pace == Pace.STEPS.value and order in NAMES:
        what = NO_STEPS.format(order=f"the order {order}")
        raise click.UsageError(f"{what}.")
    if reassign and order not in NAMES[1:]:
        raise click.UsageError(f"--reassign goes with the orders {', '.join(NAMES[1:])} only.")
    qemu = QemuOptions(launch=launch, deadline=deadline, compare=compare)
    is_watched = steps is None or bool(steps) or until is not None or device is not None
    check(qemu, target, is_watched=is_watched)
    # Files that are opened from now on may get its number.
    is_inherited = not isinstance(target, FdTarget) or is_open(target.number)
    said, texts = destination
    options = ReplayOptions(
        destination=CheckOptions(
            profile=profile,
            destination=said,
            said=texts,
            migration=migration,
            fail_on=Severity(fail_on),
        ),
        order=order,
        pace=None if pace is None else Pace(pace),
        reassign=reassign,
        faults=faults,
        until=until,
        target=target,
        device=device,
    )
    with terminable(), reading_of(source, keep_extents=True) as reading:
        made = plan(reading, options)
        status = finish(reading)
        if save is not None:
            save_schedule(made.schedule, save)
        if is_qemu(target):
            return replay_qemu(
                made, qemu, status=status, fail_on=Severity(fail_on), as_json=as_json, trace=trace
            )
        if not is_inherited:
            raise SinkError(f"{target}: Bad file descriptor: is it inherited?")
        stepper = _Stepper(made, steps, sys.stderr if as_json or trace else sys.stdout)
        with open_target(made, agreed=agreed) as sink:
            replayed = carry_out(made, sink=sink, show=stepper.show if stepper.is_wanted else None)
    _write(replayed, as_json=as_json, trace=trace)
    stepper.tell_missed(replayed)
    if sink is not None and _tell(sink):
        return ExitStatus.LIVE
    return ExitStatus.VERDICT if replayed.verdict.is_bad(Severity(fail_on)) else status


def _tell(sink: Sink) -> bool:
    """Say what a sink has to say; give whether something went wrong."""
    for text in (*sink.notes, sink.failure):
        if text:
            click.echo(f"mfdtool: {sink.name}: {text}", err=True)
    return bool(sink.failure)


@contextmanager
def open_target(made: Plan, *, agreed: bool) -> Iterator[Sink | None]:
    """Open the target, if it is not the model alone."""
    target = made.options.target
    if isinstance(target, ModelTarget):
        if made.options.device is not None:
            raise click.UsageError("--device says which device a target is; the model has all.")
        yield None
        return
    number = _device_number(made) if type(target) in ONE_DEVICE else None
    wanted = Wanted(target, made.destination, number)
    with ExitStack() as stack:
        if type(target) in VFIO:
            assert number is not None
            name = target.path if isinstance(target, DeviceTarget) else str(target)
            device = stack.enter_context(opened(name, agreed=agreed, effect=_EFFECT))
            wanted = replace(wanted, opened=device, config=config_of(made, number))
        yield stack.enter_context(open_sink(wanted))


def _device_number(made: Plan) -> int:
    """Choose the device that a target is."""
    wanted = made.options.device
    names = [device.idstr for device in made.destination.devices]
    found = [
        number for number, name in enumerate(names) if wanted is None or is_device(name, (wanted,))
    ]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(names) or "none"
    if wanted is not None:
        raise click.UsageError(f"there is no device {wanted}; there are {listed}.")
    if not names:
        raise click.UsageError("the migration has no VFIO device.")
    raise click.UsageError(
        f"{made.options.target} is one device: name it with --device ({listed})."
    )


def _write(replayed: Checked, *, as_json: bool, trace: bool) -> None:
    verdict = replayed.verdict
    if as_json:
        write_all([json.dumps(verdict_json(verdict), indent=2), "\n"])
        return
    if trace:
        write_all(f"{line}\n" for line in replayed.trace())
        click.echo(f"mfdtool: repeat with: {verdict.reproduce}", err=True)
        return
    lines = [*verdict_text(verdict), f"repeat with: {verdict.reproduce}"]
    write_all(f"{line}\n" for line in lines)


class _Stepper:
    """Shows the state at chosen packets, and waits there for a key if somebody sits there."""

    def __init__(self, made: Plan, steps: tuple[Address, ...] | None, out: TextIO) -> None:
        self._plan = made
        self._out = out
        self._is_all = steps is None
        self._wanted = [
            (str(address), entry_of(address, made.observation)) for address in steps or ()
        ]
        if made.options.until is not None and made.until is not None:
            self._wanted.append((str(made.options.until), made.until))
        self._met: set[str] = set()
        self.is_wanted = self._is_all or bool(self._wanted)

    def show(self, moment: Moment) -> None:
        """Show the state if the event is one of those."""
        names = [name for name, entry in self._wanted if is_at(moment, entry)]
        self._met.update(names)
        if not names and not self._is_all:
            return
        entry = moment.entry
        frame = self._plan.frame_of(entry) if entry is not None else None
        lines = moment_lines(moment, self._plan.destination, frame)
        write_all((f"{line}\n" for line in lines), self._out)
        click.pause("-- any key goes on --", err=True)

    def tell_missed(self, replayed: Checked) -> None:
        """Say which packets were not read."""
        if replayed.verdict.outcome is None:
            return
        for name, _ in self._wanted:
            if name not in self._met:
                click.echo(f"mfdtool: {name} was not read by the destination", err=True)
