# SPDX-License-Identifier: GPL-2.0-or-later
"""``extract --decode`` and ``--records`` where not all is well; see also the transcripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.wire.vfio import wrap_config
from mfdtool.workflows.vendors import LoadedVendors, load_vendors
from tests.support.pci import config, space
from tests.support.streams import device_packet, handshake

CAPTURES = Path(__file__).parents[2] / "captures"
CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
MISSING = str(Path(__file__).parents[1] / "data" / "vectors" / "v05-missing-3.pcap.gz")


def channel(directory: Path, *packets: bytes) -> str:
    path = directory / "channel"
    path.write_bytes(handshake() + b"".join(packets))
    return str(path)


def test_holes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["extract", MISSING, "--device", "00:05.0", "--records"]) == 4
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert "mfdtool: missing: idx 3\n" in err
    assert "mfdtool: 8 bytes behind a hole of unknown length are not decoded\n" in err


def test_what_a_decoder_leaves_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["extract", CLEAN, "--device", "00:05.0", "--records", "--vendor", "hisi_acc"]
    assert run(args) == 4
    out, err = capsys.readouterr()
    assert "          40           56  undecoded  [the state ends in it]  in idx 1" in out
    assert err == "mfdtool: 56 bytes from offset 40 are undecoded: the state ends in it\n"


def test_very_many_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = channel(tmp_path, *(device_packet(2 * idx) for idx in range(200)))
    assert run(["extract", "--multifd", data, "--device", "00:05.0", "--records"]) == 4
    out, err = capsys.readouterr()
    assert err.count("mfdtool: missing: idx ") == 50
    assert err.count("mfdtool: missing: more holes") == 1
    assert "no config packet: data may have followed" in err
    assert out.splitlines()[1].endswith("data  in idx 0 (multifd-0 #1)")


def test_config_that_is_no_pci_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = channel(tmp_path, device_packet(0, wrap_config(b"ccw"), flags=1))
    assert run(["extract", "--multifd", data, "--config", "00:05.0", "--decode"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "config: input ends, 65 more bytes wanted" in err


def test_config_without_its_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = channel(tmp_path, device_packet(0, bytes(600), flags=1))
    assert run(["extract", "--multifd", data, "--config", "00:05.0", "--decode"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "the markers around the config are not as they should be" in err


def test_config_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = channel(tmp_path, device_packet(0, wrap_config(config(space())), flags=1))
    args = ["extract", "--multifd", data, "--config", "00:05.0", "--decode", "--json"]
    assert run(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pci"], found["msix_pending"]) == ("15b3:101e", [0, 2])


def test_output_file(tmp_path: Path) -> None:
    output = tmp_path / "records"
    args = ["extract", CLEAN, "--device", "00:05.0", "--records", "-o", str(output)]
    assert run(args) == 0
    assert len(output.read_text().splitlines()) == 4


def test_input_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = channel(tmp_path, device_packet(0, wrap_config(config(space())), flags=1))
    args = ["extract", "--multifd", data, "--config", "00:05.0", "--decode", "-o", data]
    assert run(args) == 2
    assert "is the input" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["info"], ["extract", "--device", "00:05.0", "--records"]])
def test_drivers_that_cannot_be_loaded_are_told(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = LoadedVendors(load_vendors([]).registry, ("entry point x is broken",))
    monkeypatch.setattr("mfdtool.cli.vendors.load_vendors", lambda: broken)
    assert run([*command, CLEAN]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("mfdtool: entry point x is broken\n")
    assert out
