# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a schedule to a destination, in lock-step where its trace can be read.

Not all that arrives is read at once: a receive thread waits at a SYNC until the main thread has
flushed. The model knows what is read when, and everything is sent in that order, as a slow network
would. Behind each packet the trace line is waited for that the model has there: of a device packet
that comes in, of SWITCHOVER_START, of receive threads that give up. So the model's order is the
destination's. A packet whose line does not come in time is noted, and the rest goes on.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from mfdtool.errors import SinkError
from mfdtool.loader.state import Outcome
from mfdtool.replay.sink import Order
from mfdtool.stream.span import EndReason

if TYPE_CHECKING:
    from mfdtool.live.qemu.source import Source
    from mfdtool.schedule.sending import Send

MAIN: Final = "main"
ACKNOWLEDGE_SECONDS: Final = 5.0
"""How long a packet's trace line is waited for; that of an idle machine comes in milliseconds."""

_INTERVAL: Final = 0.02
_LINE_INTERVAL: Final = 0.001
_ASKING_SECONDS: Final = 1.0
_EXIT_SECONDS: Final = 5.0
"""A QEMU that says that its migration failed exits soon; one that completed closes."""

_INCOMING: Final = re.compile(r"vfio_load_state_device_buffer_incoming +\(([^()]*)\) idx (\d+)")
_SWITCHOVER: Final = "loadvm_process_command com=SWITCHOVER_START"
_GAVE_UP: Final = "multifd_recv_terminate_threads error 1"


@dataclass(frozen=True, slots=True)
class Expected:
    """A trace line that something sent has for consequence.

    Attributes:
        idstr: the device; empty for what is not about a packet that comes in.
        idx: of the packet that comes in.
        place: of the packet, as CHANNEL#NUMBER.
        gives_up: whether it is that of receive threads that end on an error; what is neither this
            nor about a packet is SWITCHOVER_START.
    """

    idstr: str = ""
    idx: int = 0
    place: str = ""
    gives_up: bool = False


