# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios: what is done in the lab's virtual machine, one test each."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from signal import SIGALRM, alarm, signal
from time import monotonic
from typing import Any, Final

from mfdtool.live.vfio.kernel import LinuxKernel

TYPES: Final = Path("/sys/class/mdev_bus/mtty/mdev_supported_types")
_DEVICES: Final = Path("/sys/bus/mdev/devices")
_UUID: Final = "83b8f4f2-509f-382f-3c1e-{:012d}"
_numbers: Final = count(1)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a scenario.

    Attributes:
        error: traceback; empty if it passed.
        seconds: how long it took.
        notes: what it wants to be known: any JSON.
    """

    error: str
    seconds: float
    notes: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what the machine wrote."""
        return cls(**json.loads(path.read_text()))


@dataclass(slots=True)
class Inside:
    """What a scenario works with, inside the machine.

    Attributes:
        folder: its own folder, which the tests outside see too.
        tools: the lab's folder.
        kernel: the machine's kernel.
        stack: what is undone at the scenario's end.
        notes: what it wants to be known outside.
    """

    folder: Path
    tools: Path
    stack: ExitStack
    kernel: LinuxKernel = field(default_factory=LinuxKernel)
    notes: dict[str, Any] = field(default_factory=dict)

    def device(self, *, ports: int = 2) -> str:
        """Make an mtty of one or two ports, for this scenario only; give its UUID."""
        uuid = _UUID.format(next(_numbers))
        (TYPES / f"mtty-{ports}" / "create").write_text(uuid)
        self.stack.callback((_DEVICES / uuid / "remove").write_text, "1")
        return uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One test.

    Attributes:
        name: its name, also of its folder.
        run: what is done, with assertions.
        seconds: how long it may take.
    """

    name: str
    run: Callable[[Inside], None]
    seconds: int = 300


def play(scenario: Scenario, out: Path, tools: Path) -> Result:
    """Run a scenario in the machine, and write what became of it."""
    folder = out / scenario.name
    folder.mkdir()
    start = monotonic()
    error = ""
    notes: dict[str, Any] = {}
    try:
        with _limited(scenario.seconds), ExitStack() as stack:
            inside = Inside(folder=folder, tools=tools, stack=stack)
            notes = inside.notes
            scenario.run(inside)
    except Exception:
        # Whatever it was is told outside.
        error = traceback.format_exc()
    result = Result(error, round(monotonic() - start, 3), notes)
    (out / f"{scenario.name}.json").write_text(json.dumps(asdict(result)))
    return result


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"the scenario took more than {seconds} s")

    signal(SIGALRM, ring)
    alarm(seconds)
    try:
        yield
    finally:
        alarm(0)
