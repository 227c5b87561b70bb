# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool explore``: what it finds in real recordings, its options and exit statuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mfdtool.cli import run
from mfdtool.errors import ScheduleError
from mfdtool.report import verdict
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import Fault
from mfdtool.schedule.observation import Observation
from mfdtool.workflows import explore as workflow
from mfdtool.workflows import replay
from tests.support.captures import CAPTURES
from tests.support.clusters import local_cluster
from tests.support.vectors import VECTORS

CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
SMALL = str(CAPTURES / "mtty-4ch-one-packet.pcap.gz")
DEVICE = "0000:00:05.0/vfio"

Capsys = pytest.CaptureFixture[str]


def explored(capsys: Capsys, *words: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["explore", *words, "--json"]) == status
    out, err = capsys.readouterr()
    assert not err
    found: dict[str, Any] = json.loads(out)
    return found


def replayed(capsys: Capsys, command: str) -> dict[str, Any]:
    words = shlex.split(command)
    assert words[:2] == ["mfdtool", "replay"]
    run([*words[1:], "--json"])
    verdict: dict[str, Any] = json.loads(capsys.readouterr().out)
    return verdict


def essence(found: dict[str, Any]) -> dict[str, Any]:
    """Give what does not depend on how the work was shared out."""
    outcomes = [
        {key: outcome[key] for key in ("outcome", "rule", "device", "faults", "count")}
        for outcome in found["outcomes"]
    ]
    keys = ("explored", "total", "complete", "variants")
    return {**{key: found[key] for key in keys}, "outcomes": outcomes}


def test_good_recording_completes_in_all_orders(capsys: Capsys) -> None:
    found = explored(capsys, CLEAN, "--jobs", "1")
    assert (found["explored"], found["total"], found["complete"]) == (48, 48, True)
    assert found["unit"] == "orders of device packets"
    (outcome,) = found["outcomes"]
    assert (outcome["outcome"], outcome["rule"], outcome["count"]) == ("completed", None, 48)
    assert outcome["schedule"].startswith("mfd1:d6fae27a86cb:steps:")
    assert replayed(capsys, outcome["reproduce"])["outcome"] == "completed"
    assert found["worst_queue"]["bytes"] == 4204
    assert found["worst_queue"]["device"] == DEVICE
    coverage = found["coverage"]
    assert coverage["reached"] + len(coverage["missing"]) == coverage["of"]


@pytest.mark.parametrize(
    ("budget", "outcome", "name", "fault"),
    [
        ("set=1", "aborted", "config-lowered", "idx="),
        ("drop=1", "stalled", "device-unfinished", "drop:multifd-"),
        ("drop=1", "completed", "switchover-missing", "drop:main#"),
        ("dup=1", "aborted", "switchover-twice", "duplicate:main#"),
    ],
    ids=["C1", "H1", "L1", "C2"],
)
def test_what_can_go_wrong_is_found_from_a_good_recording(
    budget: str, outcome: str, name: str, fault: str, capsys: Capsys
) -> None:
    found = explored(capsys, SMALL, "--faults", budget, "--jobs", "1", status=1)
    assert found["complete"]
    (witness,) = [
        each for each in found["outcomes"] if (each["outcome"], each["name"]) == (outcome, name)
    ]
    assert witness["device"] == DEVICE
    assert len(witness["faults"]) == 1
    assert fault in witness["faults"][0]
    judged = replayed(capsys, witness["reproduce"])
    assert judged["outcome"] == outcome
    if name != "switchover-missing":
        assert name in {each["name"] for each in judged["findings"]}


def test_limit_of_the_queue_hides_what_it_must_be(capsys: Capsys) -> None:
    words = [CLEAN, "--jobs", "1", "--profile", "10.2"]
    worst = explored(capsys, *words)["worst_queue"]
    assert (worst["bytes"], worst["limited"]) == (4204, False)
    assert run(["explore", *words]) == 0
    said = "so x-migration-max-queued-buffers-size must be at least 4204:"
    assert said in capsys.readouterr().out
    words += ["--destination", "max-queued=20"]
    worst = explored(capsys, *words, status=1)["worst_queue"]
    assert 20 < worst["bytes"] < 4204
    assert worst["limited"]
    assert run(["explore", *words]) == 1
    out = capsys.readouterr().out
    assert "where max-queued=20 ends it; how much" in out
    assert "at least" not in out


