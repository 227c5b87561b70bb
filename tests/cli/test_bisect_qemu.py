# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool bisect --to qemu:...``, with destinations that are pretended."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from mfdtool.cli import run
from mfdtool.errors import SinkError
from mfdtool.loader.state import Outcome
from mfdtool.replay.verdict import Verdict
from mfdtool.workflows import bisect_qemu
from mfdtool.workflows.replay_qemu import Prepared, QemuOptions
from tests.support.captures import CAPTURES
from tests.support.pretended_qemu import LAUNCH, Pretended, sends_idx

GOOD: Final = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
DEVICE: Final = "0000:00:05.0/vfio"
LOST: Final = f"drop:dev={DEVICE},idx=2"
TWICE: Final = f"duplicate:dev={DEVICE},idx=3"
TO: Final = ("--to", "qemu:unix:/run/none", *LAUNCH)

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Give the destination that is pretended."""
    made = Pretended()
    monkeypatch.setattr(bisect_qemu, "replay_into_qemu", made)
    return made


def reduced(capsys: Capsys, *words: str) -> dict[str, Any]:
    assert run(["bisect", GOOD, *words, "--json"]) == 0
    out, _ = capsys.readouterr()
    found: dict[str, Any] = json.loads(out)
    return found


def failing(outcome: Outcome, verdict: Verdict, error: str | None = None) -> Verdict:
    stderr = () if error is None else (error,)
    return replace(verdict, outcome=outcome, error=error, stderr=stderr)


@pytest.mark.parametrize(
    ("fault", "signal"),
    [
        (LOST, None),
        (TWICE, None),
        ("duplicate:main#38", 6),
        (f"set:dev={DEVICE},idx=3:idx=0", None),
    ],
)
def test_foreseen_failures_end_as_on_the_model(
    fault: str, signal: int | None, qemu: Pretended, capsys: Capsys
) -> None:
    """What the model comes down to is confirmed, in fewer tries."""
    words = ("--fault", fault, "--fault", "set:multifd-2#1:packet_num=77")
    model = reduced(capsys, *words)
    found = reduced(capsys, *words, *TO)
    for key in ("outcome", "rule", "device", "sentence", "faults", "packets"):
        assert found[key] == model[key]
    assert found["real"]["signal"] == signal
    assert found["real"]["started"] == len(qemu.runs) < model["tests"] / 3
    assert {options.deadline for options in qemu.options} == {3}
    told = shlex.split(found["reproduce"])
    assert told[-6:] == [*TO[:2], *LAUNCH]


def test_a_stall_takes_few_destinations(qemu: Pretended, capsys: Capsys) -> None:
    """It gives no reason: only what the model judges alike is tried."""
    found = reduced(capsys, "--fault", LOST, *TO)
    assert found["real"] == {"error": None, "signal": None, "started": 3}
    assert found["rule"] == "MFD229"
    assert [len(ready.sends) for ready in qemu.runs][-1] == len(found["packets"]) + 5


def test_text(qemu: Pretended, capsys: Capsys) -> None:
    assert run(["bisect", GOOD, "--fault", TWICE, *TO]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"failed, idx-duplicate, {DEVICE}"
    assert lines[1].startswith("real destination: failed: NAME: state buffer 3 already filled")
    assert lines[2].startswith("cause: idx 3 arrives twice: ")
    assert f" tries, {len(qemu.runs)} of them real" in "\n".join(lines)


def test_progress(qemu: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    """A terminal shows every try, and nothing of it at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(["bisect", GOOD, "--fault", LOST, *TO]) == 0
    shown = capsys.readouterr().err.split("\r")
    assert re.fullmatch(r"0 tries: \d+ items, 1 faults\x1b\[K", shown[1])
    assert shown[-2].startswith(f"{len(shown) - 3} tries: ")
    assert shown[-1] == "\x1b[K"


