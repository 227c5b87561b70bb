# SPDX-License-Identifier: GPL-2.0-or-later
"""Destinations of our own: what is added to a command line, and real QEMUs on this machine."""

from __future__ import annotations

import json
import os
import shlex
import socket
from pathlib import Path
from threading import Thread

import pytest

from mfdtool.cli import run
from mfdtool.errors import SinkError
from mfdtool.live.qemu.launch import Launch, LaunchedQemu, completed_command
from tests.support.captures import CAPTURES
from tests.support.programs import need_program

QEMU = "qemu-system-x86_64"
ADDED = ["-qmp", "unix:/run/m,server=on,wait=off"]
TRACES = ["-trace", "vfio_load*", "-trace", "multifd_recv*", "-trace", "loadvm*"]


@pytest.fixture
def _qemu() -> None:
    need_program(QEMU)


def test_what_is_added() -> None:
    assert completed_command([QEMU], "/run/m") == [QEMU, "-incoming", "defer", *TRACES, *ADDED]
    given = [QEMU, "-incoming", "defer", "-trace", "loadvm*"]
    assert completed_command(given, "/run/m") == [*given, *TRACES[:4], *ADDED]
    assert completed_command([QEMU, "--incoming", "defer"], "/run/m")[:3] == [
        QEMU,
        "--incoming",
        "defer",
    ]


@pytest.mark.parametrize("words", [["-incoming"], ["-incoming", "tcp:0:4444"]])
def test_what_waits_otherwise(words: list[str]) -> None:
    with pytest.raises(ValueError, match="-incoming defer"):
        completed_command([QEMU, *words], "/run/m")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "there is no command"),
        ([QEMU, "-daemonize"], "with -daemonize nobody could watch it"),
        ([QEMU, "--daemonize"], "with -daemonize nobody could watch it"),
    ],
)
def test_what_cannot_be_ended(words: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        completed_command(words, "/run/m")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/none/qemu"], "/none/qemu: there is no such program"),
        (["sh", "-c", "echo bad option >&2; exit 1", "qemu"], "QEMU ended at once: bad option"),
        (["false"], "QEMU ended at once: without a word"),
    ],
)
def test_what_does_not_start(command: list[str], told: str) -> None:
    launch = Launch(command=command, uri="unix:/none/x", channels=2)
    with pytest.raises(SinkError) as raised:
        LaunchedQemu(launch).__enter__()
    assert str(raised.value) == told


def launch_of(folder: Path, *, memory: int = 4) -> str:
    """Give a command line for the machine of the RAM samples: captures/MANIFEST.toml."""
    firmware = folder / "firmware"
    firmware.write_bytes(bytes(0x10000))
    return (
        f"{QEMU} -accel tcg -machine pc-i440fx-10.0 -m {memory} -nodefaults -no-user-config"
        f" -display none -S -bios {shlex.quote(str(firmware))}"
    )


