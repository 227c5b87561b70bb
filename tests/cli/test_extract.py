# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool extract``: options, output and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.wire.constants import RamFlag
from tests.support.streams import EOF, RAM_EOS, counted, main_start, start, word

ROOT = Path(__file__).parents[2]
CLEAN = str(ROOT / "captures" / "mtty-4ch-clean.pcap.gz")
MISSING = str(ROOT / "tests" / "data" / "vectors" / "v05-missing-3.pcap.gz")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "name one of"),
        (["--vmdesc", "--channel", "main"], "name one of"),
        (["--vmdesc", "--with-markers"], "--with-markers goes with --config"),
        (["--channel", "main", "--pretty"], "--pretty goes with --vmdesc"),
        (["--ram-page", "pc.ram"], "is not BLOCK:OFFSET"),
        (["--ram-page", ":0"], "is not BLOCK:OFFSET"),
        (["--ram-page", "pc.ram:x"], "is not a number"),
        (["--ram-page", "pc.ram:-1"], "is not between 0x0 and"),
        (["--vmdesc", "--fill-gaps", "256"], "is not between 0x0 and 0xff"),
        (["--vmdesc", "-o", CLEAN], "is the input"),
    ],
)
def test_usage(capfd: pytest.CaptureFixture[str], args: list[str], reason: str) -> None:
    assert run(["extract", CLEAN, *args]) == 2
    assert reason in capfd.readouterr().err


def test_to_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "state"
    assert run(["extract", CLEAN, "--device", "00:05.0", "-o", str(output)]) == 0
    assert len(output.read_bytes()) == 96
    assert capfd.readouterr() == ("", "")


def test_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["extract", CLEAN, "--ram-page", "pc.ram:0x0", "-o", "-"]) == 0
    out, err = capfdbinary.readouterr()
    assert (len(out), out[:4].hex()) == (4096, "53ff00f0")
    assert err.startswith(b"mfdtool: pc.ram:0x0 is from multifd-3 #24, normal")


def test_description(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["extract", CLEAN, "--vmdesc"]) == 0
    compact = capfd.readouterr().out
    assert run(["extract", CLEAN, "--vmdesc", "--pretty"]) == 0
    pretty = capfd.readouterr().out
    assert json.loads(pretty) == json.loads(compact)
    assert pretty.startswith('{\n  "configuration": {\n    "vmsd_name": "configuration",\n')


def test_config(tmp_path: Path) -> None:
    for args, size in (([], 4116), (["--with-markers"], 4132)):
        output = tmp_path / f"config{size}"
        assert run(["extract", CLEAN, "--config", "00:05.0", *args, "-o", str(output)]) == 0
        assert output.stat().st_size == size


@pytest.mark.parametrize("args", [[], ["--fill-gaps", "0xff"]])
def test_incomplete(tmp_path: Path, capfd: pytest.CaptureFixture[str], args: list[str]) -> None:
    output = tmp_path / "state"
    assert run(["extract", MISSING, "--device", "00:05.0", "-o", str(output), *args]) == 4
    assert output.stat().st_size == (80 if args else 72)
    assert capfd.readouterr().err.startswith("mfdtool: missing: idx 3; ")


def test_problem(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    truncated = tmp_path / "truncated.pcap.gz"
    truncated.write_bytes(Path(CLEAN).read_bytes()[:200_000])
    output = tmp_path / "state"
    assert run(["extract", str(truncated), "--device", "00:05.0", "-o", str(output)]) == 4
    err = capfd.readouterr().err
    assert "missing: idx 1-2; writing stopped there, after 40 bytes" in err
    assert output.stat().st_size == 40
    assert "the compressed data ends early" in err


@pytest.mark.parametrize(
    ("args", "count"), [(["--channel", "main"], 4156), (["--ram-page", "pc.ram:0x0"], 4096)]
)
def test_stream_that_stops_before_its_end(
    args: list[str], count: int, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    page = word(RamFlag.PAGE) + counted("pc.ram") + bytes(4096)
    stream = tmp_path / "main"
    stream.write_bytes(main_start() + start(2, "ram", page + RAM_EOS, version=4) + EOF)
    assert run(["extract", "--main", str(stream), *args]) == 0
    whole = capfdbinary.readouterr().out
    stream.write_bytes(stream.read_bytes()[:-1])
    assert run(["extract", "--main", str(stream), *args]) == 4
    out, err = capfdbinary.readouterr()
    assert len(out) == count
    assert whole.startswith(out)
    assert b"main stops at offset" in err


def test_output_is_left_alone_when_there_is_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "state"
    output.write_bytes(b"precious")
    assert run(["extract", CLEAN, "--device", "00:07.0", "-o", str(output)]) == 3
    assert output.read_bytes() == b"precious"
    assert "no state of a device 00:07.0" in capfd.readouterr().err


def test_no_binary_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["extract", CLEAN, "--channel", "main"]) == 2
    assert "will not write binary data to a terminal" in capsys.readouterr().err
