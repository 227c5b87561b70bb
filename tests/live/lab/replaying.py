# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays into a real destination inside the lab's machine, with the model beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.live.lab.qemu import launch_command
from tests.live.lab.scenario import Inside
from tests.live.lab.scenarios.record import mfdtool

_TARGET: Final = "qemu:unix:/run/mfdtool-replay"
SILENCE: Final = {True: "10", False: "120"}
"""Seconds without a sign of life that are a stall: less, where one is expected."""


def replayed(
    inside: Inside,
    capture: Path,
    words: Sequence[str] = (),
    *,
    ports: Sequence[int] = (2,),
    stalls: bool = False,
) -> dict[str, Any]:
    """Replay a capture into a QEMU with devices of so many ports; give the verdict.

    ``stalls`` says that it is expected to stall, or may.

    Raises:
        AssertionError: the model says something else.
    """
    launch = launch_command([inside.device(ports=each) for each in ports])
    status, out, err = mfdtool(
        "replay", str(capture), "--to", _TARGET, "--launch", launch,
        "--deadline", SILENCE[stalls], "--compare", "--json", *words,
    )  # fmt: skip
    assert out, err
    found: dict[str, Any] = json.loads(out)
    inside.notes.setdefault("replays", []).append({"status": status, **found})
    assert found["differences"] == [], out
    assert found["sink"] == "qemu"
    return found
