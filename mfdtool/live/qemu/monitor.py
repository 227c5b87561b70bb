# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam to qemu.qmp: a monitor that may never answer again.

A destination that has stalled blocks its monitor too. So every question has a time limit, and a
question that was not answered stays asked: the next one waits for its answer first.

The client has an event loop in a thread of its own. An interrupt comes to the main thread, which
waits; in the middle of the client's work it could be taken for the end of a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from threading import Thread
from typing import Any, Final

from qemu.qmp import QMPClient, QMPError

from mfdtool.errors import SinkError
from mfdtool.live.interrupts import interrupts_held

_CLOSING_SECONDS: Final = 1.0
_GONE: Final = (QMPError, EOFError, OSError)


class Monitor:
    """A QMP connection."""

    def __init__(self, path: str, *, seconds: float) -> None:
        """Connect to a UNIX socket.

        Raises:
            SinkError: there is no monitor, or it does not answer in time.
        """
        self._asked: asyncio.Task[Any] | None = None
        with ExitStack() as stack:
            # Half a loop could not be closed.
            with interrupts_held():
                self._loop = asyncio.new_event_loop()
                self._thread = Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
                self._client = QMPClient("mfdtool")
                # What it logs is raised as well.
                self._client.logger.disabled = True
                stack.callback(self.close)
            try:
                self._run(lambda: asyncio.wait_for(self._client.connect(path), seconds))
            except (*_GONE, TimeoutError) as error:
                stack.pop_all()
                self._end()
                told = "no answer" if isinstance(error, TimeoutError) else str(error)
                raise SinkError(f"QEMU's monitor: {told}") from error
            stack.pop_all()

    def do(self, command: str, *, seconds: float, **arguments: Any) -> Any:
        """Run a command; give its answer.

        Raises:
            TimeoutError: there is no answer in time.
            SinkError: it says no, or is gone.
        """
        try:
            return self._run(lambda: self._answer(command, arguments, seconds))
        except TimeoutError:
            # It is an OSError, too.
            raise
        except _GONE as error:
            raise SinkError(f"QEMU's monitor: {command}: {error}") from error

    def close(self) -> None:
        """Close the connection; QEMU may be gone already."""
        with interrupts_held():
            with suppress(*_GONE, TimeoutError):
                self._run(lambda: asyncio.wait_for(self._client.disconnect(), _CLOSING_SECONDS))
            self._end()

    def _run(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        with interrupts_held():
            future = asyncio.run_coroutine_threadsafe(begin(), self._loop)
        return future.result()

    def _end(self) -> None:
        """End what still waits for something, then the loop."""
        with interrupts_held():
            self._run(_forgotten)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _answer(self, command: str, arguments: dict[str, Any], seconds: float) -> Any:
        while True:
            is_older = self._asked is not None
            if self._asked is None:
                self._asked = asyncio.ensure_future(self._client.execute(command, arguments))
                self._asked.add_done_callback(_heard)
            done, _ = await asyncio.wait({self._asked}, timeout=seconds)
            if not done:
                raise TimeoutError(command)
            asked, self._asked = self._asked, None
            if not is_older:
                return asked.result()
            with suppress(*_GONE):
                asked.result()


def _heard(asked: asyncio.Task[Any]) -> None:
    """Take note of how a question ended, also of one that nobody waits for any more.

    Otherwise asyncio writes to standard error that nobody did.
    """
    if not asked.cancelled():
        asked.exception()


async def _forgotten() -> None:
    """End all that nobody wants an answer to any more."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
