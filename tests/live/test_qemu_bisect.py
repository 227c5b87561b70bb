# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures of real QEMUs on this machine: reduced, confirmed, and interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from mfdtool.cli import run
from tests.live.test_qemu_launch import QEMU, launch_of
from tests.support.captures import CAPTURES

ROOT: Final = Path(__file__).parents[2]
RAM: Final = str(CAPTURES / "ram-zlib.pcap.gz")
NO_SYNC: Final = ("--fault", "drop:multifd-1#9")
PATIENCE: Final = 60
INTERVAL: Final = 0.05

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"there is no {QEMU}"),
]

Capsys = pytest.CaptureFixture[str]


def test_stall(tmp_path: Path, capsys: Capsys) -> None:
    """A flush without SYNC: three QEMUs will do, as it is what the model says."""
    words = ["--to", f"qemu:unix:{tmp_path}/qemu", "--launch", launch_of(tmp_path)]
    assert run(["bisect", RAM, *NO_SYNC, *words, "--deadline", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["outcome"], found["rule"]) == ("stalled", "MFD301")
    assert found["faults"] == [NO_SYNC[1]]
    assert found["real"] == {"error": None, "signal": None, "started": 3}


def test_what_only_qemu_knows(tmp_path: Path, capsys: Capsys) -> None:
    """The machine has more memory than the source had: the first RAM record is enough."""
    words = ["--to", f"qemu:unix:{tmp_path}/qemu", "--launch", launch_of(tmp_path, memory=8)]
    prefix = tmp_path / "size"
    assert run(["bisect", RAM, *words, "--deadline", "5", "-o", str(prefix), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    error = "Size mismatch: pc.ram: 0x400000 != 0x800000: Invalid argument"
    assert (found["outcome"], found["rule"], found["real"]["error"]) == ("failed", None, error)
    what = [packet["what"] for packet in found["packets"]]
    assert what == ["FileHeader", "Configuration", "SectionStart", "RamRecord"]
    # The capture of it fails in the same way.
    order = f"file:{prefix}.schedule"
    words += ["--destination", "channels=2", "--destination", "device=none", "--json"]
    assert run(["replay", f"{prefix}.pcapng", "--order", order, *words]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == error


def test_nothing_to_reduce(tmp_path: Path, capsys: Capsys) -> None:
    words = ["--to", f"qemu:unix:{tmp_path}/qemu", "--launch", launch_of(tmp_path)]
    assert run(["bisect", RAM, *words]) == 1
    assert "it does not fail" in capsys.readouterr().err


def test_confirmed(tmp_path: Path, capsys: Capsys) -> None:
    words = ["--confirm", f"qemu:unix:{tmp_path}/qemu", "--launch", launch_of(tmp_path)]
    assert run(["explore", RAM, "--jobs", "1", *words, "--json"]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)["outcomes"]
    assert (outcome["outcome"], outcome["confirmed"]["outcome"]) == ("completed", "completed")
    assert outcome["confirmed"]["agrees"]


def test_not_confirmed(tmp_path: Path, capsys: Capsys) -> None:
    launch = launch_of(tmp_path, memory=8)
    words = ["--confirm", f"qemu:unix:{tmp_path}/qemu", "--launch", launch]
    assert run(["explore", RAM, "--jobs", "1", *words]) == 1
    out = capsys.readouterr().out
    assert "\n  differs: outcome: the model has completed, QEMU has failed\n" in out


def without_sync(folder: Path) -> list[str]:
    """Give the migration as streams of which one ends behind its handshake: QEMU stalls."""
    words = []
    for option, name in (("main", "main"), ("multifd", "multifd-0"), ("multifd", "multifd-1")):
        path = folder / name
        assert run(["extract", RAM, "--channel", name, "-o", str(path)]) == 0
        words += [f"--{option}", str(path)]
    os.truncate(path, 64)
    return words


@pytest.mark.parametrize("command", ["bisect", "explore"])
def test_interrupt_leaves_nothing_behind(command: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/interrupted"
    launch = launch_of(tmp_path)
    options = [f"qemu:unix:{path}", "--launch", f"{launch} -name {path}", "--deadline", "60"]
    if command == "bisect":
        options = [RAM, *NO_SYNC, "--to", *options]
    else:
        options = [*without_sync(tmp_path), "--jobs", "1", "--confirm", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "mfdtool", command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not qemus(path) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(INTERVAL)
            assert qemus(path)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not qemus(path)


def qemus(name: str) -> list[str]:
    """List QEMUs by a word of their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if line[0].endswith(QEMU.encode()) and name.encode() in line:
            found.append(path.parent.name)
    return found
