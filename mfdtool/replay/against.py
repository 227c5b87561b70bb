# SPDX-License-Identifier: GPL-2.0-or-later
"""Lays the model's trace beside a real destination's log, event by event.

The order in which threads run is not in a capture, so a log is a partial order. It is compared
thread by thread: each thread's events must be the model's, in the model's order. What may differ,
and why:

- *Events of different threads* may come in any order, except where one needs another: a buffer is
  loaded after it came in, a load thread starts after SWITCHOVER_START, a flush ends after the SYNC
  of every channel, and a channel goes on behind a SYNC after the main thread has signalled it.
- *starved* may come any number of times: every buffer out of order wakes the load thread, and a
  wakeup that was not needed shows nothing else. Only its idx is compared.
- *buffer_end* is missing if the config packet was stored after the last buffer was loaded. Then the
  load thread is starved of the config's idx, and the log shows that.
- *When the destination fails, stalls or aborts*, receive and load threads stop wherever they
  are: their events may end early, though not go on longer than the stream allows. When the main
  thread ends them by shutting their channels down, one that is inside a packet takes that for an
  error of its own and says so: *terminate_threads error 1*, at most once for each.

- *After a completed migration* the guest runs, and its devices change their state again when it is
  stopped, say by ``quit``: the log goes on with such events behind all that the model has.

Categories of events that a log does not have at all were not switched on and are not compared.
Nothing is compared behind a signal that ends QEMU. Devices have their host's names in a log; they
are told by order of appearance.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.loader.events import ActorKind
from mfdtool.loader.state import UNKNOWN_LAST, Outcome
from mfdtool.loader.trace import trace_line
from mfdtool.replay.log_order import CONFIG_START, INCOMING, LOAD_END, LOAD_START, UNFILL, Order

if TYPE_CHECKING:
    from mfdtool.loader.commands import Trace
    from mfdtool.replay.driver import Run
    from mfdtool.replay.log import Log, LogLine

_CATEGORIES: Final = ("multifd_recv", "loadvm", "qemu_loadvm", "vfio_load", "vfio_migration")
_STARVED: Final = "vfio_load_state_device_buffer_starved"
_BUFFER_START: Final = "vfio_load_state_device_buffer_start"
_BUFFER_END: Final = "vfio_load_state_device_buffer_end"
_LOAD_THREAD_END: Final = "vfio_load_bufs_thread_end"
_CHANNEL_END: Final = "multifd_recv_thread_end"
_TERMINATE: Final = "multifd_recv_terminate_threads"
_BY_CHANNEL: Final = frozenset(
    {"multifd_recv_new_channel", "multifd_recv_thread_start", _CHANNEL_END, UNFILL}
)
_BY_DEVICE: Final = frozenset(
    {
        "vfio_load_bufs_thread_start",
        _LOAD_THREAD_END,
        _STARVED,
        _BUFFER_START,
        LOAD_START,
        LOAD_END,
        _BUFFER_END,
        CONFIG_START,
        "vfio_load_device_config_state_end",
    }
)
_OF_RUNNING_GUESTS: Final = frozenset(
    {"vfio_migration_set_state", "vfio_migration_set_device_state"}
)
_MAIN: Final = "main"
_FAILING: Final = "failing receive threads"
_STDERR: Final = "stderr"


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a log and the model first differ in one thread's events.

    Attributes:
        line: number of the log's line, from 1; None at its end.
        thread: which thread.
        got: what the log has there; None if nothing more of the thread.
        expected: what the model has there; None if nothing more of the thread.
        why: the order among threads that is broken; empty if the events differ.
    """

    line: int | None
    thread: str
    got: str | None
    expected: str | None
    why: str = ""

    def __str__(self) -> str:
        where = "at its end" if self.line is None else f"line {self.line}"
        if self.why:
            return f"{where}, {self.thread}: {self.got}: {self.why}"
        got = "nothing more" if self.got is None else self.got
        expected = "nothing more" if self.expected is None else self.expected
        return f"{where}, {self.thread}: the log has {got}; the model has {expected}"


