# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures of a real destination with a real device: reduced, and confirmed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from signal import SIGABRT
from typing import Any, Final

from tests.live.lab.machine import ROOT
from tests.live.lab.scenario import TYPES, Inside, Scenario
from tests.live.lab.scenarios.record import mfdtool
from tests.live.lab.scenarios.replay_qemu import LAUNCH

SECONDS: Final = 600
_CAPTURE: Final = str(ROOT / "captures" / "mtty-4ch-one-packet.pcap.gz")
_DEADLINE: Final = "5"
_DEVICE: Final = "0000:00:05.0"
_FEW: Final = 12
_RENEWED: Final = (
    "sh -c 'echo 1 > /sys/bus/mdev/devices/{uuid}/remove && echo {uuid} > {types}/mtty-2/create"
    ' && exec "$@"\' renewed '
)
"""Nobody resets an mdev: one that a QEMU has left in RESUMING stays there."""
TARGET: Final = "qemu:unix:/run/mfdtool-bisect"


def asked(inside: Inside, command: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Run a command with a QEMU to ask; give its exit status and what it writes."""
    uuid = inside.device()
    launch = _RENEWED.format(uuid=uuid, types=TYPES) + LAUNCH.format(uuid=uuid)
    status, out, err = mfdtool(
        command, _CAPTURE, *words, "--launch", launch, "--deadline", _DEADLINE, "--json"
    )
    inside.notes["stderr"] = err
    assert out, err
    found: dict[str, Any] = json.loads(out)
    inside.notes["found"] = found
    return status, found


@dataclass(frozen=True, slots=True)
class Case:
    """A failure of a real destination, and what it is reduced to.

    Attributes:
        name: the scenario's.
        fault: what makes it fail.
        outcome: how it ends.
        rule: the rule that is broken.
        signal: what kills it.
        started: destinations that may be started at most.
    """

    name: str
    fault: str
    outcome: str
    rule: str
    signal: int | None
    started: int

    def run(self, inside: Inside) -> None:
        """Reduce it, and replay what is left into one more destination."""
        prefix = str(inside.folder / "cause")
        words = ("--to", TARGET, "--fault", self.fault, "-o", prefix)
        status, found = asked(inside, "bisect", *words)
        assert status == 0
        kind = (found["outcome"], found["rule"], found["device"])
        assert kind == (self.outcome, self.rule, f"{_DEVICE}/vfio"), found
        assert found["faults"] == [self.fault]
        assert found["real"]["signal"] == self.signal
        assert found["real"]["started"] <= self.started, found
        assert len(found["packets"]) <= _FEW, found
        assert "--launch" in found["reproduce"]


def _confirm(inside: Inside) -> None:
    """What can become of a migration with a packet lost does become of it."""
    words = ("--faults", "drop=1", "--jobs", "1", "--confirm", TARGET)
    status, found = asked(inside, "explore", *words)
    assert status == 1
    assert all(each["confirmed"]["agrees"] for each in found["outcomes"]), found["outcomes"]


CASES: Final = (
    Case("bisect-stall", f"drop:dev={_DEVICE},idx=0", "stalled", "MFD229", None, 8),
    Case("bisect-abort", "duplicate:main#49", "aborted", "MFD511", SIGABRT, 15),
)

SCENARIOS: Final = (
    *(Scenario(name=case.name, run=case.run, seconds=SECONDS) for case in CASES),
    Scenario(name="explore-confirm", run=_confirm, seconds=SECONDS),
)
