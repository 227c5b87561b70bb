# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a destination that has not ended does not go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mfdtool.loader.moves import LoadPhase, MainPhase, ReceivePhase
from mfdtool.loader.state import UNKNOWN_LAST

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.state import Device, State


class Stall(NamedTuple):
    """One thread that waits for what does not come, and the rule that promises it."""

    rule: str
    message: str
    device: int | None = None


def why_stalled(
    destination: Destination, state: State, names: Sequence[str] = ()
) -> Iterator[Stall]:
    """Give the waits that keep a destination from ending; ``names`` are those of the channels."""
    phase = state.main.phase
    if phase is MainPhase.CONNECTING:
        count = sum(found is not None for found in state.receivers)
        main = "" if state.main.has_channel else ", and the main channel is missing"
        message = f"{count} of {destination.channels} multifd channels are there{main}"
        yield Stall("channels-missing", message)
    elif phase is MainPhase.SYNCING:
        yield from _sync(destination, state, names)
    elif phase is MainPhase.JOINING:
        for number, device in enumerate(state.devices):
            yield from _device(destination, number, device)
    elif phase is not MainPhase.STUCK:
        yield Stall("capture-ends", f"the main thread waits for more: it is at {phase.value}")


def _sync(destination: Destination, state: State, names: Sequence[str]) -> Iterator[Stall]:
    """Name the channels that the flush in progress still wants a SYNC of."""
    locked = [
        number
        for number, found in enumerate(state.receivers)
        if found is not None and found.phase is ReceivePhase.LOCKED
    ]
    if locked:
        yield Stall("lock-cycle", "the main thread, a load thread and a receive thread wait")
    late = [
        names[number] if number < len(names) else str(number)
        for number, found in enumerate(state.receivers)
        if found is not None and found.phase is not ReceivePhase.SYNCING and number not in locked
    ]
    flush = state.main.flushes + 1
    yield Stall("flush-without-sync", f"flush {flush} got no SYNC from {', '.join(late)}")


def _device(destination: Destination, number: int, device: Device) -> Iterator[Stall]:
    phase = device.phase
    if phase is LoadPhase.AWAITING:
        yield Stall("load-ready-missing", "the config waits for DEV_CONFIG_LOAD_READY", number)
    elif phase is LoadPhase.WRITING:
        yield Stall("device-write-hangs", f"write of buffer {device.cur} never ends", number)
    elif phase is LoadPhase.STARVED:
        what = "no config packet came" if device.last == UNKNOWN_LAST else f"last is {device.last}"
        message = f"the load thread waits for idx {device.cur}, {what}"
        yield Stall("device-unfinished", message, number)
