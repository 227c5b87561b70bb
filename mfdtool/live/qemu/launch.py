# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination of our own: started, told to listen, watched, and always killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self

from mfdtool.errors import SinkError
from mfdtool.live.interrupts import interrupts_held
from mfdtool.live.qemu.monitor import Monitor

if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

TRACES: Final = ("vfio_load*", "multifd_recv*", "loadvm*")
"""Events that lock-step and the verdict need."""

START_SECONDS: Final = 60.0
_INTERVAL: Final = 0.02
_LAST_WORDS: Final = 5
_DIES_WITH_US: Final = ("--pdeathsig", "KILL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a destination is started.

    Attributes:
        command: the user's command line.
        uri: where it listens, as ``migrate-incoming`` takes it.
        channels: multifd channels; 0 for a migration without multifd.
        compression: the name of its multifd-compression.
    """

    command: Sequence[str]
    uri: str
    channels: int
    compression: str = "none"


def completed_command(command: Sequence[str], monitor: str) -> list[str]:
    """Add what a command line lacks: trace events, a monitor, and that QEMU waits.

    Raises:
        ValueError: it is empty, waits for a migration but not as it must, or is not ours to end.
    """
    words = list(command)
    if not words:
        raise ValueError("there is no command")
    options = [word.removeprefix("-") if word.startswith("--") else word for word in words]
    if "-daemonize" in options:
        raise ValueError("with -daemonize nobody could watch it, nor end it")
    if "-incoming" in options:
        place = options.index("-incoming") + 1
        if words[place : place + 1] != ["defer"]:
            raise ValueError("it must wait with '-incoming defer'")
    else:
        words += ["-incoming", "defer"]
    for trace in TRACES:
        if trace not in words:
            words += ["-trace", trace]
    return [*words, "-qmp", f"unix:{monitor},server=on,wait=off"]


class LaunchedQemu:
    """A QEMU that waits for a migration; a context manager that kills it."""

    def __init__(self, launch: Launch) -> None:
        """Set up; nothing is started yet."""
        self._launch = launch
        self._trace: list[str] = []
        self._errors: list[str] = []
        self._warnings = 0
        self._readers: list[Thread] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start it, and let it listen.

        Raises:
            SinkError: it cannot be started, or says no.
            ValueError: its command line does not do.
        """
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mfdtool-"))
            monitor = Path(folder) / "monitor"
            self._start(completed_command(self._launch.command, str(monitor)), stack)
            self._monitor = self._connected(monitor)
            stack.callback(self._monitor.close)
            self._configure()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def lines(self) -> Sequence[str]:
        """Its trace so far."""
        return self._trace

    @property
    def errors(self) -> Sequence[str]:
        """What it wrote to standard error since it listens.

        The trace is another stream: in one, lines of threads that write at once get mixed up.
        """
        return self._errors[self._warnings :]

    def exit_status(self) -> int | None:
        """Give its exit status, negative for a signal; None while it runs."""
        status = self._process.poll()
        if status is not None:
            # All that it wrote is there then.
            self._join()
        return status

    def migration_status(self, *, seconds: float) -> str:
        """Ask how the migration stands.

        Raises:
            TimeoutError: there is no answer in time.
            SinkError: the monitor is gone.
        """
        answer = self._monitor.do("query-migrate", seconds=seconds)
        return str(answer.get("status", "none"))

    def _start(self, words: list[str], stack: ExitStack) -> None:
        if setpriv := shutil.which("setpriv"):
            if shutil.which(words[0]) is None:
                raise SinkError(f"{words[0]}: there is no such program")
            words = [setpriv, *_DIES_WITH_US, *words]
        log, log_end = os.pipe()
        trace = os.fdopen(log, "rb")
        try:
            with interrupts_held():
                self._process = subprocess.Popen(
                    [*words, "-D", f"/proc/self/fd/{log_end}"],
                    pass_fds=(log_end,),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                stack.callback(self._kill)
        except OSError as error:
            trace.close()
            raise SinkError(f"{words[0]}: {error.strerror}") from error
        except BaseException:
            trace.close()
            raise
        finally:
            os.close(log_end)
        assert self._process.stderr is not None
        for pipe, lines in ((trace, self._trace), (self._process.stderr, self._errors)):
            self._readers.append(Thread(target=_read, args=(pipe, lines), daemon=True))
            self._readers[-1].start()

    def _join(self) -> None:
        for reader in self._readers:
            if reader.ident is not None:
                reader.join(START_SECONDS)

    def _kill(self) -> None:
        """End it and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._join()

    def _connected(self, path: Path) -> Monitor:
        """Connect to the monitor, which is not there at once, and then does not listen at once."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.exit_status() is not None:
                words = "; ".join(self._errors[-_LAST_WORDS:]) or "without a word"
                raise SinkError(f"QEMU ended at once: {words}")
            is_late = time.monotonic() > deadline
            if path.exists():
                try:
                    return Monitor(str(path), seconds=START_SECONDS)
                except SinkError:
                    if is_late:
                        raise
            elif is_late:
                raise SinkError(f"QEMU has no monitor after {START_SECONDS:.0f} s")
            time.sleep(_INTERVAL)

    def _configure(self) -> None:
        launch = self._launch
        if launch.channels:
            self._do(
                "migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}]
            )
            parameters: dict[str, Any] = {"multifd-channels": launch.channels}
            if launch.compression != "none":
                parameters["multifd-compression"] = launch.compression
            self._do("migrate-set-parameters", **parameters)
        self._warnings = len(self._errors)
        self._do("migrate-incoming", uri=launch.uri)

    def _do(self, command: str, **arguments: Any) -> None:
        try:
            self._monitor.do(command, seconds=START_SECONDS, **arguments)
        except TimeoutError as error:
            raise SinkError(f"QEMU's monitor: {command}: no answer") from error


def _read(pipe: IO[bytes], lines: list[str]) -> None:
    """Read until the end. Nobody else closes the pipe: that would wait for a read that goes on."""
    with pipe:
        for line in pipe:
            lines.append(line.decode(errors="backslashreplace").rstrip("\r\n"))
