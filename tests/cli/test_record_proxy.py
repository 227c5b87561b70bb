# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool record proxy`` as a process: messages, signals, exit status, and a sudden death."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from mfdtool.cli import run
from mfdtool.cli.record_proxy import progress_text
from mfdtool.errors import CaptureError, SinkError
from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.live.addresses import Address, connect, parse_address
from mfdtool.live.proxy.server import Progress
from mfdtool.packets.pcapng import Reader
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.phases import Phase
from tests.support.proxying import LONG, Destination, wait_for

MIGRATION: Final = assemble(Plan(channels=2, devices=[Device(buffers=[bytes(1 << 20)])]))
TOTAL: Final = sum(len(MIGRATION.stream(name)) for name in MIGRATION.connections)


@contextmanager
def proxy(
    path: Path, destination: Destination, *options: str, room: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """Run the command; give it and where it listens. A disk that hangs makes no losses.

    With ``room`` files take no more than so many blocks.
    """
    command = [sys.executable, "-m", "mfdtool", "record", "proxy", "--listen", "tcp:127.0.0.1:0"]
    command += ["--to", str(destination.address), "-w", str(path), "--on-full", "block", *options]
    if room is not None:
        command = ["sh", "-c", f'ulimit -f {room}; exec "$@"', "sh", *command]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("mfdtool: listening on tcp:127.0.0.1:"), line
            yield process, parse_address(line.split()[-1])
        finally:
            process.kill()
            destination.close()


def migrate(address: Address, destination: Destination) -> None:
    """Send the migration, as a source does: no channel ends before all have begun."""
    sockets = {name: connect(address) for name in MIGRATION.connections}
    for name, connection in sockets.items():
        connection.sendall(MIGRATION.stream(name))
    wait_for(lambda: destination.arrived == TOTAL)
    for connection in sockets.values():
        connection.close()


def test_it_ends_with_the_migration_and_shows_what_it_recorded(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination, "--comment", "QEMU 10.0.2 on both hosts") as (process, address):
        migrate(address, destination)
        out, err = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert "Migration 0 to 127.0.0.1:" in out
    assert "stop-copy  1,048,576 bytes in 1 packet on multifd-0, idx complete" in out
    assert "Missing     nothing" in out
    assert "comment: QEMU 10.0.2 on both hosts" in out
    assert err == f"mfdtool: 3 connections recorded in {path}\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_of_one_recording_are_read_together(tmp_path: Path) -> None:
    path = tmp_path / "a run.pcapng"
    destination = Destination()
    with proxy(path, destination, "--max-size", "1M") as (process, address):
        migrate(address, destination)
        _, err = process.communicate(timeout=LONG)
    assert process.returncode == 0
    told = err.splitlines()[-1].removeprefix("mfdtool: these are one recording; to read it: ")
    command, _, reader = told.partition(" | ")
    assert command == f"cat '{path}' '{tmp_path}/a run.1.pcapng'"
    assert reader == "mfdtool info -"
    whole = subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout
    words = [sys.executable, "-m", *reader.split()]
    shown = subprocess.run(words, check=True, input=whole, capture_output=True).stdout
    assert b"stop-copy  1,048,576 bytes in 1 packet on multifd-0, idx complete" in shown
    assert b"Missing     nothing" in shown


def test_json_and_redaction(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination, "--redact", "--json") as (process, address):
        migrate(address, destination)
        out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0, "what was to be left out is no loss"
    result = json.loads(out)
    assert result["recording"] == {
        "files": [str(path)],
        "complete": True,
        "lost": {"frames": 0, "cut_frames": 0, "bytes": 0, "reason": None},
        "connections": 3,
        "strays": 0,
        "refused": 0,
        "unreachable": 0,
        "bytes": TOTAL,
    }
    assert len(result["files"][0]["migrations"]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_connections_end(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination, "--stay") as (process, address), connect(address) as client:
        client.sendall(MIGRATION.stream("main")[:50])
        wait_for(lambda: b"QEVM" in path.read_bytes())
        process.send_signal(number)
        assert process.stderr is not None
        assert "interrupt again to end" in process.stderr.readline()
        if number == signal.SIGHUP:
            process.send_signal(number)
        client.sendall(MIGRATION.stream("main")[50:])
        client.close()
        out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert "machine type pc-i440fx-10.0" in out
    assert destination.received == [MIGRATION.stream("main")]


def test_a_second_signal_ends_connections(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination) as (process, address), connect(address) as client:
        client.sendall(MIGRATION.stream("main")[:50])
        wait_for(lambda: b"QEVM" in path.read_bytes())
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "interrupt again to end" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert "the main stream has no end" in out


def test_waiting_for_a_full_file_is_told_and_can_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination, room=64) as (process, address):
        migrate(address, destination)
        assert process.stderr is not None
        told = process.stderr.readline()
        assert told.startswith(f"mfdtool: {path}: ")
        assert told.endswith(": waiting until it can be written\n")
        process.send_signal(signal.SIGINT)
        assert "interrupt again to" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LONG)
    assert process.returncode == 4
    assert "Migration 0 to 127.0.0.1:" in out
    assert "mfdtool: not recorded: " in err


