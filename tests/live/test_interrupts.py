# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts that come while something is begun."""

from __future__ import annotations

import signal
import subprocess
import sys
from threading import Thread
from typing import Any

import pytest

from mfdtool.cli import run
from mfdtool.live.interrupts import interrupts_held
from mfdtool.live.qemu.launch import Launch, LaunchedQemu
from tests.support.captures import CAPTURES

SLEEPS = f"exec {sys.executable} -c 'import time; time.sleep(600)' #"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Have an interrupt come when a process is there, but nobody has got it yet; give them."""
    found: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            found.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    return found


def statuses_of(started: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Tell how processes have ended, each of which should have; leave none behind."""
    statuses: list[int | None] = []
    for each in started:
        try:
            statuses.append(each.wait(5))
        except subprocess.TimeoutExpired:
            statuses.append(None)
            each.kill()
            each.wait()
        if each.stderr is not None:
            each.stderr.close()
    return statuses


def test_a_command_that_has_just_been_started(started: list[subprocess.Popen[bytes]]) -> None:
    capture = str(CAPTURES / "mtty-4ch-one-packet.pcap.gz")
    assert run(["bisect", capture, "--run", SLEEPS]) == 130
    assert statuses_of(started) == [-signal.SIGKILL]


def test_a_qemu_that_has_just_been_started(started: list[subprocess.Popen[bytes]]) -> None:
    launch = Launch(command=["sh", "-c", SLEEPS], uri="unix:/none/x", channels=2)
    with pytest.raises(KeyboardInterrupt):
        LaunchedQemu(launch).__enter__()
    assert statuses_of(started) == [-signal.SIGKILL]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_counts_and_comes_at_the_end(number: signal.Signals) -> None:
    seen: list[int] = []
    others = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - {number}
    before = {
        each: signal.signal(each, lambda came, _: seen.append(came)) for each in (number, *others)
    }
    try:
        with interrupts_held():
            for each in (number, *others):
                signal.raise_signal(each)
            assert not seen
        assert seen == [number]
        signal.raise_signal(number)
        assert seen == [number] * 2
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts_held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_gets_no_signals() -> None:
    done: list[bool] = []

    def work() -> None:
        with interrupts_held():
            done.append(True)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
