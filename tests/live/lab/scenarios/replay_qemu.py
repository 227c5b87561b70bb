# SPDX-License-Identifier: GPL-2.0-or-later
"""``replay --to qemu:...`` into real destinations with a real device, and the model beside them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, Final

from tests.live.lab.machine import ROOT
from tests.live.lab.replaying import SILENCE
from tests.live.lab.scenario import Inside, Scenario
from tests.live.lab.scenarios.record import mfdtool

SECONDS: Final = 600
_CAPTURE: Final = ROOT / "captures" / "mtty-4ch-clean.pcap.gz"
_DEVICE: Final = "0000:00:05.0"
LAUNCH: Final = (
    "qemu-system-x86_64 -accel tcg -machine pc-i440fx-10.0 -m 32 -nodefaults -display none"
    " -no-user-config -device vfio-pci,sysfsdev=/sys/bus/mdev/devices/{uuid},addr=05.0,"
    "enable-migration=on,x-pre-copy-dirty-page-tracking=off,x-device-dirty-page-tracking=off,"
    "x-migration-multifd-transfer=on"
)


@dataclass(frozen=True, slots=True)
class Case:
    """A replay, and what QEMU makes of it.

    Attributes:
        name: the scenario's.
        words: options of the command; ``{d}`` stands for the device.
        outcome: how it ends.
        target: where QEMU listens.
        error: part of the line that explains it.
    """

    name: str
    words: tuple[str, ...]
    outcome: str
    target: str = "qemu:unix:/run/mfdtool-replay"
    error: str | None = None

    def run(self, inside: Inside) -> None:
        """Replay, and compare with the model."""
        launch = LAUNCH.format(uuid=inside.device())
        words = [word.format(d=f"dev={_DEVICE}") for word in self.words]
        silence = SILENCE[self.outcome == "stalled"]
        status, out, err = mfdtool(
            "replay", str(_CAPTURE), "--to", self.target, "--launch", launch,
            "--deadline", silence, "--compare", "--json", *words,
        )  # fmt: skip
        inside.notes["stderr"] = err
        assert out, err
        found: dict[str, Any] = json.loads(out)
        inside.notes["verdict"] = found
        assert found["outcome"] == self.outcome, out
        assert status == (0 if self.outcome == "completed" else 1)
        assert (found["sink"], found["order"]) == ("qemu", "exact")
        assert found["not_acknowledged"] == []
        assert found["differences"] == [], found["differences"]
        (device,) = found["devices"]
        assert device["restored"] is (self.outcome == "completed")
        if self.error is not None:
            assert self.error in found["error"]
        assert shlex.quote(launch) in found["reproduce"]


CASES: Final = (
    Case("qemu-recorded", (), "completed", target="qemu:tcp:127.0.0.1:4455"),
    Case("qemu-reverse", ("--order", "reverse", "--reassign"), "completed"),
    Case("qemu-config-first", ("--order", "config-first", "--reassign"), "completed"),
    Case("qemu-drop", ("--fault", "drop:{d},idx=2"), "stalled"),
    Case("qemu-duplicate", ("--fault", "duplicate:{d},idx=3"), "failed"),
    Case("qemu-idx", ("--fault", "set:{d},idx=3:idx=0xfffffff0"), "aborted"),
)

SCENARIOS: Final = tuple(Scenario(name=case.name, run=case.run, seconds=SECONDS) for case in CASES)
