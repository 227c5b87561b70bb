# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool check`` and ``mfdtool explain``: options, output and exit statuses."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path

import pytest

from mfdtool.cli import run
from tests.support.captures import CAPTURES, NAMES
from tests.support.vectors import VECTORS

CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
LACKS = str(CAPTURES / "mtty-dst-lacks-device.pcap.gz")


def vector(name: str) -> str:
    return str(VECTORS / f"{name}.pcap.gz")


def test_good_capture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", CLEAN]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        "migration 0: completed (QEMU 10.0)\n"
        "  device 0000:00:05.0/vfio: loaded, 5 buffers, 96 bytes\n"
    )
    assert not err


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_gets_the_verdict_of_its_destination(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = name == "mtty-dst-lacks-device"
    said = ["--destination", "device=none"] if lacks else []
    path = str(CAPTURES / f"{name}.pcap.gz")
    assert run(["check", path, "--json", *said]) == int(lacks)
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["outcome"] == ("failed" if lacks else "completed")
    if lacks:
        assert verdict["error"].startswith("Unknown savevm section or instance '0000:00:05.0/vfio'")
    else:
        assert all(device["restored"] for device in verdict["devices"])
    log = str(CAPTURES / f"{name}.dst.log")
    # The comparison is good, but the migration is not: the exit status is that of the verdict.
    assert run(["check", path, "--against", log, *said]) == int(lacks)
    assert capsys.readouterr().out == "no divergence\n"


def test_json_and_how_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--destination", "device=00:05.0,mtty-ports=1", "--profile", "11.1"]
    path = vector("v01-inorder")
    assert run(["check", path, "--json", *said]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["stderr"] == [
        "load of migration failed: Bad address: Failed to load vmstate version_id: 1, ret: -14"
    ]
    program, *again = verdict["reproduce"].split()
    assert program == "mfdtool"
    assert run([*again, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == verdict


@pytest.mark.parametrize(("threshold", "status"), [("error", 0), ("warning", 1), ("note", 1)])
def test_fail_on(threshold: str, status: int) -> None:
    assert run(["check", vector("v27-oversize-config"), "--fail-on", threshold]) == status


def test_timing_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", vector("r007")]) == 1
    assert "with faster load threads it is failed: NAME: expected" in capsys.readouterr().out
    assert run(["check", vector("m09_end_with_data")]) == 1
    assert "timing-dependent" in capsys.readouterr().out


def test_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", CLEAN, "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("multifd_recv_new_channel channel")
    assert "vfio_load_state_device_buffer_load_start  (0000:00:05.0) idx 4" in lines


def test_divergence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = (CAPTURES / "mtty-4ch-clean.dst.log").read_text()
    altered = tmp_path / "altered.log"
    altered.write_text(log.replace("load_end  (83b8f4f2-509f-382f-3c1e-000000000002) idx 3", "?"))
    assert run(["check", CLEAN, "--against", str(altered)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("line ")
    assert "the model has vfio_load_state_device_buffer_load_end" in out


def test_logs_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", CLEAN, "--against", str(tmp_path / "missing")]) == 3
    empty = tmp_path / "empty.log"
    empty.write_text("nothing\n")
    assert run(["check", CLEAN, "--against", str(empty)]) == 3
    assert "there is no trace event of a destination in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--trace"],
        ["--destination", "colour=red"],
        ["--destination", "channels=many"],
        ["--profile", "9.0"],
        ["--profile", "10.0", "--destination", "max-queued=4K"],
        ["--profile", "10.0", "--destination", "config-after-iter=on"],
        ["--fail-on", "panic"],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    assert run(["check", CLEAN, *arguments]) == 2


def test_migrations_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = gzip.decompress((VECTORS / "v01-inorder.pcap.gz").read_bytes())
    second = gzip.decompress(Path(LACKS).read_bytes())
    both = tmp_path / "both.pcap"
    both.write_bytes(first + second[24:])
    assert run(["check", str(both), "--migration", "0"]) == 4
    capsys.readouterr()
    run(["check", str(both), "--json"])
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [verdict["migration"] for verdict in verdicts] == [0, 1]
    assert verdicts[1]["reproduce"].endswith("--migration 1")
    assert run(["check", str(both), "--against", str(both)]) == 2
    assert run(["check", str(both), "--migration", "7"]) == 3
    assert "there is no migration 7" in capsys.readouterr().err


def test_what_is_no_capture(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(b"")
    assert run(["check", str(empty)]) == 3


def test_truncated_capture_is_judged_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.decompress(Path(CLEAN).read_bytes())
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole[:-70])
    assert run(["check", str(cut)]) == 4
    out, err = capsys.readouterr()
    assert "migration 0: completed" in out
    assert "cut.pcap" in err
    cut.write_bytes(whole[: len(whole) // 2])
    assert run(["check", str(cut)]) == 1
    assert "migration 0: stalled" in capsys.readouterr().out


def test_saved_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = tmp_path / "main.bin"
    assert run(["extract", vector("v01-inorder"), "--channel", "main", "-o", str(main)]) == 0
    channels = []
    for number in range(4):
        path = tmp_path / f"multifd-{number}.bin"
        name = f"multifd-{number}"
        assert run(["extract", vector("v01-inorder"), "--channel", name, "-o", str(path)]) == 0
        channels += ["--multifd", str(path)]
    capsys.readouterr()
    arguments = ["check", "--main", str(main), *channels, "--page-size", "4096", "--json"]
    assert run(arguments) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["outcome"] == "completed"
    assert "--page-size 4096" in verdict["reproduce"]


@pytest.mark.parametrize("command", ["check", "replay"])
def test_command_that_repeats_it_has_the_vmdescription(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept desc.json"
    assert run(["extract", vector("v01-inorder"), "--vmdesc", "-o", str(path)]) == 0
    assert run([command, vector("v01-inorder"), "--vmdesc", str(path), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert f"--vmdesc '{path}'" in verdict["reproduce"]
    assert run([*shlex.split(verdict["reproduce"])[1:], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["outcome"], again["reproduce"]) == (verdict["outcome"], verdict["reproduce"])


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "mfd211", "idx-gap"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("MFD211 idx-duplicate (error)\n  A device's idx are all different;")
    assert "\n\nMFD220 idx-gap (error)\n" in out
    assert run(["explain", "--json"]) == 0
    rules = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rules[0]["rule"] == "MFD101"
    assert run(["explain", "idx-dup"]) == 2
    assert "Did you mean" in capsys.readouterr().err
    assert run(["explain", "xyzzy"]) == 2