class _Comparison:
    """Compares one log with one run."""

    def __init__(self, run: Run, log: Log) -> None:
        self._run = run
        self._log = log
        self._may_stop = run.outcome is not Outcome.COMPLETED
        self._names = log.device_names
        categories = {_category(line.name) for line in log.events}
        self._expected: dict[str, deque[tuple[str, str]]] = {}
        self._carriers: dict[str, deque[str]] = {}
        for trace in run.traces:
            if _category(trace.name) in categories:
                self._expect(trace)
        self._packets: Counter[str] = Counter()
        self._stopped: set[str] = set()
        self._configs = {
            self._name(number): device.last
            for number, device in enumerate(run.state.devices)
            if device.last != UNKNOWN_LAST
        }
        self._late_configs = self._find_late_configs()
        channels = sum(found is not None for found in run.state.receivers)
        self._cut_short = channels if run.outcome is Outcome.FAILED else 0
        self._are_told = False
        self._order = Order(self._configs, channels, has_commands="loadvm" in categories)

    def divergences(self) -> Iterator[Divergence]:
        """Give the first difference of each thread, in the log's order."""
        diverged: set[str] = set()
        for line in self._log.events:
            if line.name in _OF_RUNNING_GUESTS and self._is_over():
                continue
            thread = self._thread(line)
            why = self._order.broken_by(line, thread)
            if thread in diverged:
                continue
            found = Divergence(line.number, thread, line.text, None, why) if why else None
            if found is None:
                found = self._compare(line, thread)
            if found is not None:
                diverged.add(thread)
                yield found
        yield from self._left_over(diverged)
        yield from self._errors()

    def _is_over(self) -> bool:
        """Whether the log has all that a destination does up to the end of its migration."""
        if self._run.outcome is not Outcome.COMPLETED or self._expected.get(_MAIN) is None:
            return False
        return not any(map(_needed, self._expected.values()))

    # What is expected

    def _name(self, number: int) -> str:
        return self._names[number] if number < len(self._names) else f"device {number}"

    def _expect(self, trace: Trace) -> None:
        text = trace_line(trace, self._name)
        thread = self._thread_of(trace)
        self._expected.setdefault(thread, deque()).append((trace.name, text))
        if trace.name == INCOMING:
            self._carriers.setdefault(text, deque()).append(thread)

    def _thread_of(self, trace: Trace) -> str:
        kind, number = trace.actor
        if trace.name == _TERMINATE and trace.args[0]:
            return _FAILING
        if kind is ActorKind.LOAD:
            return f"load thread of {self._name(number)}"
        if kind is ActorKind.RECEIVE:
            found = self._run.state.receivers[number]
            assert found is not None
            return f"multifd-{found.id}"
        return _MAIN

    def _find_late_configs(self) -> frozenset[str]:
        """Find the devices whose load thread was starved of the config."""
        return frozenset(
            line.device
            for line in self._log.events
            if line.name == _STARVED and line.first_number == self._configs.get(line.device)
        )

    # Comparing

    def _thread(self, line: LogLine) -> str:
        """Tell which thread a line of the log is from."""
        if line.name in _BY_CHANNEL:
            return f"multifd-{line.first_number}"
        if line.name == INCOMING:
            return self._carrier(line.text)
        if line.name in _BY_DEVICE:
            return f"load thread of {line.device}"
        return _FAILING if line.name == _TERMINATE and line.first_number else _MAIN

    def _carrier(self, text: str) -> str:
        """Tell which channel a buffer came in on, which only the capture shows."""
        carriers = self._carriers.get(text)
        if not carriers:
            return "receive thread"
        for thread in carriers:
            expected = self._expected[thread]
            if expected and expected[0][1] == text:
                carriers.remove(thread)
                return thread
        return carriers.popleft()

    def _compare(self, line: LogLine, thread: str) -> Divergence | None:
        expected = self._expected.get(thread, deque())
        self._packets[thread] += line.name in {UNFILL, INCOMING}
        self._are_told |= line.name == _TERMINATE and thread == _MAIN
        if line.name == _STARVED:
            return self._compare_starved(line, thread)
        self._pass_over(expected, line)
        if expected and expected[0][1] == line.text:
            expected.popleft()
            return None
        if line.name == _BUFFER_END and self._ends_buffers(line, expected):
            return None
        if thread == _FAILING and not expected and self._is_cut_short():
            return None
        if self._may_stop and thread not in self._stopped and self._stops(line, thread):
            self._stopped.add(thread)
            expected.clear()
            return None
        return Divergence(line.number, thread, line.text, expected[0][1] if expected else None)

    def _is_cut_short(self) -> bool:
        """Whether a receive thread may have been inside a packet when it was told to end."""
        if not self._are_told or not self._cut_short:
            return False
        self._cut_short -= 1
        return True

    def _compare_starved(self, line: LogLine, thread: str) -> Divergence | None:
        """Check that a load thread waits for the idx that it will load next."""
        for name, text in self._expected.get(thread, ()):
            if name == LOAD_START:
                if text == f"{LOAD_START}  ({line.device}){line.args}":
                    return None
                return Divergence(line.number, thread, line.text, text)
            if name == CONFIG_START:
                break
        config = self._configs.get(line.device)
        if config is None or line.first_number == config:
            return None
        text = f"{_STARVED}  ({line.device}) idx {config}"
        return Divergence(line.number, thread, line.text, text)

    def _ends_buffers(self, line: LogLine, expected: deque[tuple[str, str]]) -> bool:
        """Whether a load thread may say here that it has loaded all buffers."""
        is_next = not expected or expected[0][0] == CONFIG_START
        return is_next and line.device not in self._late_configs

    def _pass_over(self, expected: deque[tuple[str, str]], line: LogLine) -> None:
        """Leave out what the log need not have."""
        while expected and expected[0][0] == _STARVED:
            expected.popleft()
        if expected and expected[0][0] == _BUFFER_END and line.name != _BUFFER_END:
            if line.device in self._late_configs:
                expected.popleft()
            while expected and expected[0][0] == _STARVED:
                expected.popleft()

    def _stops(self, line: LogLine, thread: str) -> bool:
        """Whether a thread of a destination that gives up may end here."""
        if line.name == _CHANNEL_END:
            return line.args == f"channel {line.first_number} packets {self._packets[thread]}"
        return line.name == _LOAD_THREAD_END

    def _left_over(self, diverged: set[str]) -> Iterator[Divergence]:
        """Find events that the log does not have."""
        for thread, expected in self._expected.items():
            if thread in diverged:
                continue
            needed = _needed(expected)
            stops = self._run.outcome is Outcome.STALLED and thread != _MAIN
            if needed and not stops and self._run.outcome is not Outcome.ABORTED:
                yield Divergence(None, thread, None, needed)

    def _errors(self) -> Iterator[Divergence]:
        """Compare what is printed; the words of a killed process are not looked for."""
        if self._run.outcome is Outcome.ABORTED:
            return
        expected = deque(self._run.stderr)
        for number, text in self._log.errors:
            for name in self._names:
                text = text.replace(name, "NAME")
            if not expected or expected[0] != text:
                yield Divergence(number, _STDERR, text, expected[0] if expected else None)
                return
            expected.popleft()
        if expected:
            yield Divergence(None, _STDERR, None, expected[0])


def compare(run: Run, log: Log) -> list[Divergence]:
    """Compare a log with a run; give what differs, each thread's first difference.

    The run must have given the receive threads priority: they are as far as they can be.
    """
    return list(_Comparison(run, log).divergences())


def _needed(expected: Iterable[tuple[str, str]]) -> str | None:
    """Give the first of some events that a log must have."""
    return next((text for name, text in expected if name not in {_STARVED, _BUFFER_END}), None)


def _category(name: str) -> str:
    return next((category for category in _CATEGORIES if name.startswith(category)), "")