def test_broken_recording(capsys: Capsys) -> None:
    found = explored(capsys, str(VECTORS / "v05-missing-3.pcap.gz"), "--jobs", "1", status=1)
    assert {each["outcome"] for each in found["outcomes"]} == {"stalled"}


def test_text(capsys: Capsys) -> None:
    assert run(["explore", SMALL, "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "explored 2 of 2 orders of device packets, complete"
    assert lines[2].split() == ["orders", "outcome", "rule", "device", "faults"]
    assert lines[3].split() == ["2", "completed", "-", "-", "-"]
    assert lines[5].startswith("completed, 2")
    assert lines[6].startswith("  mfdtool replay ")


def test_schedules_that_are_too_long(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_LONGEST_WORD", 60)
    monkeypatch.setattr(verdict, "_SCHEDULE_SHOWN", 30)
    found = explored(capsys, SMALL, "--jobs", "1")
    assert found["outcomes"][0]["reproduce"] is None
    assert found["worst_queue"]["reproduce"] is None
    schedule = found["outcomes"][0]["schedule"]
    assert run(["explore", SMALL, "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[6] == (
        f"  mfdtool replay with --order file:FILE, a file with {schedule[:30]}..."
        f" ({len(schedule)} characters, all of them in --json)"
    )
    assert max(map(len, lines)) < 150


def test_all_cores_find_the_same(capsys: Capsys) -> None:
    words = (SMALL, "--faults", "drop=1")
    one = explored(capsys, *words, "--jobs", "1", status=1)
    two = explored(capsys, *words, "--jobs", "2", status=1)
    assert essence(one) == essence(two)


def test_large_variants_are_taken_apart(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = explored(capsys, CLEAN, "--faults", "disconnect=1", "--jobs", "1", status=1)
    monkeypatch.setattr(workflow, "LARGE", 1)
    monkeypatch.setattr(workflow, "_SAVE_SECONDS", 0)
    file = str(tmp_path / "explored.json")
    words = (CLEAN, "--faults", "disconnect=1", "--jobs", "2", "--checkpoint", file)
    parts = explored(capsys, *words, status=1)
    assert essence(parts) == essence(alone)
    done = json.loads(Path(file).read_text())["done"]
    assert len(done) > 2 * alone["variants"]
    # One process goes on with the parts, too.
    resumed = explored(capsys, *words[:3], "--jobs", "1", "--resume", file, status=1)
    assert essence(resumed) == essence(alone)


def test_a_cluster_finds_the_same(capsys: Capsys) -> None:
    words = (SMALL, "--faults", "drop=1")
    with local_cluster(workers=1, threads=2) as address:
        found = explored(capsys, *words, "--cluster", address, status=1)
    assert essence(found) == essence(explored(capsys, *words, "--jobs", "1", status=1))


def test_variants_that_cannot_be_made_are_told(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def applied(observation: Observation, faults: tuple[Fault, ...]) -> Observation:
        if any("multifd" in str(fault) for fault in faults):
            raise ScheduleError("it is not whole")
        return apply(observation, faults)

    monkeypatch.setattr(workflow, "apply", applied)
    found = explored(capsys, SMALL, "--faults", "drop=1", "--jobs", "1", status=1)
    assert found["skipped_variants"] == 2
    assert not found["complete"]
    assert found["incomplete_because"] == "2 variants cannot be made: bytes were not captured"


def test_a_limit_is_told(capsys: Capsys) -> None:
    found = explored(capsys, CLEAN, "--limit", "3", "--jobs", "1")
    assert not found["complete"]
    assert found["incomplete_because"] == "--limit 3 states of a variant is reached"
    assert run(["explore", CLEAN, "--limit", "3", "--jobs", "1"]) == 0
    assert "not complete: --limit 3 states" in capsys.readouterr().out


def test_time_is_told(capsys: Capsys) -> None:
    found = explored(capsys, CLEAN, "--time", "0", "--jobs", "1")
    assert not found["complete"]
    assert found["incomplete_because"] == "--time 0 is over"
    assert found["total"] is None


@pytest.mark.parametrize(
    ("words", "name"), [(["--random", "30"], "random:9"), (["--pct", "30,3"], "pct:9,3")]
)
def test_orders_at_random(words: list[str], name: str, capsys: Capsys) -> None:
    found = explored(capsys, CLEAN, *words, "--seed", "9", "--jobs", "1")
    assert not found["complete"]
    assert found["total"] is None
    assert 10 <= found["explored"] <= 30
    assert found["drawn"][0] == name
    assert found == explored(capsys, CLEAN, *words, "--seed", "9", "--jobs", "1")
    assert found["incomplete_because"].startswith(f"at random, {name} to ")


def test_runs_at_random_are_not_orders(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (SMALL, "--random", "60", "--jobs", "1")
    found = explored(capsys, *words)
    assert (found["runs"], found["explored"], found["total"]) == (60, 2, None)
    assert [each["count"] for each in found["outcomes"]] == [2]
    assert run(["explore", *words]) == 0
    headline = capsys.readouterr().out.splitlines()[0]
    assert headline.startswith("explored 2 orders of device packets in 60 runs, not")
    monkeypatch.setattr(workflow, "MOST_MARKS", 30)
    found = explored(capsys, *words)
    assert (found["runs"], found["explored"]) == (60, None)
    assert [each["count"] for each in found["outcomes"]] == [None]
    assert run(["explore", *words]) == 0
    assert capsys.readouterr().out.startswith("explored 60 runs, whose orders are too many, not")


def test_a_resumed_search_ends_like_any_other(tmp_path: Path, capsys: Capsys) -> None:
    words = (SMALL, "--faults", "drop=1", "--jobs", "1")
    whole = explored(capsys, *words, status=1)
    file = tmp_path / "explored.json"
    run(["explore", *words, "--checkpoint", str(file), "--time", "0.3"])
    known = json.loads(file.read_text())
    known["done"] = known["done"][:5]
    file.write_text(json.dumps(known))
    assert explored(capsys, *words, "--resume", str(file), status=1) == whole
    done = json.loads(file.read_text())["done"]
    assert len(done) == whole["variants"]
    assert explored(capsys, *words, "--resume", str(file), status=1) == whole
    assert list(tmp_path.iterdir()) == [file]


def explored_elsewhere(words: Sequence[str], *, hash_seed: int) -> dict[str, Any]:
    """Explore in a process of its own, in which sets have their own order."""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "mfdtool", "explore", *words, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": str(hash_seed)},
    )
    assert result.returncode == 1, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_another_process_goes_on(tmp_path: Path) -> None:
    file = str(tmp_path / "explored.json")
    words = (SMALL, "--faults", "drop=1", "--jobs", "1")
    first = explored_elsewhere([*words, "--checkpoint", file], hash_seed=1)
    for hash_seed in (2, 3):
        assert explored_elsewhere([*words, "--resume", file], hash_seed=hash_seed) == first


def test_checkpoints_of_others_are_refused(tmp_path: Path, capsys: Capsys) -> None:
    file = tmp_path / "explored.json"
    assert run(["explore", SMALL, "--jobs", "1", "--checkpoint", str(file)]) == 0
    assert run(["explore", CLEAN, "--jobs", "1", "--resume", str(file)]) == 3
    assert "is of another exploration" in capsys.readouterr().err
    file.write_text("nothing")
    assert run(["explore", SMALL, "--jobs", "1", "--resume", str(file)]) == 3
    assert "no checkpoint" in capsys.readouterr().err
    assert run(["explore", SMALL, "--jobs", "1", "--resume", str(tmp_path / "no")]) == 3
    assert "/no: No such file" in capsys.readouterr().err
    where = str(tmp_path / "no" / "file")
    assert run(["explore", SMALL, "--jobs", "1", "--checkpoint", where]) == 3
    assert "No such file" in capsys.readouterr().err


def test_a_disk_that_fills_up_costs_no_result(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "explored.json"
    written = iter([False])

    def sync(descriptor: int) -> None:
        del descriptor
        if next(written, True):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    assert run(["explore", SMALL, "--jobs", "1", "--checkpoint", str(file)]) == 3
    out, err = capsys.readouterr()
    assert out.startswith("explored 2 of 2 orders of device packets, complete\n")
    assert err == f"mfdtool: {file}: No space left on device; the checkpoint is an older one\n"
    monkeypatch.undo()
    assert run(["explore", SMALL, "--jobs", "1", "--resume", str(file)]) == 0


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("part",), 3, "has jobs of something else"),
        (("variant",), 99, "has jobs of something else"),
        (("faults",), ["drop:main#1"], "is damaged"),
        (("runs",), 5, "is damaged"),
        (("reached",), [9999], "is damaged"),
        (("outcomes", 0, "schedule"), "mfd1:000000000000:steps:m", "made for trace"),
        (("outcomes", 0, "schedule"), "nothing", "it is no schedule"),
    ],
)
def test_a_checkpoint_is_not_believed_blindly(
    where: tuple[str | int, ...], value: object, message: str, tmp_path: Path, capsys: Capsys
) -> None:
    file = tmp_path / "explored.json"
    words = ["explore", SMALL, "--jobs", "1"]
    assert run([*words, "--checkpoint", str(file)]) == 0
    known = json.loads(file.read_text())
    (found,) = known["done"]
    for key in where[:-1]:
        found = found[key]
    found[where[-1]] = value
    file.write_text(json.dumps(known))
    assert run([*words, "--resume", str(file)]) == 3
    assert message in capsys.readouterr().err


def test_a_step_that_cannot_happen_is_taken_out_of_a_witness(
    tmp_path: Path, capsys: Capsys
) -> None:
    file = tmp_path / "explored.json"
    words = ["explore", SMALL, "--jobs", "1"]
    assert run([*words, "--checkpoint", str(file)]) == 0
    out = capsys.readouterr().out
    known = json.loads(file.read_text())
    known["done"][0]["outcomes"][0]["schedule"] += ",d77"
    file.write_text(json.dumps(known))
    assert run([*words, "--resume", str(file)]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    "words",
    [
        ["--faults", "hold=1"],
        ["--faults", "drop"],
        ["--pct", "5"],
        ["--pct", "5,99"],
        ["--pct", "0,3"],
        ["--random", "5", "--pct", "5,2"],
        ["--jobs", "2", "--cluster", "tcp://127.0.0.1:1"],
        ["--cluster", "nowhere"],
        ["--limit", "0"],
        ["--seed", "3"],
    ],
)
def test_wrong_options(words: list[str], capsys: Capsys) -> None:
    assert run(["explore", CLEAN, *words]) == 2
    assert "Usage:" in capsys.readouterr().err


def test_migration_that_is_not_there(capsys: Capsys) -> None:
    assert run(["explore", CLEAN, "--migration", "3"]) == 3
    assert "there is no migration 3" in capsys.readouterr().err


@contextmanager
def exploring(file: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Explore more than there is time for; it has begun when its checkpoint is there."""
    command = ["explore", CLEAN, "--faults", "set=2", "--checkpoint", str(file), *words]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "mfdtool", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    ) as process:
        try:
            while not file.exists() and process.poll() is None:
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def members(session: int) -> dict[int, int]:
    """Give the processes of a session that have not ended, and each one's parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupt_shows_what_is_known(number: signal.Signals, jobs: str, tmp_path: Path) -> None:
    file = tmp_path / "explored.json"
    with exploring(file, "--jobs", jobs) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert ", not complete: interrupted" in out.splitlines()[0]
    assert not err
    assert json.loads(file.read_text())["done"]


def test_nothing_outlives_a_killed_search(tmp_path: Path) -> None:
    with exploring(tmp_path / "explored.json", "--jobs", "2") as process:
        assert len(members(process.pid)) > 2
        process.kill()
        # Whoever still had its pipes would keep this from ending.
        process.communicate(timeout=60)
        limit = time.monotonic() + 60
        while members(process.pid) and time.monotonic() < limit:
            time.sleep(0.05)
        assert not members(process.pid)


def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    file = tmp_path / "explored.json"
    with exploring(file, "--jobs", "2") as process:
        before = json.loads(file.read_text())
        known = members(process.pid)
        # Workers are children of a server that the search has started.
        worker = next(pid for pid, parent in known.items() if known.get(parent) == process.pid)
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert err == (
        "mfdtool: a process that explores was killed, perhaps for lack of memory; what is known is"
        f" in {file}, for --resume\n"
    )
    assert not out
    after = json.loads(file.read_text())
    assert after["identity"] == before["identity"]
    assert len(after["done"]) >= len(before["done"]) > 0
