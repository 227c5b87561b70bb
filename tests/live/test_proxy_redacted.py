# SPDX-License-Identifier: GPL-2.0-or-later
"""Real migrations, redacted by the proxy: the model judges them as it judges the whole ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.live.proxy.server import ProxyOptions
from tests.support.captures import CAPTURES, decoded
from tests.support.proxying import LOCAL, running, send_all


def streams_of(name: str) -> dict[str, bytes]:
    """Give what the source sent on each connection of a capture that lacks nothing."""
    streams: dict[str, bytes] = {}
    for frame in decoded(name)[1]:
        channel = str(frame.channel)
        if channel != "return-path":
            streams[channel] = streams.get(channel, b"") + frame.data()
    return streams


@pytest.mark.parametrize(
    "name", ["mtty-4ch-clean", "mtty-4ch-one-packet", "mtty-8ch-ipv6", "mtty-main-stream-only"]
)
def test_verdict_is_that_of_the_whole_recording(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.pcapng"
    options = ProxyOptions(listen=LOCAL, to=LOCAL, stays=True, redact=True)
    with running(path, options) as setup:
        send_all(setup, streams_of(name))
    assert not setup.recording.losses
    assert run(["check", str(CAPTURES / f"{name}.pcap.gz"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert run(["check", str(path), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["outcome"], found["stderr"]) == ("completed", [])
    for device, expected in zip(found["devices"], whole["devices"], strict=True):
        assert device["restored"]
        assert (device["buffers"], device["bytes"]) == (expected["buffers"], expected["bytes"])
        assert device["sha256"] is None
    assert not [each for each in found["findings"] if each["severity"] == "error"]
