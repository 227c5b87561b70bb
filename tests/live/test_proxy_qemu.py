# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM-only multifd migrations between two real QEMUs, through the proxy. No virtual machine lab.

Without QEMU these tests are skipped, and say so; with MFDTOOL_REQUIRE_LAB=1 they fail.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.addresses import UnixAddress, connect
from mfdtool.live.proxy.recording import Recording, RecordingOptions
from mfdtool.live.proxy.server import Proxy, ProxyOptions
from mfdtool.stream.frames import Kind
from mfdtool.stream.values import RamRecord
from tests.support.decoding import decode_scalar
from tests.support.programs import need_program
from tests.support.proxying import LOCAL, LONG, patient, wait_for

pytestmark = pytest.mark.live

QEMU: Final = "qemu-system-x86_64"
CHANNELS: Final = 4


@pytest.fixture(autouse=True)
def _qemu() -> None:
    need_program(QEMU)


def _connect(path: Path) -> socket.socket:
    """Connect to a QEMU that may just be starting."""
    found: list[socket.socket] = []

    def is_there() -> bool:
        with suppress(SinkError):
            found.append(connect(UnixAddress(str(path))))
        return bool(found)

    wait_for(is_there)
    found[0].settimeout(LONG)
    return found[0]


class Monitor:
    """A QMP connection."""

    def __init__(self, path: Path) -> None:
        self._socket = _connect(path)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.run("qmp_capabilities")

    def run(self, command: str, **arguments: object) -> Any:
        """Run a command and give what it returns."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "event" not in answer:
                return answer["return"]

    def status(self) -> str:
        """Say how the migration is."""
        return str(self.run("query-migrate").get("status"))

    @property
    def is_gone(self) -> bool:
        """Whether the QEMU has exited."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


@contextmanager
def qemu(path: Path, *options: str) -> Iterator[Monitor]:
    """Run a QEMU whose monitor is at ``path``."""
    command = [QEMU, "-accel", "tcg", "-machine", "pc-i440fx-10.0", "-m", "32", "-nodefaults"]
    command += ["-display", "none", "-no-user-config", "-qmp", f"unix:{path},server=on,wait=off"]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
        )
        stack.callback(process.kill)
        monitor = Monitor(path)
        stack.callback(monitor.close)
        for name in ("multifd", "return-path"):
            monitor.run(
                "migrate-set-capabilities", capabilities=[{"capability": name, "state": True}]
            )
        monitor.run("migrate-set-parameters", **{"multifd-channels": CHANNELS})
        yield monitor


@pytest.mark.parametrize("redact", [False, True])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_real_migration(tmp_path: Path, kind: str, *, redact: bool) -> None:
    path = tmp_path / "run.pcapng"
    destination = UnixAddress(str(tmp_path / "migration"))
    with ExitStack() as stack:
        stack.enter_context(patient())
        source = stack.enter_context(qemu(tmp_path / "source"))
        target = stack.enter_context(qemu(tmp_path / "target", "-incoming", "defer"))
        target.run("migrate-incoming", uri=str(destination))
        near = UnixAddress(str(tmp_path / "near")) if kind == "unix" else LOCAL
        recording = Recording(path, RecordingOptions())
        stack.callback(recording.close)
        proxy = Proxy(ProxyOptions(listen=near, to=destination, redact=redact), recording)
        stack.callback(proxy.close)
        stack.callback(proxy.abort)
        source.run("migrate", uri=str(proxy.address))
        wait_for(lambda: source.status() in ("completed", "failed"))
        assert source.status() == "completed"
        wait_for(lambda: target.status() == "completed")
        assert target.run("query-status")["status"] == "running"
        assert proxy.wait(LONG), "the migration is over"
    assert not recording.losses
    frames = decode_scalar(path.read_bytes())
    kinds = {frame.kind for frame in frames}
    assert {Kind.MULTIFD_INIT, Kind.MULTIFD_SYNC, Kind.MAIN_EOF, Kind.MAIN_VMDESCRIPTION} <= kinds
    assert Kind.RETURN_PATH_MESSAGE in kinds
    assert Kind.UNDECODED not in kinds
    channels = {str(frame.channel) for frame in frames}
    assert channels == {"main", "return-path", *(f"multifd-{n}" for n in range(CHANNELS))}
    incomplete = {frame.kind for frame in frames if frame.missing} - {Kind.GAP}
    hidden = {Kind.MULTIFD_RAM, Kind.MAIN_OPAQUE}
    assert incomplete == (hidden if redact else set())


def test_a_destination_that_gives_up(tmp_path: Path) -> None:
    """It lacks a device's RAM and exits. A QEMU 10.0 source may hang then, also without a proxy."""
    path = tmp_path / "run.pcapng"
    destination = UnixAddress(str(tmp_path / "migration"))
    recording = Recording(path, RecordingOptions())
    with ExitStack() as stack:
        stack.enter_context(patient())
        stack.callback(recording.close)
        proxy = Proxy(ProxyOptions(listen=LOCAL, to=destination), recording)
        stack.callback(proxy.close)
        stack.callback(proxy.abort)
        with ExitStack() as both:
            source = both.enter_context(qemu(tmp_path / "source", "-device", "rtl8139"))
            target = both.enter_context(qemu(tmp_path / "target", "-incoming", "defer"))
            target.run("migrate-incoming", uri=str(destination))
            source.run("migrate", uri=str(proxy.address))
            wait_for(lambda: target.is_gone)
        assert proxy.wait(LONG), "both are gone"
    assert not recording.losses
    blocks = [
        entry.idstr
        for frame in decode_scalar(path.read_bytes())
        if isinstance(frame.value, RamRecord)
        for entry in frame.value.entries
    ]
    assert "pc.ram" in blocks
    assert any("rtl8139" in name for name in blocks)