def test_nobody_reads_its_messages_any_more(tmp_path: Path) -> None:
    """A terminal is closed, or what it pipes to has ended: the migration goes on."""
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination) as (process, address), connect(address) as client:
        client.sendall(MIGRATION.stream("main")[:50])
        wait_for(lambda: b"QEVM" in path.read_bytes())
        assert process.stderr is not None
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        # Told by a message, if there was anybody to read it.
        wait_for(lambda: not accepts(address))
        client.sendall(MIGRATION.stream("main")[50:])
        client.close()
        process.wait(LONG)
    assert destination.received == [MIGRATION.stream("main")]
    assert run(["info", str(path)]) == 0


def test_its_streams_are_closed(tmp_path: Path) -> None:
    """Nobody hears of it, but the migration is forwarded, and recorded."""
    path, address = tmp_path / "run.pcapng", parse_address(f"unix:{tmp_path}/s")
    destination = Destination()
    program = [sys.executable, "-m", "mfdtool", "record", "proxy", "--listen", str(address)]
    program += ["--to", str(destination.address), "-w", str(path), "--on-full", "block"]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *program]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: accepts(address) or process.poll() is not None)
            migrate(address, destination)
            assert process.wait(LONG) == 5, "the summary cannot be shown"
        finally:
            process.kill()
            destination.close()
    assert captured_in(path) > TOTAL, "with headers"


def accepts(address: Address) -> bool:
    """Whether somebody listens there."""
    try:
        connect(address).close()
    except SinkError:
        return False
    return True


def test_space_that_cannot_be_reserved(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    command = [sys.executable, "-m", "mfdtool", "record", "proxy", "--listen", "tcp:127.0.0.1:0"]
    command += ["--to", "tcp:127.0.0.1:1", "-w", str(path), "--preallocate", "1000000G"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        process.kill()
    assert said.startswith("mfdtool: --preallocate: no space is reserved: ")
    assert path.stat().st_blocks * 512 < 1 << 20


def captured_in(path: Path) -> int:
    """Give how many bytes there are in packets; 0 if the last block is cut."""
    try:
        return sum(record.captured for record in Reader(memoryview(path.read_bytes())))
    except CaptureError:
        return 0


def test_killed_it_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    destination = Destination()
    with proxy(path, destination) as (process, address), connect(address) as client:
        sent = MIGRATION.stream("multifd-0")
        client.sendall(sent)
        # All of it, not as many bytes: blocks have headers, too.
        wait_for(lambda: captured_in(path) > len(sent))
        process.kill()
        process.wait(LONG)
    assert captured_in(path) > len(sent)
    assert run(["info", str(path)]) == 0


def test_nothing_to_listen_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.pcapng"
    arguments = ["record", "proxy", "--to", "tcp:127.0.0.1:1", "-w"]
    assert run([*arguments, str(path), "--listen", f"unix:{tmp_path}/no/where"]) == 5
    assert "cannot listen on unix:" in capsys.readouterr().err
    assert not path.exists()
    near = tmp_path / "near"
    for address in ("tcp:127.0.0.1:0", f"unix:{near}"):
        assert run([*arguments, str(tmp_path / "no" / "f"), "--listen", address]) == 5
        assert "No such file or directory" in capsys.readouterr().err
    assert not near.exists()


def test_a_recording_is_kept_where_nothing_can_be_listened_on(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    path.write_bytes(b"an earlier one")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        arguments = ["record", "proxy", "--listen", address, "--to", "tcp:127.0.0.1:1"]
        assert run([*arguments, "-w", str(path)]) == 5
    assert path.read_bytes() == b"an earlier one"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--listen", "exec:cat"], "neither tcp:HOST:PORT nor unix:PATH"),
        (["--digest"], "--digest goes with --redact"),
        (["--max-files", "3"], "--max-files goes with --max-size"),
        (["--max-size", "64K"], "--max-size is at least 1M"),
        (["--limit-rate", "fast"], "is not a size"),
        (["--listen", "tcp:h:1"], "tcp:h:1 is where it listens itself"),
    ],
)
def test_usage(options: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["record", "proxy", "--listen", "tcp::0", "--to", "tcp:h:1", "-w", "/dev/null"]
    assert run([*common, *options]) == 2
    assert reason in capsys.readouterr().err


def test_progress() -> None:
    nothing = Progress(0, 0, {}, 0, 0, None)
    assert progress_text(nothing, 0) == "waiting · 0 B · 0 B/s"
    busy = Progress(
        9, 9, {ChannelKind.MULTIFD: 8, ChannelKind.MAIN: 1}, 3 << 30, 812, Phase.SWITCHOVER
    )
    assert progress_text(busy, 1.1 * (1 << 30)) == (
        "main, 8 multifd · 3.00 GiB · 1.10 GiB/s · 812 device packets · switchover"
    )


def test_the_group_lists_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["record", "--help"]) == 0
    listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["proxy", "Forward"] in listed
    assert ["device", "Record"] in listed
