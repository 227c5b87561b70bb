# SPDX-License-Identifier: GPL-2.0-or-later
"""``replay --to device:...`` into a real device: many orders, and what its driver refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from mfdtool.live.vfio.device import open_device
from mfdtool.live.vfio.uapi import DeviceState
from tests.live.lab.device_checks import SIZE, saved
from tests.live.lab.scenario import Inside, Scenario
from tests.live.lab.scenarios.record import mfdtool

ORDERS: Final = (
    ("recorded",),
    ("reverse", "--reassign", "--policy", "eager"),
    ("reverse", "--policy", "held"),
    ("last-first", "--policy", "eager"),
    ("config-first", "--reassign"),
    ("round-robin",),
)
_HEADERS: Final = 288
_DEVICE: Final = "0000:00:05.0"


def _recorded(inside: Inside, uuid: str) -> Path:
    path = inside.folder / "state.pcapng"
    assert mfdtool("record", "device", uuid, "--yes", "--chunk", "16", "-w", str(path))[0] == 0
    return path


def _state(inside: Inside, uuid: str) -> bytes:
    with open_device(uuid, inside.kernel) as device:
        assert device.state() is DeviceState.RUNNING
        return saved(device)


def _orders(inside: Inside) -> None:
    """Whatever the order, the device gets the state, and then gives the same one."""
    source = inside.device()
    path = _recorded(inside, source)
    for order in ORDERS:
        target = inside.device()
        status, out, err = mfdtool(
            "replay", str(path), "--to", f"device:{target}", "--yes", "--json", "--order", *order
        )
        assert status == 0, err
        verdict = json.loads(out)
        assert verdict["outcome"] == "completed"
        (device,) = verdict["devices"]
        assert (device["bytes"], device["restored"], device["reset"]) == (SIZE, True, False)
        assert "same kind of device, 4348:3253" in err
        assert "the device runs with its state, 96 bytes" in err
        assert _state(inside, target) == _state(inside, source)


def _refusals(inside: Inside) -> None:
    """What goes wrong is told with its idx, and leaves the device reset and RUNNING."""
    path = _recorded(inside, inside.device())
    target = inside.device()
    before = _state(inside, target)
    to = ("replay", str(path), "--to", f"device:{target}", "--yes")
    # The driver looks at its header of 24 bytes when idx 1 completes it.
    status, out, err = mfdtool(*to, "--fault", f"corrupt:dev={_DEVICE},idx=0:{_HEADERS}=00")
    assert status == 5, out
    assert "idx 1: " in err
    assert "Bad address (EFAULT)" in err
    inside.notes["corrupt"] = err
    assert _state(inside, target) == before
    status, out, err = mfdtool(*to, "--fault", f"drop:dev={_DEVICE},idx=2")
    assert (status, "stalled" in out) == (1, True)
    assert "the replay did not complete: the device is reset" in err
    assert _state(inside, target) == before
    # Without its last buffer everything completes, until the driver looks at what it got.
    faults = ("drop:dev={0},idx=5", "set:dev={0},idx=6:idx=5")
    words = [word for fault in faults for word in ("--fault", fault.format(_DEVICE))]
    status, out, err = mfdtool(*to, "--json", *words)
    inside.notes["short"] = err
    assert status == 5
    verdict = json.loads(out)
    assert verdict["outcome"] == "completed"
    (device,) = verdict["devices"]
    assert (device["bytes"], device["restored"], device["reset"]) == (SIZE - 16, False, True)
    assert "leaving RESUMING: " in err
    assert "Invalid argument (EINVAL)" in err
    assert _state(inside, target) == before
    with open_device(target, inside.kernel):
        status, _, err = mfdtool(*to)
    assert (status, "EBUSY" in err) == (5, True)


SCENARIOS: Final = (
    Scenario(name="replay-device-orders", run=_orders),
    Scenario(name="replay-device-refusals", run=_refusals),
)
