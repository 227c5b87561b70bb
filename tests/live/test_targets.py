# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``--to`` may say."""

from __future__ import annotations

import pytest

from mfdtool.live.fd_sink import FdSink
from mfdtool.live.targets import (
    MODEL_TARGET,
    DeviceFdTarget,
    DeviceTarget,
    FdTarget,
    QemuTcpTarget,
    QemuUnixTarget,
    Target,
    Wanted,
    open_sink,
    parse_target,
)
from tests.support.playbook import DESTINATION

TARGETS: dict[str, Target] = {
    "model": MODEL_TARGET,
    "fd:7": FdTarget(7),
    "device:/dev/vfio/12": DeviceTarget("/dev/vfio/12"),
    "device:0000:00:05.0": DeviceTarget("0000:00:05.0"),
    "device-fd:3": DeviceFdTarget(3),
    "qemu:tcp:127.0.0.1:4444": QemuTcpTarget("127.0.0.1", 4444),
    "qemu:tcp:[::1]:4444": QemuTcpTarget("::1", 4444),
    "qemu:tcp::4444": QemuTcpTarget("", 4444),
    "qemu:unix:/run/a:b.sock": QemuUnixTarget("/run/a:b.sock"),
}


@pytest.mark.parametrize("text", TARGETS)
def test_round_trip(text: str) -> None:
    target = parse_target(text)
    assert target == TARGETS[text]
    assert str(target) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models",
        "fd",
        "fd:",
        "fd:-1",
        "fd:1e3",
        "fd:99999999999",
        "fd:\u0661",
        "device:",
        "device-fd:x",
        "qemu:",
        "qemu:tcp:host",
        "qemu:tcp:host:0",
        "qemu:tcp:host:65536",
        "qemu:tcp:::1:4444",
        "qemu:unix:",
        "tcp:127.0.0.1:4444",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_target(text)


def test_descriptors_are_there() -> None:
    sink = open_sink(Wanted(FdTarget(7), DESTINATION, 0))
    assert isinstance(sink, FdSink)
    assert sink.name == "fd:7"
