# SPDX-License-Identifier: GPL-2.0-or-later
"""``replay --to qemu:...``: a real destination's verdict on a schedule, beside the model's."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.live.qemu.launch import Launch, LaunchedQemu
from mfdtool.live.qemu.play import Expected, Played, play
from mfdtool.live.qemu.source import Source
from mfdtool.live.targets import QemuTcpTarget, QemuUnixTarget, dial_of, uri_of
from mfdtool.loader.commands import Trace
from mfdtool.loader.findings import merged
from mfdtool.loader.lint import lint
from mfdtool.loader.state import Outcome
from mfdtool.replay.compare import differences, gives_up
from mfdtool.replay.log import Log, parse_log
from mfdtool.replay.log_order import INCOMING, LOAD_END
from mfdtool.replay.verdict import DeviceOutcome, DeviceVerdict, Verdict, is_recorded
from mfdtool.report.replay import place_text
from mfdtool.report.replay_qemu import QemuReport
from mfdtool.report.verdict import QEMU
from mfdtool.schedule.sending import in_order_of_reading, sends, steps_of_threads
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.connections import Window
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import run_of
from mfdtool.stream.values import ReturnPathRecord
from mfdtool.wire.constants import MultiFDFlag, ReturnPathType
from mfdtool.wire.return_path import Shut
from mfdtool.workflows.replay import arriving, carry_out

if TYPE_CHECKING:
    from mfdtool.loader.recording import Entry
    from mfdtool.replay.driver import Moment
    from mfdtool.schedule.sending import Send
    from mfdtool.workflows.check import Checked
    from mfdtool.workflows.replay import Plan


DEADLINE: Final = 30.0
"""Seconds of silence that are a stall."""

_GENERIC: Final = "load of migration failed"
_WARNING: Final = "warning: "
_COMMAND: Final = "loadvm_process_command"
_SWITCHOVER: Final = "SWITCHOVER_START"
_CONFIG_END: Final = "vfio_load_device_config_state_end"
_THREAD_START: Final = "vfio_load_bufs_thread_start"
_RESET: Final = "Resetting device"


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuOptions:
    """How a real destination is treated.

    Attributes:
        launch: the command line that starts it; None if it waits already.
        deadline: seconds of silence that are a stall.
        compare: whether the model runs too.
    """

    launch: str | None = None
    deadline: float = DEADLINE
    compare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuReplayed:
    """What became of it.

    Attributes:
        verdict: the destination's.
        report: what else is told.
        lines: its trace, and what it wrote to standard error.
        blamed: idstr of the device that its error names; empty if there is none.
    """

    verdict: Verdict
    report: QemuReport
    lines: tuple[str, ...]
    blamed: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A replay into a QEMU that can begin.

    Attributes:
        plan: what is replayed.
        modelled: what the model makes of it.
        sends: what is sent, in this order.
        expected: trace lines to wait for, each with the position of what it comes behind.
    """

    plan: Plan
    modelled: Checked
    sends: tuple[Send, ...]
    expected: tuple[tuple[int, Expected], ...]


def prepared(plan: Plan) -> Prepared:
    """Find out what is to be sent in which order; nothing is started yet.

    Raises:
        SinkError: bytes that are due were not captured.
    """
    model = _Model(plan)
    modelled = carry_out(plan, show=model.watch)
    todo = in_order_of_reading(sends(plan.observation, plan.schedule), model.read)
    return Prepared(plan, modelled, tuple(todo), tuple(model.expected))


def replay_into_qemu(ready: Prepared, options: QemuOptions) -> QemuReplayed:
    """Play the source of a migration to a QEMU, and judge it.

    Raises:
        SinkError: it cannot be started or reached.
        ValueError: the command line does not do.
    """
    plan = ready.plan
    target = plan.options.target
    assert isinstance(target, QemuTcpTarget | QemuUnixTarget)
    with ExitStack() as stack:
        peer = None
        if options.launch is not None:
            peer = stack.enter_context(LaunchedQemu(_launch(plan, options.launch, uri_of(target))))
        source = stack.enter_context(Source(dial_of(target), uri_of(target)))
        deadline = options.deadline
        played = play(ready.sends, source, peer, expected=ready.expected, deadline=deadline)
    messages = list(_messages(played.returned))
    verdict = _verdict(plan, options, played, _told(messages))
    report = QemuReport(
        exit_status=played.exit_status,
        sent=played.sent,
        not_acknowledged=None if options.launch is None else played.not_acknowledged,
        not_enforced=steps_of_threads(plan.schedule),
        returned=tuple(map(_message_text, messages)),
        closed=tuple((name, how) for name, how in played.closed if how),
        differences=_differences(ready.modelled, verdict, played) if options.compare else None,
    )
    return QemuReplayed(
        verdict=verdict, report=report, lines=played.lines, blamed=_blamed(plan, played)
    )


def words_of_qemu(options: QemuOptions) -> list[str]:
    """Write how a destination is treated as words of a command line."""
    words = [] if options.launch is None else ["--launch", options.launch]
    if options.deadline != DEADLINE:
        words += ["--deadline", f"{options.deadline:g}"]
    return words


def _launch(plan: Plan, command: str, uri: str) -> Launch:
    destination = plan.destination
    compression = "none"
    if destination.compression:
        compression = (MultiFDFlag(destination.compression).name or compression).lower()
    return Launch(
        command=shlex.split(command),
        uri=uri,
        channels=destination.channels,
        compression=compression,
    )


# The return path.


def _messages(data: bytes) -> Iterator[ReturnPathRecord]:
    if not data:
        return
    decoder = Decoder(is_single=True)
    decoder.add(ChannelKind.RETURN_PATH, run_of(data))
    for frame in [*decoder.feed(Window((), 0, None)), *decoder.finish()]:
        if isinstance(frame.value, ReturnPathRecord):
            yield frame.value


