# SPDX-License-Identifier: GPL-2.0-or-later
"""What real destinations have judged once, and mistakes that break other rules, judged anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from tests.live.lab.machine import ROOT
from tests.live.lab.replaying import replayed
from tests.live.lab.scenario import Inside, Scenario

SECONDS: Final = 600

_VECTORS: Final = ROOT / "tests" / "data" / "vectors"
_WHOLE: Final = "v01-inorder"


@dataclass(frozen=True, slots=True)
class Judged:
    """A vector of tests/data/vectors, with the verdict of a QEMU 10.0, which the lab has, too.

    Attributes:
        name: the vector's.
        faults: what makes it out of the good vector, if its own capture lacks RAM.
    """

    name: str
    faults: tuple[str, ...] = ()

    def run(self, inside: Inside) -> None:
        """Replay it as it was sent; the verdict is that of then."""
        expected: dict[str, Any] = json.loads((_VECTORS / "verdicts.json").read_text())[self.name]
        assert expected["profile"] == "10.0"
        setup = expected["destination"]
        ports = setup["mtty_ports"]
        words = ["--destination", f"device={setup['device']},mtty-ports={ports}"]
        for fault in self.faults:
            words += ["--fault", fault]
        capture = _VECTORS / f"{_WHOLE if self.faults else self.name}.pcap.gz"
        stalls = expected["outcome"] == "stalled"
        found = replayed(inside, capture, words, ports=(ports,), stalls=stalls)
        assert found["outcome"] == expected["outcome"]
        if found["outcome"] != "aborted":
            # What a process says while it is killed may not get out in one piece.
            assert found["stderr"] == expected["stderr"]
        (device,) = found["devices"]
        assert device["reset"] == expected["device_reset"]


@dataclass(frozen=True, slots=True)
class Refused:
    """A handshake that a destination refuses: it exits at once.

    Attributes:
        name: the scenario's.
        fault: what is wrong.
        error: what it says.
    """

    name: str
    fault: str
    error: str

    def run(self, inside: Inside) -> None:
        """Replay the good vector with the fault."""
        found = replayed(inside, _VECTORS / f"{_WHOLE}.pcap.gz", ("--fault", self.fault))
        assert (found["outcome"], found["exit_status"]) == ("failed", 1)
        assert self.error in found["error"]


_JUDGED: Final = (
    Judged("v03-dup-data"),
    Judged("v07-idx-max"),
    Judged("v13-wrong-instance"),
    Judged("v14-config-bad-marker"),
    Judged("v20-early-before-switchover"),
    Judged("v24-bad-multifd-magic"),
    Judged("v27-oversize-config"),
    Judged("v30-wrong-device-type"),
    Judged("m01_no_switchover", ("drop:main#38",)),
    Judged("m02_two_switchovers"),
    Judged("m09_end_with_data"),
    Judged("m13_unknown_idstr"),
)

_REFUSED: Final = (
    Refused("channel-id-too-large", "set:multifd-3#0:id=9", "channel id 9 is greater than"),
    Refused("channel-id-duplicate", "set:multifd-3#0:id=0", "received id '0' already setup"),
    Refused("handshake-uuid", "corrupt:multifd-3#0:8+1", "received uuid 'ff000000-"),
)

SCENARIOS: Final = tuple(
    Scenario(name=f"qemu-{each.name}", run=each.run, seconds=SECONDS)
    for each in (*_JUDGED, *_REFUSED)
)