class Peer(Protocol):
    """A destination that can be watched."""

    @property
    def lines(self) -> Sequence[str]: ...

    @property
    def errors(self) -> Sequence[str]: ...

    def exit_status(self) -> int | None: ...

    def migration_status(self, *, seconds: float) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of it.

    Attributes:
        outcome: None if nobody told.
        exit_status: the destination's; None if it ran to the end, or is not ours.
        lines: its trace, and behind that what it wrote to standard error.
        not_acknowledged: device packets without a trace line, as CHANNEL#NUMBER.
        order: whether the device packets are known to have arrived in the order of sending.
        names: the host's names of devices, by idstr, as far as they are known.
        returned: bytes of the return path.
        closed: connections that did not end as they should have, and how.
        sent: bytes that were sent.
    """

    outcome: Outcome | None
    exit_status: int | None = None
    lines: tuple[str, ...] = ()
    not_acknowledged: tuple[str, ...] = ()
    order: Order = Order.ADVISORY
    names: tuple[tuple[str, str], ...] = ()
    returned: bytes = b""
    closed: tuple[tuple[str, str], ...] = ()
    sent: int = 0


@dataclass(slots=True)
class _Seen:
    """What the trace has shown so far."""

    lines: int = 0
    packets: Counter[int] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)
    last: str = ""
    switchovers: int = 0
    gave_up: bool = False

    def read(self, lines: Sequence[str]) -> None:
        """Look at what is new."""
        stop = len(lines)
        for line in lines[self.lines : stop]:
            # Threads write to standard error at once, so that lines may share one.
            for found in _INCOMING.finditer(line):
                self.last = found[1]
                self.packets[int(found[2])] += 1
                self.order.append(int(found[2]))
            self.switchovers += _SWITCHOVER in line
            self.gave_up |= _GAVE_UP in line
        self.lines = stop


class Player:
    """One run; use :func:`play`."""

    def __init__(
        self,
        source: Source,
        peer: Peer | None,
        expected: Sequence[tuple[int, Expected]],
        *,
        deadline: float,
    ) -> None:
        self._source = source
        self._expected = deque(expected)
        self._peer = peer
        self._deadline = deadline
        self._seen = _Seen()
        self._wasted = 0.0
        self._packets: Counter[int] = Counter()
        self._switchovers = 0
        self._missed: list[str] = []
        self._awaited: list[int] = []
        self._names: dict[str, str] = {}

    def play(self, sends: Iterable[Send]) -> Played:
        """Send everything, and see what becomes of it."""
        for send in sends:
            if self._peer is not None and self._peer.exit_status() is not None:
                break
            self._send(send)
            self._await_until(send.position)
        outcome, status = self._conclude()
        peer, source = self._peer, self._source
        main = source.connections.get(MAIN)
        is_exact = self._is_exact()
        return Played(
            outcome=outcome,
            exit_status=status,
            lines=() if peer is None else (*peer.lines, *peer.errors),
            not_acknowledged=tuple(self._missed),
            order=Order.EXACT if is_exact else Order.ADVISORY,
            names=tuple(self._names.items()),
            returned=b"" if main is None else bytes(main.returned),
            closed=tuple((each.name, each.closed) for each in source.connections.values()),
            sent=source.sent,
        )

    def _is_exact(self) -> bool:
        """Whether what came in up to the last packet that was waited for is what should."""
        wanted = self._awaited
        return bool(wanted) and not self._missed and self._seen.order[: len(wanted)] == wanted

    def _send(self, send: Send) -> None:
        if send.opens:
            self._open(send.channel)
        if send.channel not in self._source.connections:
            return
        self._source.send(send.channel, send.parts)
        if (end := send.ends) is not None:
            self._source.end(send.channel, reset=end.reason is EndReason.RST)

    def _open(self, name: str) -> None:
        """Connect; a destination that has gone meanwhile tells why itself."""
        try:
            self._source.open(name)
        except SinkError:
            if self._peer is None or not self._source.connections:
                raise

    def _await_until(self, position: int) -> None:
        """Wait for all that the model has up to a place in the order."""
        while self._peer is not None and self._expected and self._expected[0][0] <= position:
            self._await_line(self._expected.popleft()[1])

    def _await_line(self, expected: Expected) -> None:
        if expected.gives_up:
            # Until then their other channels are still read.
            self._await(lambda: self._seen.gave_up)
            return
        if not expected.idstr:
            self._switchovers += 1
            self._await(lambda: self._seen.switchovers >= self._switchovers)
            return
        self._awaited.append(expected.idx)
        wanted = self._packets[expected.idx] + 1
        if self._await(lambda: self._seen.packets[expected.idx] >= wanted):
            self._packets[expected.idx] = wanted
            self._names.setdefault(expected.idstr, self._seen.last)
        else:
            self._missed.append(expected.place)

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Wait for something in the trace, unless that has no sense any more.

        Nobody waits in vain for longer than the deadline in all.
        """
        assert self._peer is not None
        start = time.monotonic()
        patience = min(ACKNOWLEDGE_SECONDS, self._deadline - self._wasted)
        while True:
            has_ended = self._peer.exit_status() is not None
            self._seen.read(self._peer.lines)
            if condition():
                return True
            waited = time.monotonic() - start
            if has_ended or self._seen.gave_up or waited > patience:
                self._wasted += waited
                return False
            self._source.pump(_LINE_INTERVAL)

    def _conclude(self) -> tuple[Outcome | None, int | None]:
        """Wait for an end; silence until the deadline is a stall."""
        last = time.monotonic()
        failed_at = 0.0
        while True:
            if self._source.pump(_INTERVAL):
                last = time.monotonic()
            now = time.monotonic()
            if self._peer is None:
                if self._all_closed():
                    return None, None
            else:
                status = self._peer.exit_status()
                if status is not None:
                    return _outcome_of(status), status
                said = self._ask()
                if said == "completed":
                    self._hear_out()
                    return Outcome.COMPLETED, None
                if said == "failed":
                    failed_at = failed_at or now
                    if now - failed_at > _EXIT_SECONDS:
                        return Outcome.FAILED, None
            if now - last > self._deadline:
                return Outcome.STALLED, None

    def _hear_out(self) -> None:
        """Read what comes back until the destination closes, which it does at once."""
        deadline = time.monotonic() + _EXIT_SECONDS
        while not self._all_closed() and time.monotonic() < deadline:
            self._source.pump(_INTERVAL)

    def _all_closed(self) -> bool:
        """Whether the destination has closed the main channel."""
        main = self._source.connections.get(MAIN)
        return main is None or bool(main.closed)

    def _ask(self) -> str:
        assert self._peer is not None
        try:
            return self._peer.migration_status(seconds=_ASKING_SECONDS)
        except (TimeoutError, SinkError):
            # It has stalled, or is about to exit: the process tells.
            return ""


def _outcome_of(status: int) -> Outcome:
    """Tell by an exit status; a guest that has shut down had been running."""
    if status < 0:
        return Outcome.ABORTED
    return Outcome.FAILED if status else Outcome.COMPLETED


def play(
    sends: Iterable[Send],
    source: Source,
    peer: Peer | None = None,
    *,
    expected: Sequence[tuple[int, Expected]] = (),
    deadline: float,
) -> Played:
    """Play what a source sends to a destination.

    Without a ``peer`` nothing is known of the destination but what comes back. ``expected`` has the
    trace lines to wait for, each with the position of what it comes behind. ``deadline`` is how
    many seconds nothing may happen behind the last byte.

    Raises:
        SinkError: no connection can be made, or bytes that are due were not captured.
    """
    return Player(source, peer, expected, deadline=deadline).play(sends)
