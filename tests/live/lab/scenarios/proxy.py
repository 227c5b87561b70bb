# SPDX-License-Identifier: GPL-2.0-or-later
"""Real migrations through ``record proxy``, tcpdump beside it, and replays of what it wrote."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from mfdtool.cli import run
from tests.live.lab.qemu import ANSWER_SECONDS, PORT, Qemu, Setup, Tcpdump
from tests.live.lab.replaying import replayed
from tests.live.lab.scenario import Inside, Scenario
from tests.live.lab.scenarios.migration import wait_for_end, wait_for_guest
from tests.support.proxying import patient

SECONDS: Final = 600
RECORDING: Final = "run.pcapng"
CAPTURE: Final = "capture.pcap"

_TO: Final = f"tcp:127.0.0.1:{PORT}"
_LISTENING: Final = "mfdtool: listening on "
_INTERVAL: Final = 0.05


class Proxy:
    """The command ``record proxy``, in a process of its own.

    That is a copy of this one, which has imported everything: doing so again takes seconds.
    """

    def __init__(self, inside: Inside, words: Sequence[str]) -> None:
        """Start it."""
        self._kept = inside.folder / RECORDING
        self._file = Path(f"/run/{time.monotonic_ns()}.pcapng")
        self._out, self._err = (self._file.with_suffix(end) for end in (".out", ".err"))
        command = [
            *("record", "proxy", "--listen", "tcp:127.0.0.1:0", "--to", _TO),
            *("-w", str(self._file), "--json", *words),
        ]
        self._process = get_context("fork").Process(target=self._serve, args=(command,))
        self._process.start()
        inside.stack.callback(self._process.kill)

    def uri(self) -> str:
        """Wait until it listens; give what a source is told to migrate to."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while _LISTENING not in (said := self._said()):
            assert self._process.is_alive(), said
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(_INTERVAL)
        return said.splitlines()[0].removeprefix(_LISTENING)

    def interrupt(self) -> None:
        """Tell it that there are no more migrations."""
        assert self._process.pid is not None
        assert self._process.is_alive()
        os.kill(self._process.pid, signal.SIGINT)

    def end(self) -> dict[str, Any]:
        """Wait for its end, and put the recording into the scenario's folder; give what it says."""
        self._process.join(ANSWER_SECONDS)
        assert self._process.exitcode == os.EX_OK, self._said()
        shutil.move(self._file, self._kept)
        return {"summary": json.loads(self._out.read_text()), "stderr": self._said()}

    def _serve(self, command: list[str]) -> None:
        with (
            patient(),
            self._out.open("w") as out,
            self._err.open("w") as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = run(command)
        sys.exit(status)

    def _said(self) -> str:
        return self._err.read_text() if self._err.exists() else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A replay of what was recorded, into a destination with devices like the recorded one's.

    Attributes:
        migration: which one.
        words: options of the command.
        completes: whether all devices get their state. Whether a destination that has met an error
            fails or stalls depends on how far its main thread was.
    """

    migration: int = 0
    words: tuple[str, ...] = ()
    completes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxied:
    """Migrations through one proxy, one after the other.

    Attributes:
        name: the scenario's.
        words: options of the command.
        migrations: of each, the serial ports of its devices.
        channels, read_size: see `Setup`.
        replays: what is replayed of it.
    """

    name: str
    words: tuple[str, ...] = ()
    migrations: tuple[tuple[int, ...], ...]
    channels: int = 4
    read_size: int = 16
    replays: tuple[Replay, ...] = ()

    def run(self, inside: Inside) -> None:
        """Migrate; leave the recording, tcpdump's capture and all logs in the folder."""
        proxy = Proxy(inside, self.words)
        capture = Tcpdump(inside, inside.folder / CAPTURE)
        for number, ports in enumerate(self.migrations):
            self._migrate(inside, proxy, number, ports)
        if "--stay" in self.words:
            proxy.interrupt()
        inside.notes["proxy"] = proxy.end()
        capture.end()
        for replay in self.replays:
            self._replay(inside, replay)

    def _migrate(self, inside: Inside, proxy: Proxy, number: int, ports: Sequence[int]) -> None:
        def devices() -> list[str]:
            return [inside.device(ports=each) for each in ports]

        setup = Setup(uuids=devices(), channels=self.channels, read_size=self.read_size)
        other = replace(setup, uuids=devices(), read_size=0, incoming=True)
        destination = Qemu(inside, f"dst-{number}", other)
        source = Qemu(inside, f"src-{number}", setup)
        source.wait_until(source.is_idle, "guest that waits")
        destination.command("migrate-incoming", uri=_TO)
        source.command("migrate", uri=proxy.uri())
        wait_for_end(source)
        wait_for_guest(source, destination)
        destination.end()
        source.end()

    def _replay(self, inside: Inside, replay: Replay) -> None:
        recording = inside.folder / RECORDING
        words = ("--migration", str(replay.migration), *replay.words)
        ports = self.migrations[replay.migration]
        found = replayed(inside, recording, words, ports=ports, stalls=not replay.completes)
        assert found["order"] == "exact"
        assert found["outcome"] in ({"completed"} if replay.completes else {"failed", "stalled"})
        assert {device["restored"] for device in found["devices"]} == {replay.completes}


_IN_ORDER: Final = ("--order", "in-order", "--reassign")
_REVERSE: Final = ("--order", "reverse", "--reassign")
_MISTAKEN: Final = "set:dev=0000:00:05.0,idx=1:idstr=0000:00:06.0/vfio"
"""A packet of the one device is said to be the other's, which has one of this idx, too."""

PROXIED: Final = (
    Proxied(
        name="proxy-whole",
        words=("--stay",),
        migrations=((2,), (1, 2)),
        replays=(
            Replay(),
            Replay(words=_REVERSE),
            Replay(migration=1, words=_REVERSE),
            Replay(
                migration=1,
                words=(*_IN_ORDER, "--fault", _MISTAKEN),
                completes=False,
            ),
        ),
    ),
    Proxied(name="proxy-redacted", words=("--redact", "--digest"), migrations=((1, 2),)),
)

SCENARIOS: Final = tuple(
    Scenario(name=proxied.name, run=proxied.run, seconds=SECONDS) for proxied in PROXIED
)
