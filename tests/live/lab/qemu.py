# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs with sample devices, inside the lab's machine: started, told what to do, and ended."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.live.lab.scenario import Inside

PORT: Final = 4444
ANSWER_SECONDS: Final = 180
"""A destination that stalls never answers again: then this passes, and TimeoutError is raised."""

_QEMU: Final = "qemu-system-x86_64"
_OPTIONS: Final = (
    "-accel tcg -machine pc-i440fx-10.0 -m 32 -nodefaults -display none -no-user-config"
)
_TRACES: Final = (
    "vfio_migration*",
    "vfio_vmstate*",
    "vfio_save*",
    "vfio_load*",
    "multifd_recv*",
    "*loadvm*",
)
_DEVICE: Final = (
    "vfio-pci,sysfsdev=/sys/bus/mdev/devices/{uuid},addr={slot:02x}.0,enable-migration=on,"
    "x-pre-copy-dirty-page-tracking=off,x-device-dirty-page-tracking=off,"
    "x-migration-multifd-transfer={transfer}"
)
_TCPDUMP: Final = "tcpdump -Z root -U -i lo -s 0 -B 65536 -w"
_LINGER: Final = 1.5
"""Seconds: frames get to tcpdump when the kernel's buffer is full, or a second old."""
_FIRST_SLOT: Final = 5
_INTERVAL: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a QEMU is started.

    Attributes:
        uuids: its devices, at slots 5, 6, ...
        transfer: whether multifd carries their state.
        channels: parameter ``multifd-channels``.
        read_size: most bytes that a read of a device gives; 0 for what the device gives.
        incoming: whether it is a destination.
    """

    uuids: Sequence[str]
    transfer: bool = True
    channels: int = 4
    read_size: int = 0
    incoming: bool = False


def launch_command(uuids: Sequence[str]) -> str:
    """Give the command line that ``replay --launch`` starts a destination with."""
    return shlex.join([_QEMU, *shlex.split(_OPTIONS), *_devices(Setup(uuids=uuids))])


class Qemu:
    """One QEMU.

    Attributes:
        log: the file that its messages and traces go to. It is in memory until QEMU has ended:
            of threads that write to the folder shared with the outside, lines get lost.
    """

    def __init__(self, inside: Inside, name: str, setup: Setup) -> None:
        """Start it, and tell it what a multifd migration takes."""
        self._kept = inside.folder / f"{name}.log"
        self.log = Path(f"/run/{name}-{time.monotonic_ns()}.log")
        path = str(self.log.with_suffix(".qmp"))
        environment = dict(os.environ)
        if setup.read_size:
            environment["LD_PRELOAD"] = str(inside.tools / "short_reads.so")
            environment["MFDTOOL_READ_SIZE"] = str(setup.read_size)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _QEMU,
                    *shlex.split(_OPTIONS),
                    *_arguments(setup),
                    "-qmp",
                    f"unix:{path},server=on,wait=off",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        inside.stack.callback(self.end)
        self._qmp = self._connect(path)
        inside.stack.enter_context(self._qmp)
        self._input = bytearray()
        self._message()
        self.command("qmp_capabilities")
        self.command(
            "migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}]
        )
        self.command("migrate-set-parameters", **{"multifd-channels": setup.channels})

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a QMP command and give its answer.

        Raises:
            TimeoutError: it does not answer.
            RuntimeError: it says no.
        """
        text = json.dumps({"execute": name, "arguments": arguments})
        self._qmp.sendall(text.encode() + b"\n")
        while True:
            message = self._message()
            if "error" in message:
                raise RuntimeError(f"{name}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def migration_status(self) -> str:
        """Ask how the migration stands: ``active``, ``completed``, ``failed``, ...; or not yet."""
        status: str = self.command("query-migrate").get("status", "none")
        return status

    def is_idle(self) -> bool:
        """Ask whether the guest's processor waits: its firmware has found nothing to boot."""
        words = {"command-line": "info registers"}
        return "HLT=1" in str(self.command("human-monitor-command", **words))

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something.

        Raises:
            TimeoutError: it does not come.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} in {ANSWER_SECONDS} s:\n{self.log_text()[-2000:]}")
            time.sleep(_INTERVAL)

    def exit_status(self) -> int | None:
        """Give its exit status; None while it runs."""
        return self._process.poll()

    def log_text(self) -> str:
        """Give its messages and traces so far."""
        return self.log.read_text(errors="backslashreplace")

    def end(self) -> None:
        """End it as a power cut would, so that its log does not go on about ending."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        shutil.copyfile(self.log, self._kept)

    def _connect(self, path: str) -> socket.socket:
        """Connect to its monitor; the socket is there before QEMU listens on it."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)

        def is_connected() -> bool:
            assert self.exit_status() is None, self.log_text()
            return connection.connect_ex(path) == 0

        self.wait_until(is_connected, "monitor of a QEMU")
        return connection

    def _message(self) -> dict[str, Any]:
        """Read one message; events are messages too."""
        while b"\n" not in self._input:
            readable, _, _ = select.select([self._qmp], [], [], ANSWER_SECONDS)
            if not readable:
                raise TimeoutError(f"the monitor is silent:\n{self.log_text()[-2000:]}")
            data = self._qmp.recv(1 << 16)
            if not data:
                raise ConnectionError(f"QEMU is gone:\n{self.log_text()[-2000:]}")
            self._input += data
        line, _, rest = self._input.partition(b"\n")
        self._input = bytearray(rest)
        message: dict[str, Any] = json.loads(line)
        return message


class Tcpdump:
    """Records a port of the loopback interface, into a file that is there when this has ended.

    It writes to memory first: the folder that is shared with the outside is too slow.
    """

    def __init__(self, inside: Inside, path: Path, *, port: int = PORT) -> None:
        """Start, and wait until it listens."""
        self._path = path
        self._file = Path(f"/run/{time.monotonic_ns()}.pcap")
        self._process = subprocess.Popen(
            [*shlex.split(_TCPDUMP), str(self._file), f"port {port}"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        inside.stack.callback(self._kill)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert b"listening on lo" in line, line

    def end(self) -> None:
        """Stop recording, and move the file to its place.

        Raises:
            AssertionError: it lost frames.
        """
        time.sleep(_LINGER)
        self._process.terminate()
        _, told = self._process.communicate(timeout=ANSWER_SECONDS)
        assert b"\n0 packets dropped by kernel" in told, told
        shutil.move(self._file, self._path)

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def _arguments(setup: Setup) -> list[str]:
    arguments = _devices(setup)
    for trace in _TRACES:
        arguments += ["-trace", trace]
    return [*arguments, "-incoming", "defer"] if setup.incoming else arguments


def _devices(setup: Setup) -> list[str]:
    transfer = "on" if setup.transfer else "off"
    return [
        word
        for slot, uuid in enumerate(setup.uuids, _FIRST_SLOT)
        for word in ("-device", _DEVICE.format(uuid=uuid, slot=slot, transfer=transfer))
    ]
