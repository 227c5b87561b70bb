# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands ``record device`` and ``device info`` on a real device."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Final

from mfdtool.cli import run
from mfdtool.live.vfio.device import open_device
from tests.live.lab.device_checks import SIZE, saved
from tests.live.lab.scenario import Inside, Scenario

CHUNKS: Final = (1, 8, 16, 24, 96, 4096)


def mfdtool(*arguments: str) -> tuple[int, str, str]:
    """Run a command; give its exit status, standard output and standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run(arguments)
    return status, out.getvalue(), err.getvalue()


def _record(inside: Inside) -> None:
    """Record one device over and over, in reads of all sizes, with and without PRE_COPY."""
    uuid = inside.device()
    with open_device(uuid, inside.kernel) as device:
        inside.notes["state"] = saved(device).hex()
        inside.notes["config"] = device.config_space().hex()
    for chunk in CHUNKS:
        for way in ("stop-copy", "precopy"):
            path = inside.folder / f"{way}-{chunk}.pcapng"
            options = ["--precopy"] if way == "precopy" else []
            status, out, err = mfdtool(
                "record", "device", uuid, "--yes", "--json", "-w", str(path),
                "--chunk", str(chunk), "--channels", "3", *options,
            )  # fmt: skip
            assert (status, err) == (0, "")
            assert json.loads(out)["bytes"] == SIZE


def _info(inside: Inside) -> None:
    """Show a device by all its names, and refuse it while it is in use."""
    uuid = inside.device()
    status, text, _ = mfdtool("device", "info", uuid, "--yes")
    assert status == 0
    inside.notes["text"] = text
    group = json.loads(mfdtool("device", "info", uuid, "--yes", "--json")[1])["opened"].split()[0]
    for name in (f"/sys/bus/mdev/devices/{uuid}", group):
        assert mfdtool("device", "info", name, "--yes") == (0, text, "")
    path = inside.folder / "none.pcapng"
    with open_device(uuid, inside.kernel):
        for command in (["device", "info"], ["record", "device", "-w", str(path)]):
            status, out, err = mfdtool(*command, uuid, "--yes")
            assert (status, out) == (5, "")
            assert "in use" in err
            assert "EBUSY" in err
    assert not path.exists()


SCENARIOS: Final = (
    Scenario(name="record-device", run=_record),
    Scenario(name="device-info", run=_info),
)
