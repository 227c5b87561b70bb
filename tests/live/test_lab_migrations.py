# SPDX-License-Identifier: GPL-2.0-or-later
"""Real migrations, seen from outside: what was recorded is what QEMU's logs say."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from mfdtool.cli import run
from tests.live.conftest import Played
from tests.live.lab.device_checks import HEADER
from tests.live.lab.scenarios.migration import RECORDED, Recorded

pytestmark = pytest.mark.live

PORT_SIZE = 36
EACH = [
    pytest.param(each, id=each.name, marks=pytest.mark.scenario(each.name)) for each in RECORDED
]


@pytest.mark.parametrize("recorded", EACH)
def test_verdict(recorded: Recorded, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """The model says what the destination said, line by line."""
    capture = str(played.folder / "capture.pcap")
    said = ["--destination", "device=none"] if recorded.lacks_device else []
    status = int(recorded.lacks_device)
    # It exits with an error, or it still runs.
    assert played.result.notes["destination"] == (1 if recorded.lacks_device else None)
    assert run(["check", capture, "--json", *said]) == status
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["outcome"] == ("failed" if recorded.lacks_device else "completed")
    assert [each["bytes"] for each in verdict["devices"]] == (
        [] if recorded.lacks_device else [HEADER + PORT_SIZE * ports for ports in recorded.ports]
    )
    assert run(["check", capture, "--against", str(played.folder / "dst.log"), *said]) == status
    assert capsys.readouterr().out == "no divergence\n"


@pytest.mark.parametrize("recorded", EACH)
def test_packets(recorded: Recorded, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """Each device's state is in as many packets as the source's reads were short."""
    if recorded.lacks_device:
        assert "Unknown savevm section" in (played.folder / "dst.log").read_text()
        return
    status = run(["decode", str(played.folder / "capture.pcap"), "-T", "jsonl"])
    frames = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    gaps = [frame for frame in frames if not frame["complete"]]
    assert not gaps or recorded.default_mtu
    assert status == (4 if gaps else 0)
    channels = {frame["channel"] for frame in frames if frame["kind"] == "multifd.init"}
    assert channels == {f"multifd-{number}" for number in range(recorded.channels)}
    for slot, ports in enumerate(recorded.ports, 5):
        own = [frame for frame in frames if frame.get("idstr") == f"0000:00:{slot:02x}.0/vfio"]
        _check_device(own, recorded, HEADER + PORT_SIZE * ports)


def _check_device(frames: list[dict[str, Any]], recorded: Recorded, size: int) -> None:
    """The main stream has what was read in PRE_COPY, the packets have the rest."""
    main = sum(
        frame["data_length"]
        for frame in frames
        if frame["kind"] == "vfio.marker" and frame["marker"] == "DEV_DATA_STATE"
    )
    packets = [frame for frame in frames if frame["kind"] == "multifd.device_state"]
    data = [frame for frame in packets if not frame["is_config"]]
    assert main + sum(frame["data_length"] for frame in data) == size
    assert main == size or (main >= recorded.read_size and recorded.transfer)
    count = math.ceil((size - main) / (recorded.read_size or size))
    assert sorted(frame["idx"] for frame in data) == list(range(count))
    configs = [frame["idx"] for frame in packets if frame["is_config"]]
    assert configs == ([count] if recorded.transfer else [])
