# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings of a real device, seen from outside."""

from __future__ import annotations

import hashlib
import json
import math

import pytest

from mfdtool.cli import run
from tests.live.conftest import Played
from tests.live.lab.device_checks import HEADER, SIZE
from tests.live.lab.scenarios.record import CHUNKS

pytestmark = [pytest.mark.live, pytest.mark.scenario("record-device")]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("way", ["stop-copy", "precopy"])
def test_verdict(chunk: int, way: str, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """A destination would complete it, with exactly the device's bytes."""
    state = bytes.fromhex(played.result.notes["state"])
    assert len(state) == SIZE
    recording = str(played.folder / f"{way}-{chunk}.pcapng")
    assert run(["check", recording, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    (device,) = verdict["devices"]
    assert device["restored"]
    assert device["sha256"] == hashlib.sha256(state).hexdigest()
    size = SIZE - HEADER if way == "precopy" else SIZE
    assert device["buffers"] == math.ceil(size / chunk)
    assert [found["name"] for found in verdict["findings"]] == [
        "profile-guessed",
        "config-synthetic",
    ]


def test_extracted(played: Played, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """What comes out of the recording is what the device gave."""
    recording = str(played.folder / "precopy-16.pcapng")
    assert run(["extract", recording, "--device", "00:05.0"]) == 0
    assert capsysbinary.readouterr().out.hex() == played.result.notes["state"]


@pytest.mark.scenario("device-info")
def test_info(played: Played) -> None:
    """The text is what the guide shows."""
    lines = played.result.notes["text"].splitlines()
    assert [line.split()[0] for line in lines] == [
        "Device", "Sysfs", "Opened", "Migration", "State", "Size", "DMA",
    ]  # fmt: skip
    assert lines[2:] == [
        "Opened by   /dev/vfio/0 and a container",
        "Migration   STOP_COPY, P2P, PRE_COPY",
        "State       RUNNING",
        "Size        96 bytes",
        "DMA log     yes",
    ]