def test_what_the_model_does_not_know(qemu: Pretended, tmp_path: Path, capsys: Capsys) -> None:
    """The error alone tells that it is the same; the model calls all of it good."""

    def twist(ready: Prepared, verdict: Verdict) -> Verdict:
        if not sends_idx(ready, 1):
            return replace(verdict, outcome=Outcome.COMPLETED)
        return failing(Outcome.FAILED, verdict, f"cannot take 0x{len(ready.sends):x} items: 22")

    qemu.twist = twist
    prefix = str(tmp_path / "unknown")
    assert run(["bisect", GOOD, *TO, "-o", prefix, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["outcome"], found["rule"]) == ("failed", None)
    assert found["real"]["error"].startswith("cannot take 0x")
    assert found["sentence"].endswith("for QEMU to fail; of the whole, the model says: completed")
    # The idx close up, so idx 1 is there as long as there are two packets of the device.
    idx = [packet["idx"] for packet in found["packets"] if "idx" in packet]
    assert sorted(idx) == [0, 1]
    assert err == f"mfdtool: no {prefix}_test.py: only the target fails like this\n"
    assert not Path(f"{prefix}_test.py").exists()
    assert Path(f"{prefix}.pcapng").exists()
    schedule = Path(f"{prefix}.schedule").read_text().strip()
    words = ["replay", f"{prefix}.pcapng", "--order", schedule, "--destination", "channels=4"]
    run([*words, "--destination", f"device={DEVICE}", "--json"])
    assert json.loads(capsys.readouterr().out)["schedule"] == schedule


def test_another_error_is_another_failure(qemu: Pretended, capsys: Capsys) -> None:
    """Without the packet it still fails, but says something else."""

    def twist(ready: Prepared, verdict: Verdict) -> Verdict:
        has_packet = sends_idx(ready, 3)
        return failing(Outcome.FAILED, verdict, "bad packet" if has_packet else "no packet")

    qemu.twist = twist
    found = reduced(capsys, *TO)
    assert found["real"]["error"] == "bad packet"
    assert sorted(packet["idx"] for packet in found["packets"] if "idx" in packet) == [0, 1, 2, 3]


def test_unforeseen_stall_keeps_what_the_model_says(qemu: Pretended, capsys: Capsys) -> None:
    """An empty migration stalls too, but the model knows why."""
    qemu.twist = lambda ready, verdict: failing(Outcome.STALLED, verdict)
    found = reduced(capsys, *TO)
    assert (found["outcome"], found["rule"]) == ("stalled", None)
    assert len(found["packets"]) >= 2
    assert all(run.modelled.verdict.outcome is Outcome.COMPLETED for run in qemu.runs)


def test_bare_signal(qemu: Pretended, capsys: Capsys) -> None:
    qemu.twist = lambda ready, verdict: failing(Outcome.ABORTED, verdict)
    qemu.statuses = {Outcome.ABORTED: -11}
    assert run(["bisect", GOOD, "--fault", LOST, *TO]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["aborted", "real destination: aborted by SIGSEGV"]


def test_device_that_is_reset(qemu: Pretended, capsys: Capsys) -> None:
    """It completes, and the guest has lost the device's state."""

    def twist(ready: Prepared, verdict: Verdict) -> Verdict:
        is_reset = sends_idx(ready, 2)
        devices = tuple(replace(each, reset=is_reset) for each in verdict.devices)
        return replace(verdict, devices=devices)

    qemu.twist = twist
    found = reduced(capsys, *TO)
    assert (found["outcome"], found["device"]) == ("completed", DEVICE)


def test_silent_loss_that_the_destination_shows_too(qemu: Pretended, capsys: Capsys) -> None:
    found = reduced(capsys, "--fault", "drop:main#38", *TO)
    assert (found["outcome"], found["rule"], found["device"]) == ("completed", "MFD510", DEVICE)
    assert qemu.runs


def test_nothing_to_reduce(qemu: Pretended, capsys: Capsys) -> None:
    assert run(["bisect", GOOD, *TO, "--repeat", "3"]) == 1
    assert "it does not fail" in capsys.readouterr().err
    assert len(qemu.runs) == 3


def test_failure_that_changes(qemu: Pretended, capsys: Capsys) -> None:
    numbers = count()

    def twist(ready: Prepared, verdict: Verdict) -> Verdict:
        del ready
        return verdict if not next(numbers) else failing(Outcome.FAILED, verdict, "bad descriptor")

    qemu.twist = twist
    assert run(["bisect", GOOD, "--fault", LOST, *TO]) == 5
    err = capsys.readouterr().err
    assert "not fail in the same way again: first it stalled, then failed: bad descriptor" in err
    assert len(qemu.runs) == 2


def test_flaky_destination_is_asked_again(qemu: Pretended, capsys: Capsys) -> None:
    numbers = count()

    def twist(ready: Prepared, verdict: Verdict) -> Verdict:
        del ready
        return replace(verdict, outcome=Outcome.COMPLETED) if next(numbers) % 2 else verdict

    qemu.twist = twist
    model = reduced(capsys, "--fault", LOST)
    found = reduced(capsys, "--fault", LOST, *TO, "--repeat", "2")
    assert found["packets"] == model["packets"]


def test_destination_that_does_not_start(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    def start(ready: Prepared, options: QemuOptions) -> None:
        raise SinkError("QEMU ended at once: no such device")

    monkeypatch.setattr(bisect_qemu, "replay_into_qemu", start)
    assert run(["bisect", GOOD, "--fault", LOST, *TO]) == 5
    assert "QEMU ended at once: no such device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "qemu:tcp:127.0.0.1:4444"], "a QEMU is started for each try"),
        (["--launch", "qemu"], "--launch goes with --to qemu:..."),
        (["--to", "fd:7", "--launch", "qemu"], "--launch goes with --to qemu:..."),
        (["--to", "qemu:unix:/x", "--launch", "q -incoming tcp:x"], "--launch: it must wait"),
        (["--to", "qemu:unix:/x", "--launch", "q 'x"], "--launch: No closing quotation"),
        (["--to", "qemu:unix:/x", "--launch", "q", "--run", "true"], "exclude each other"),
    ],
)
def test_what_does_not_go_together(words: list[str], told: str, capsys: Capsys) -> None:
    assert run(["bisect", GOOD, *words]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")