@pytest.mark.live
@pytest.mark.usefixtures("_qemu")
@pytest.mark.parametrize("name", ["ram-zlib", "ram-zstd", "ram-return-path"])
def test_ram_goes_into_a_real_destination(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["replay", str(CAPTURES / f"{name}.pcap.gz"), "--to", f"qemu:unix:{tmp_path}/qemu"]
    assert run([*words, "--launch", launch_of(tmp_path), "--compare", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert (found["outcome"], found["sink"], found["order"]) == ("completed", "qemu", "advisory")
    assert (found["stderr"], found["differences"], found["devices"]) == ([], [], [])
    if name == "ram-return-path":
        assert found["return_path"] == ["PONG 1", "SHUT 0"]


@pytest.mark.live
@pytest.mark.usefixtures("_qemu")
def test_stray_bytes_stop_a_real_destination_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three bytes of a packet, and what follows them, are no header: the threads end, it waits."""
    words = ["replay", str(CAPTURES / "ram-zlib.pcap.gz"), "--fault", "truncate:multifd-0#2:3"]
    words += ["--to", f"qemu:unix:{tmp_path}/qemu", "--launch", launch_of(tmp_path)]
    assert run([*words, "--compare", "--deadline", "5", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["outcome"], found["differences"]) == ("stalled", [])


@pytest.mark.live
@pytest.mark.usefixtures("_qemu")
def test_another_machine_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The launched QEMU has more memory than the source had, and says so."""
    words = ["replay", str(CAPTURES / "ram-zlib.pcap.gz"), "--to", f"qemu:unix:{tmp_path}/qemu"]
    assert run([*words, "--launch", launch_of(tmp_path, memory=8), "--compare"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("migration 0: failed")
    assert "Size mismatch: pc.ram: 0x400000 != 0x800000: Invalid argument" in text
    assert "  exit status 1\n" in text
    assert "  differs: outcome: the model has completed, QEMU has failed\n" in text


@pytest.mark.live
@pytest.mark.usefixtures("_qemu")
def test_destination_that_waits_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only connecting: the return path tells how it ended."""
    uri = f"unix:{tmp_path}/qemu"
    launch = Launch(command=shlex.split(launch_of(tmp_path)), uri=uri, channels=0)
    with LaunchedQemu(launch) as qemu:
        words = ["replay", str(CAPTURES / "ram-return-path.pcap.gz"), "--to", f"qemu:{uri}"]
        assert run([*words, "--compare", "--deadline", "60"]) == 0
        assert qemu.migration_status(seconds=60) == "completed"
        process = qemu._process.pid
    text = capsys.readouterr().out
    assert text.startswith("migration 0: completed")
    assert "its trace is not known" in text
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.live
@pytest.mark.usefixtures("_qemu")
def test_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", str(CAPTURES / "ram-zlib.pcap.gz"), "--to", f"qemu:unix:{tmp_path}/qemu"]
    assert run([*words, "--launch", launch_of(tmp_path), "--trace"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("multifd_recv_")
    assert "loadvm_state_cleanup" in out
    assert err.startswith("mfdtool: repeat with: mfdtool replay ")


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", str(CAPTURES / "ram-zlib.pcap.gz"), "--to", f"qemu:unix:{tmp_path}/none"]
    assert run(words) == 5
    wanted = f"cannot connect to unix:{tmp_path}/none: No such file or directory"
    assert wanted in capsys.readouterr().err


def test_socket_that_was_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of a destination that has gone."""
    path = str(tmp_path / "deaf")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        server.close()
        words = ["replay", str(CAPTURES / "ram-zlib.pcap.gz"), "--to", f"qemu:unix:{path}"]
        assert run(words) == 5
    assert f"cannot connect to unix:{path}: Connection refused" in capsys.readouterr().err


def test_outcome_that_nobody_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without monitor and return path a destination that closes says nothing."""
    path = str(tmp_path / "deaf")

    def receive(server: socket.socket) -> None:
        links = [server.accept()[0] for _ in range(3)]
        for link in links:
            with link:
                while link.recv(1 << 20):
                    pass

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        thread = Thread(target=receive, args=(server,))
        thread.start()
        words = ["replay", str(CAPTURES / "ram-zlib.pcap.gz"), "--to", f"qemu:unix:{path}"]
        assert run([*words, "--compare", "--deadline", "20"]) == 5
        thread.join()
    out, err = capsys.readouterr()
    assert out.startswith(
        "migration 0: not known (QEMU 10.0)\n  into qemu, the order is advisory\n"
    )
    assert "differs: outcome: the model has completed, QEMU has none" in out
    assert err.startswith("mfdtool: only its own monitor knows how it ended: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--launch", "x"], "--launch and --compare go with --to qemu:"),
        (["--compare"], "--launch and --compare go with --to qemu:"),
        (["--to", "qemu:unix:/x", "--until", "main#1"], "look into the model, not into a QEMU"),
        (["--to", "qemu:unix:/x", "--launch", "q -incoming tcp:x"], "--launch: it must wait"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(CAPTURES / "ram-zlib.pcap.gz"), *words]) == 2
    assert told in capsys.readouterr().err
