# SPDX-License-Identifier: GPL-2.0-or-later
"""The program as a whole: how it starts, and how it ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

import mfdtool.cli
from mfdtool import __version__
from mfdtool.cli import COMMANDS, Target, cli, run
from mfdtool.cli.status import ExitStatus, status_of_error
from mfdtool.errors import CaptureError, ScheduleError, SinkError, WireError
from tests.support.captures import CAPTURES

CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
INSTALLED = [name for name, target in COMMANDS.items() if find_spec(target.module)]


def raising(error: BaseException) -> Callable[[click.Context], None]:
    def invoke(ctx: click.Context) -> None:
        raise error

    return invoke


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from mfdtool.cli import run; status = run(['--help']);"
        "heavy = {'numpy', 'scapy', 'construct', 'rich', 'zstandard'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in INSTALLED:
        assert f"  {name} " in done.stdout
        assert COMMANDS[name].help in done.stdout


@pytest.mark.parametrize("name", INSTALLED)
def test_commands_load_and_explain_themselves(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: mfdtool {name} ")


def test_a_command_that_is_not_installed_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mfdtool.cli, "COMMANDS", {"ghost": Target("mfdtool.cli.ghost", "Haunt.")})
    assert run(["--help"]) == 0
    assert "ghost" not in capsys.readouterr().out
    assert run(["ghost"]) == 2
    assert "No such command 'ghost'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"mfdtool {__version__}\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (CaptureError("is empty", path="x.pcap"), 3, "mfdtool: x.pcap: is empty\n"),
        (WireError("bad", offset=4), 3, "mfdtool: offset 4: bad\n"),
        (ScheduleError("not of this trace"), 3, "mfdtool: not of this trace\n"),
        (SinkError("refused"), 5, "mfdtool: refused\n"),
        (OSError(28, "No space left on device"), 5, "mfdtool: No space left on device\n"),
        (OSError(28, "No space left", "out.bin"), 5, "mfdtool: out.bin: No space left\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_errors(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    command = click.Command("fails", callback=click.pass_context(raising(error)))
    monkeypatch.setattr(cli, "get_command", lambda ctx, name: command)
    assert run(["fails"]) == status
    assert capsys.readouterr().err == message


def test_statuses_of_errors() -> None:
    assert status_of_error(CaptureError("x")) is ExitStatus.INPUT
    assert status_of_error(SinkError("x")) is ExitStatus.LIVE


def test_main_exits_with_the_status_and_all_output() -> None:
    """In a process of its own: ``main`` does not come back."""
    command = [sys.executable, "-m", "mfdtool", "fields", "no_such_field"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitStatus.USAGE
    assert "no_such_field" in done.stderr
    done = subprocess.run([*command[:-1], "idx"], capture_output=True, text=True, check=False)
    assert done.returncode == ExitStatus.OK
    assert "idx" in done.stdout


class Broken(io.StringIO):
    """Output that cannot be written out; it says that it is the file ``number``."""

    def __init__(self, error: OSError, number: int) -> None:
        super().__init__()
        self._error = error
        self._number = number

    def fileno(self) -> int:
        return self._number

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError(28, "No space left"), 5, "mfdtool: standard output: No space left\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_output_that_cannot_be_flushed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: OSError,
    status: int,
    message: str,
) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        monkeypatch.setattr(sys, "stdout", Broken(error, file.fileno()))
        command = click.Command("silent", callback=lambda: ExitStatus.OK)
        monkeypatch.setattr(cli, "get_command", lambda ctx, name: command)
        assert run(["silent"]) == status
        file.write(b"goes to the null device by now")
    assert path.read_bytes() == b""
    assert capsys.readouterr().err == message


def test_nobody_reads_the_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        broken = Broken(BrokenPipeError(32, "Broken pipe"), file.fileno())
        monkeypatch.setattr(sys, "stdout", broken)
        assert run(["--version"]) == ExitStatus.PIPE


def test_a_failed_write_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (tmp_path / "out").open("wb") as file:
        monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left"), file.fileno()))
        assert run(["decode", CLEAN]) == ExitStatus.LIVE
    assert capsys.readouterr().err == "mfdtool: standard output: No space left\n"


# Output that goes nowhere; only a real process shows what happens when it ends.


def program(arguments: list[str], stdout: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mfdtool", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_nobody_reads_the_output() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mfdtool", "decode", "-T", "jsonl", CLEAN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == ExitStatus.PIPE


def test_no_space_for_the_output() -> None:
    with Path("/dev/full").open("wb") as full:
        status, message = program(["decode", CLEAN], full.fileno())
    assert (status, message) == (5, "mfdtool: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("closed", "words", "status"),
    [
        ("<&-", ["info", CLEAN], 0),
        ("<&-", ["info", "-"], 3),
        (">&-", ["info", CLEAN], 5),
        ("2>&-", ["info", CLEAN], 0),
        ("2>&-", ["info", "/none"], 3),
        ("<&- >&- 2>&-", ["info", CLEAN], 5),
    ],
)
def test_streams_that_are_closed(closed: str, words: list[str], status: int) -> None:
    """It ends as it does where nothing can be read or written, and without a traceback."""
    program = [sys.executable, "-m", "mfdtool", *words]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (status == 0)


@pytest.mark.parametrize(
    ("words", "status"),
    [(["info", "/none"], 3), (["info", "--none"], 2), (["decode", CLEAN], 5)],
)
def test_nobody_reads_the_messages(words: list[str], status: int) -> None:
    """The status tells all the same, also where a closed terminal takes neither output."""
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mfdtool", *words], stdout=full, stderr=writer, check=False
        )
    os.close(writer)
    assert done.returncode == status
