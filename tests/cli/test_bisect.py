# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool bisect`` as a user sees it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, cycle
from pathlib import Path
from typing import Any, Final

import pytest

from mfdtool.cli import bisect as command
from mfdtool.cli import run
from mfdtool.errors import ScheduleError
from mfdtool.explore.bisect import Candidate
from mfdtool.explore.reproduction import Reproduction
from mfdtool.fixtures.items import Item
from mfdtool.live.fd_sink import FdSink
from mfdtool.report import verdict
from mfdtool.stream.frames import Kind
from mfdtool.workflows import bisect_alone, replay
from mfdtool.workflows.replay import Plan
from tests.support.captures import CAPTURES
from tests.support.proxying import wait_for

ROOT: Final = Path(__file__).parents[2]
GOOD: Final = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
SMALL: Final = str(CAPTURES / "mtty-4ch-one-packet.pcap.gz")
DEVICE: Final = "0000:00:05.0/vfio"
LOST: Final = f"drop:dev={DEVICE},idx=2"

Capsys = pytest.CaptureFixture[str]


def test_a_good_migration_has_nothing_to_reduce(capsys: Capsys) -> None:
    assert run(["bisect", GOOD]) == 1
    assert "it does not fail" in capsys.readouterr().err


FAILURES: Final = {
    "lost-packet": [f"drop:dev={DEVICE},idx=2"],
    "silent-loss": ["drop:main#38"],
    "idx-allocation": ["set:multifd-1#19:idx=4294967294"],
    "idx-invalid": ["set:multifd-1#21:idx=4294967295"],
    "device-packet-empty": ["set:multifd-1#21:next_packet_size=0"],
    "device-unknown": ["set:multifd-1#21:instance_id=1"],
    "config-marker": ["set:multifd-1#19:flags=1"],
    "packet-truncated": ["set:multifd-1#21:packet_flags=0"],
    "error-before-a-stall": ["truncate:multifd-1#21:288"],
    "error-before-a-flush": ["corrupt:multifd-1#19:272+1"],
    "marker-unknown": ["drop:main#16"],
    "disconnect": ["disconnect:multifd-1#19:rst"],
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_files_fail_in_the_same_way(name: str, tmp_path: Path, capsys: Capsys) -> None:
    prefix = str(tmp_path / "cause")
    faults = [word for fault in FAILURES[name] for word in ("--fault", fault)]
    assert run(["bisect", GOOD, *faults, "-o", prefix, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    files = [f"{prefix}.pcapng", f"{prefix}.schedule", f"{prefix}_test.py"]
    assert shown["files"] == files
    command = shlex.split(shown["reproduce_files"])
    assert command[:5] == ["mfdtool", "replay", files[0], "--order", f"file:{files[1]}"]
    run([*command[1:], "--json"])
    judged = json.loads(capsys.readouterr().out)
    assert judged["outcome"] == shown["outcome"]
    found = {(each["rule"], each["device"]) for each in judged["findings"]}
    assert name == "silent-loss" or (shown["rule"], shown["device"]) in found
    assert run(["info", files[0]]) in {0, 4}
    assert "--order file:cause.schedule --profile 10.0" in capsys.readouterr().out


def test_what_has_to_stay_is_told(tmp_path: Path, capsys: Capsys) -> None:
    words = ["bisect", GOOD, "--fault", "set:multifd-1#21:instance_id=1"]
    assert run([*words, "-o", str(tmp_path / "cause")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "of these only because the rest, alone, would not be taken for what it is: main FileHeader"
        in lines
    )
    assert lines[-1].startswith(f"repeat what is left with: mfdtool replay {tmp_path}/cause.pcapng")


def test_what_cannot_be_written_is_told(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(candidate: Candidate) -> Reproduction:
        raise ScheduleError("multifd-2#21 is not whole in the capture")

    monkeypatch.setattr(bisect_alone, "reproduction_of", lacking)
    words = ["bisect", GOOD, "--fault", LOST]
    assert run([*words, "-o", str(tmp_path / "cause")]) == 5
    out, err = capsys.readouterr()
    assert out.startswith("stalled, device-unfinished")
    assert "repeat what is left" not in out
    assert err == f"mfdtool: no {tmp_path}/cause.pcapng: multifd-2#21 is not whole in the capture\n"
    assert not list(tmp_path.iterdir())
    # Without -o nothing is missing.
    assert run(words) == 0


def test_a_target_gets_no_test(tmp_path: Path, capsys: Capsys) -> None:
    with Path("/dev/full").open("wb") as full:
        target = ["--to", f"fd:{full.fileno()}"]
        assert run(["bisect", GOOD, *target, "-o", str(tmp_path / "cause"), "--json"]) == 0
        out, err = capsys.readouterr()
        assert "only the target fails like this" in err
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "cause.pcapng",
            "cause.schedule",
        ]
        command = shlex.split(json.loads(out)["reproduce_files"])
        assert command[-2:] == target
        assert run(command[1:]) == 5
        assert "MFD508" in capsys.readouterr().out


def test_files_of_a_cause(tmp_path: Path, capsys: Capsys) -> None:
    prefix = tmp_path / "lost"
    assert run(["bisect", GOOD, "--fault", LOST, "-o", str(prefix), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] == "stalled"
    assert shown["rule"] == "MFD229"
    assert shown["faults"] == [LOST]
    capture, schedule = f"{prefix}.pcapng", f"{prefix}.schedule"
    words = ["--destination", "channels=4", "--destination", "device=0000:00:05.0/vfio"]
    assert run(["replay", capture, "--order", f"file:{schedule}", *words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["outcome"] == "stalled"
    text = Path(f"{prefix}_test.py").read_text()
    compile(text, "lost_test.py", "exec")
    assert "never arrives" in text


def test_a_folder_that_is_not_there_is_told_before_anything_is_tried(
    tmp_path: Path, capsys: Capsys
) -> None:
    prefix = tmp_path / "no" / "lost"
    assert run(["bisect", GOOD, "--fault", LOST, "-o", str(prefix)]) == 2
    assert f"--output: there is no folder {tmp_path / 'no'}" in capsys.readouterr().err


def test_a_cause_that_cannot_be_written_is_shown(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "lost.schedule").mkdir()
    assert run(["bisect", GOOD, "--fault", LOST, "-o", str(tmp_path / "lost")]) == 5
    shown = capsys.readouterr()
    assert shown.err == f"mfdtool: {tmp_path / 'lost.schedule'}: Is a directory\n"
    assert f"idx 2 of {DEVICE} never arrives" in shown.out
    assert "repeat what is left" not in shown.out


def test_the_written_test_passes(tmp_path: Path) -> None:
    assert run(["bisect", GOOD, "--fault", LOST, "-o", str(tmp_path / "lost")]) == 0
    assert "1 passed" in said_of(tmp_path / "lost_test.py", str(tmp_path))


def said_of(file: Path, path: str) -> str:
    """Let pytest run a file; give what it says."""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name],
        cwd=file.parent,
        env={"PATH": path, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return result.stdout + result.stderr


def test_a_command_says_what_is_bad(tmp_path: Path, capsys: Capsys) -> None:
    script = tmp_path / "judge.sh"
    # Bad is a capture in which the words of the config packet's device still are.
    script.write_text('#!/bin/sh\ngrep -q "00:05.0/vfio" "$1" && exit 1\nexit 0\n')
    script.chmod(0o755)
    prefix = str(tmp_path / "cause")
    assert run(["bisect", GOOD, "--run", str(script), "-o", prefix, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["packets"]) == 1
    assert shown["files"] == [f"{prefix}.pcapng", f"{prefix}.schedule", f"{prefix}_test.py"]
    assert shlex.split(shown["reproduce_files"]) == [str(script), f"{prefix}.pcapng"]
    schedule = ["--order", f"file:{prefix}.schedule"]
    assert run(["replay", f"{prefix}.pcapng", *schedule]) == 1
    # The written test asks the command, whatever it says.
    assert "1 passed" in said_of(tmp_path / "cause_test.py", "/usr/bin:/bin")
    for status in (0, 125, 128):
        script.write_text(f"#!/bin/sh\nexit {status}\n")
        assert "1 failed" in said_of(tmp_path / "cause_test.py", "/usr/bin:/bin")


def test_a_command_that_takes_too_long_is_bad_in_the_written_test_too(tmp_path: Path) -> None:
    script = tmp_path / "judge.sh"
    script.write_text('#!/bin/sh\ngrep -q "00:05.0/vfio" "$1" && sleep 60\nexit 0\n')
    script.chmod(0o755)
    reproduction = Reproduction(
        (Item("main", Kind.MAIN_SECTION_START, (), b"00:05.0/vfio"),), is_closed=False
    )
    text = reproduction.command_test(f"exec {script}", "too long", timeout=0.5)
    (tmp_path / "cause_test.py").write_text(text)
    assert "1 passed" in said_of(tmp_path / "cause_test.py", "/usr/bin:/bin")


def test_no_schedule_of_what_is_no_migration_any_more(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "judge.sh"
    script.write_text('#!/bin/sh\ngrep -q "00:05.0/vfio" "$1" && exit 1\nexit 0\n')
    script.chmod(0o755)
    monkeypatch.setattr(Reproduction, "observation", lambda _: None)
    prefix = str(tmp_path / "cause")
    assert run(["bisect", GOOD, "--run", str(script), "-o", prefix, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == [f"{prefix}.pcapng", f"{prefix}_test.py"]
    assert err == f"mfdtool: no {prefix}.schedule: what is left is no single migration any more\n"


@pytest.mark.parametrize(
    ("status", "exit_status", "said"),
    [(0, 1, "nothing to reduce"), (125, 5, "cannot say whether the whole recording fails")],
)
def test_a_command_that_finds_nothing_bad(
    tmp_path: Path, status: int, exit_status: int, said: str, capsys: Capsys
) -> None:
    script = tmp_path / "judge.sh"
    script.write_text(f"#!/bin/sh\nexit {status}\n")
    script.chmod(0o755)
    assert run(["bisect", GOOD, "--fault", LOST, "--run", str(script)]) == exit_status
    assert said in capsys.readouterr().err


def test_a_command_can_stop_it(tmp_path: Path, capsys: Capsys) -> None:
    script = tmp_path / "judge.sh"
    script.write_text("#!/bin/sh\nexit 130\n")
    script.chmod(0o755)
    assert run(["bisect", GOOD, "--run", str(script)]) == 5
    assert "bisect stops" in capsys.readouterr().err


def test_a_flaky_command_is_asked_again(tmp_path: Path, capsys: Capsys) -> None:
    script = tmp_path / "judge.sh"
    count = tmp_path / "count"
    # Every other run fails, as long as there is a packet of the device.
    script.write_text(
        f"#!/bin/sh\necho >> {count}\n[ $(($(wc -l < {count}) % 2)) = 0 ] || exit 0\n"
        'grep -q "00:05.0/vfio" "$1" && exit 1\nexit 0\n'
    )
    script.chmod(0o755)
    assert run(["bisect", GOOD, "--run", str(script), "--repeat", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["packets"]) == 1


def test_what_a_command_finds_is_not_the_models(tmp_path: Path, capsys: Capsys) -> None:
    prefix = str(tmp_path / "cause")
    judge = """sh -c 'grep -q "00:05.0/vfio" "$0" && exit 1; exit 0'"""
    words = ["bisect", GOOD, "--fault", LOST, "--run", judge]
    assert run([*words, "-o", prefix]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"bad, says {judge!r}"
    assert lines[1].startswith(f"cause: 1 item is enough for {judge!r}; the model: failed, ")
    assert lines[-1] == f"repeat what is left with: {judge} {prefix}.pcapng"
    # The model, which nobody has asked, has no part in the test.
    assert 'mfdtool", "replay' not in (tmp_path / "cause_test.py").read_text()
    again = subprocess.run(f"{judge} {prefix}.pcapng", shell=True, check=False)
    assert again.returncode == 1
    assert run([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["command"], shown["outcome"], shown["faults"]) == (judge, "failed", [])


@pytest.mark.parametrize(
    "judge",
    ["no-such-command", "false", f"sh -c '{sys.executable} -m mfdtool info \"$0\"; exit 1'"],
)
def test_a_command_that_calls_everything_bad(judge: str, capsys: Capsys) -> None:
    assert run(["bisect", GOOD, "--run", judge]) == 5
    assert "does not tell this failure from others" in capsys.readouterr().err


@pytest.mark.parametrize("judge", ["", "  "])
def test_an_empty_command(judge: str, capsys: Capsys) -> None:
    assert run(["bisect", GOOD, "--run", judge]) == 2
    assert "--run: there is no command" in capsys.readouterr().err


def test_a_command_that_takes_too_long_ends_with_all_it_has_started(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    pids.touch()

    class Watched(subprocess.Popen[bytes]):
        """Has had its time when it sleeps, however busy the machine is."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.before = pids.read_text()
            super().__init__(*arguments, **named)

        def wait(self, timeout: float | None = None) -> int:
            if timeout == 1:
                wait_for(lambda: self.poll() is not None or pids.read_text() != self.before)
                timeout = 0
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    # The shell waits for a process of its own, as it has something to do behind it.
    script = f"sh -c 'grep -q 00:05.0/vfio $0 || exit 0; sleep 600 & echo $! >> {pids}; wait'"
    assert run(["bisect", SMALL, "--run", script, "--timeout", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["packets"]) == 1
    started = [int(line) for line in pids.read_text().split()]
    assert started
    # A process that is killed ends when it gets a core.
    wait_for(lambda: not any(map(is_running, started)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_command(number: signal.Signals, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sh -c 'sleep 600 & echo $! >> {pids}; wait'"
    with subprocess.Popen(
        [sys.executable, "-m", "mfdtool", "bisect", GOOD, "--run", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        try:
            while not (pids.exists() and pids.read_text().strip()) and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
    wait_for(lambda: not is_running(int(pids.read_text())))


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_an_order_that_is_too_long_for_a_command(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cookbook's exploration has found needs another order than the recorded one."""
    text = (ROOT / "docs" / "cookbook" / "config-lowered.md").read_text()
    found = next(line for line in text.splitlines() if "idx=0' --order" in line)
    _, _, _, *options, schedule = shlex.split(found)
    words = ["bisect", GOOD, *options, schedule]
    monkeypatch.setattr(replay, "_LONGEST_WORD", 100)
    monkeypatch.setattr(verdict, "_SCHEDULE_SHOWN", 30)
    assert run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("repeat with: mfdtool replay with --order file:FILE, a file with ")
    assert lines[-1].endswith(" characters, all of them in --json)")
    assert run([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["reproduce"] is None
    assert shown["whole_schedule"] == schedule


def test_a_timeout_is_of_a_command(capsys: Capsys) -> None:
    assert run(["bisect", GOOD, "--timeout", "3"]) == 2
    assert "--timeout is for --run" in capsys.readouterr().err


def test_run_and_to_exclude_each_other(capsys: Capsys) -> None:
    assert run(["bisect", GOOD, "--run", "true", "--to", "fd:7"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_target_can_be_asked(tmp_path: Path, capsys: Capsys) -> None:
    with (tmp_path / "device").open("wb") as device:
        arguments = ["bisect", GOOD, "--fault", LOST, "--to", f"fd:{device.fileno()}", "--json"]
        assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rule"] == "MFD229"
    with (tmp_path / "device").open("wb") as device:
        assert run([*arguments[:-2], f"fd:{device.fileno()}", "--device", "00:05.0"]) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"--policy eager --to fd:{device.fileno()} --device 00:05.0\n")


def test_a_target_that_fails_by_itself(capsys: Capsys) -> None:
    with Path("/dev/full").open("wb") as full:
        target = ["--to", f"fd:{full.fileno()}"]
        assert run(["bisect", GOOD, *target]) == 0
        lines = capsys.readouterr().out.splitlines()
        command = shlex.split(lines[-1].removeprefix("repeat with: "))
        assert command[-2:] == target
        assert run(command[1:]) == 5
        assert "No space left on device" in capsys.readouterr().out
        assert run(["bisect", GOOD, *target, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["outcome"], shown["rule"], shown["device"]) == ("failed", "MFD508", DEVICE)
    assert lines[0] == f"failed, main-data-write, {DEVICE}"
    sentence = "main#15: write of 16 bytes failed: errno 28 (No space left on device)"
    assert lines[1] == f"cause: {sentence}"
    assert shown["sentence"] == sentence


def test_a_target_that_fails_only_now_and_then(tmp_path: Path, capsys: Capsys) -> None:
    now_and_then: Iterator[bool] = cycle([True, True, False])

    @contextmanager
    def opened(made: Plan, *, agreed: bool) -> Iterator[FdSink]:
        path = Path("/dev/full") if next(now_and_then) else tmp_path / "device"
        with path.open("wb") as file, FdSink(file.fileno(), 0) as sink:
            yield sink

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open_target", opened)
        assert run(["bisect", GOOD, "--to", "fd:9", "--repeat", "2"]) == 0
        assert capsys.readouterr().out.startswith("failed, main-data-write")
        now_and_then = chain([True], cycle([False]))
        assert run(["bisect", GOOD, "--to", "fd:9"]) == 5
    assert "now completed; --repeat N tries more often" in capsys.readouterr().err