def _message_text(record: ReturnPathRecord) -> str:
    kind = record.header.kind
    assert kind is not None
    value = getattr(record.payload, "value", None)
    return kind.name if value is None else f"{kind.name} {value}"


def _told(messages: Sequence[ReturnPathRecord]) -> Outcome | None:
    """Tell the outcome by the last message, which says whether the main stream was loaded."""
    for record in messages:
        if record.header.kind is ReturnPathType.SHUT and isinstance(record.payload, Shut):
            return Outcome.FAILED if record.payload.value else Outcome.COMPLETED
    return None


# The verdict.


def _log_of(played: Played) -> Log:
    return parse_log(played.lines)


def _stderr(log: Log) -> tuple[str, ...]:
    """Give what was printed, with ``NAME`` for devices' host names."""
    printed = []
    for _, text in log.errors:
        for name in log.device_names:
            text = text.replace(name, "NAME")
        printed.append(text)
    return tuple(printed)


def _verdict(plan: Plan, options: QemuOptions, played: Played, told: Outcome | None) -> Verdict:
    log = _log_of(played)
    stderr = _stderr(log)
    outcome = played.outcome
    if outcome is None and not played.lines:
        outcome = told
    arrived = arriving(plan.trace, plan.schedule)
    linted = lint(arrived, plan.destination)
    reproduce = [plan.reproduce, *map(shlex.quote, words_of_qemu(options))]
    reproduce += ["--compare"] if options.compare else []
    return Verdict(
        migration=arrived.migration,
        outcome=outcome,
        error=_error(stderr, outcome),
        recorded_error=None,
        stderr=stderr,
        profile=plan.destination.profile.name,
        devices=tuple(_devices(plan, played, log, outcome)) if log.events else (),
        findings=merged([], linted, plan.guesses),
        reproduce=" ".join(reproduce),
        schedule=str(plan.schedule),
        is_recorded=is_recorded(plan.schedule),
        faults=plan.faults,
        sink=QEMU,
        order=played.order,
    )


def _error(stderr: tuple[str, ...], outcome: Outcome | None) -> str | None:
    """Choose the line that explains a failure: the last, unless it only says that there was one."""
    lines = [line for line in stderr if not line.startswith(_WARNING)]
    if not lines or outcome is Outcome.STALLED:
        return None
    if lines[-1].startswith(_GENERIC):
        return lines[0]
    return lines[-1]


def _devices(
    plan: Plan, played: Played, log: Log, outcome: Outcome | None
) -> Iterator[DeviceVerdict]:
    """Tell what the trace shows of each device."""
    names = _names(plan, played, log)
    for spec in plan.destination.devices:
        name = names[spec.idstr]
        events = {line.name for line in log.events if line.device == name}
        has_config = _CONFIG_END in events
        loaded = sum(line.name == LOAD_END and line.device == name for line in log.events)
        is_reset = bool(name) and any(_RESET in text and name in text for _, text in log.errors)
        yield DeviceVerdict(
            idstr=spec.idstr,
            instance_id=spec.instance_id,
            outcome=_device_outcome(events, outcome, has_config=has_config),
            restored=outcome is Outcome.COMPLETED and has_config and not is_reset,
            reset=is_reset,
            buffers=loaded,
            bytes=None,
            sha256=None,
        )


def _names(plan: Plan, played: Played, log: Log) -> dict[str, str]:
    """Give the host's names of devices; those that no packet told are told by order."""
    known = dict(played.names)
    others = [name for name in log.device_names if name not in known.values()]
    return {
        spec.idstr: known.get(spec.idstr) or (others.pop(0) if others else "")
        for spec in plan.destination.devices
    }


def _blamed(plan: Plan, played: Played) -> str:
    """Find the device that the first error that names one names."""
    log = _log_of(played)
    names = _names(plan, played, log)
    for _, text in log.errors:
        for idstr, name in names.items():
            if name and name in text:
                return idstr
    return ""


def _device_outcome(
    events: set[str], outcome: Outcome | None, *, has_config: bool
) -> DeviceOutcome:
    if has_config:
        return DeviceOutcome.LOADED
    if _THREAD_START not in events:
        return DeviceOutcome.IDLE
    return DeviceOutcome.STARVED if outcome is Outcome.STALLED else DeviceOutcome.FAILED


# The model beside it.


class _Model:
    """Notes what the model reads, in that order, and which trace lines come of it."""

    def __init__(self, plan: Plan) -> None:
        self.read: list[Entry] = []
        self.expected: list[tuple[int, Expected]] = []
        self._idstrs = [device.idstr for device in plan.destination.devices]

    def watch(self, moment: Moment) -> None:
        """Note an event."""
        if moment.entry is not None:
            self.read.append(moment.entry)
        for command in moment.commands:
            if not isinstance(command, Trace):
                continue
            if command.name == INCOMING:
                number, idx = map(int, command.args)
                idstr = self._idstrs[number]
                place = idstr if moment.entry is None else place_text(moment.entry)
                self._expect(Expected(idstr, idx, place))
            elif command.name == _COMMAND and command.args[0] == _SWITCHOVER:
                self._expect(Expected())
            elif command.args and gives_up(command.name, command.args[0]):
                self._expect(Expected(gives_up=True))

    def _expect(self, expected: Expected) -> None:
        self.expected.append((len(self.read) - 1, expected))


def _differences(modelled: Checked, verdict: Verdict, played: Played) -> tuple[str, ...]:
    """Say where the model differs."""
    log = _log_of(played) if played.lines else None
    return differences(modelled.verdict, parse_log(modelled.trace()), verdict, log)
