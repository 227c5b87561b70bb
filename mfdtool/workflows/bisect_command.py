# SPDX-License-Identifier: GPL-2.0-or-later
"""``bisect --run``: a command of the user's says whether captures are bad."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from mfdtool.errors import SinkError
from mfdtool.explore.bisect import Candidate, Cause
from mfdtool.explore.reproduction import reproduction_of
from mfdtool.explore.shrink import units_of, without
from mfdtool.live.interrupts import interrupts_held
from mfdtool.schedule.schedule import Schedule

if TYPE_CHECKING:
    from pathlib import Path

    from mfdtool.workflows.replay import Plan

_CANNOT_SAY: Final = 125
_STOP: Final = 128


class CommandTester:
    """Tells whether candidates fail, by a command's exit status."""

    def __init__(
        self, made: Plan, command: str, folder: Path, *, repeat: int, timeout: float | None
    ) -> None:
        self._made = made
        self._command = command
        self._path = folder / "candidate.pcapng"
        self._repeat = repeat
        self._timeout = timeout

    def learn(self, first: Candidate) -> bool:
        """Whether the first candidate fails; that is the failure that is meant.

        Raises:
            SinkError: the command cannot say, or calls a migration bad in which nothing is sent.
        """
        is_bad = self._answer(first)
        if is_bad is None:
            raise SinkError(
                f"{self._command!r} cannot say whether the whole recording fails: it ended with"
                f" status {_CANNOT_SAY}"
            )
        if not is_bad:
            return False
        if self.fails(self._nothing()):
            raise SinkError(
                f"{self._command!r} also calls a migration bad of which only the connections are"
                " left, so it does not tell this failure from others: it must end with status 0"
                " or 125 there"
            )
        return True

    def fails(self, candidate: Candidate) -> bool:
        """Try a candidate; one that the command cannot tell of does not fail."""
        return self._answer(candidate) is True

    def foreseen(self, first: Candidate) -> Cause | None:
        """Know nothing beforehand."""
        del first
        return None

    def _nothing(self) -> Candidate:
        """Give the recorded migration without all that could be taken out, faults too."""
        recorded = self._made.recorded
        trace = recorded.trace
        places = [place for unit in units_of(trace) for place in unit]
        return Candidate(recorded, (), without(trace, Schedule(trace.digest), places))

    def _answer(self, candidate: Candidate) -> bool | None:
        """Try a candidate, as often as asked for; None if the command never can say."""
        self._path.write_bytes(reproduction_of(candidate).capture())
        answer = None
        for _ in range(self._repeat):
            is_bad = self._is_bad()
            if is_bad:
                return True
            answer = answer if is_bad is None else False
        return answer

    def _is_bad(self) -> bool | None:
        """Run the command; True if it calls the capture bad, None if it cannot say."""
        status = self._status()
        if status is None:
            return True
        if status < 0 or status >= _STOP:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise SinkError(f"the command ended with {how}: bisect stops")
        return None if status == _CANNOT_SAY else status != 0

    def _status(self) -> int | None:
        """Run the command; None if it takes too long.

        It is ended then with all that it has started, and so it is if somebody stops us.
        """
        with ExitStack() as stack:
            with interrupts_held():
                process = stack.enter_context(
                    subprocess.Popen(
                        f"{self._command} {shlex.quote(str(self._path))}",
                        shell=True,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
                stack.callback(_kill, process)
            try:
                status = process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                return None
            # What it has left behind on purpose may stay.
            stack.pop_all()
            return status


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
