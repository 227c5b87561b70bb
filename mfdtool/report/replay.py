# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay for people: what arrived, where every thread is, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mfdtool.loader.commands import Abort, Fail, Print, Trace, Violate, WriteBuffer
from mfdtool.loader.events import ActorKind, Connect, Deliver, End, Step
from mfdtool.loader.machine import Loader
from mfdtool.loader.moves import LoadPhase, MainPhase, ReceivePhase
from mfdtool.loader.state import UNKNOWN_LAST
from mfdtool.loader.trace import trace_line
from mfdtool.report.text import summary
from mfdtool.report.units import count_text
from mfdtool.schedule.faults import (
    Corrupt,
    Disconnect,
    Drop,
    Duplicate,
    Hold,
    SetField,
    Truncate,
)

if TYPE_CHECKING:
    from mfdtool.loader.commands import Command
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.recording import Entry
    from mfdtool.loader.state import Device, Receiver, State
    from mfdtool.replay.driver import Moment
    from mfdtool.schedule.faults import Fault
    from mfdtool.stream.frames import Frame

_SLOTS_LISTED: Final = 1024
"""A state with more buffers that wait shows how many there are, not which."""

_RANGES_LISTED: Final = 8
_INDENT: Final = "  "


# Places and faults.


def place_text(entry: Entry) -> str:
    """Name what arrives: ``multifd-2#14``; the end of a channel has no number."""
    return entry.channel if entry.number is None else f"{entry.channel}#{entry.number}"


def frame_text(frame: Frame) -> str:
    """Say what a frame is: ``device_state 0000:00:05.0/vfio idx 3 16 bytes``."""
    return f"{frame.kind.value.rpartition('.')[2]} {summary(frame)}".rstrip()


def fault_text(fault: Fault, frame: Frame, until: Frame | None = None) -> str:
    """Say what a fault did to a frame, with the frame that it was held for."""
    text = f"{frame_text(frame)}, {_FAULTS[type(fault)](fault)}"
    return text if until is None else f"{text} {until.channel.name}#{until.number}"


def _corrupted(fault: Corrupt) -> str:
    what = "inverted" if fault.data is None else f"set to {fault.data.hex()}"
    return f"{count_text(fault.length, 'byte')} from offset {fault.offset} on {what}"


def _duplicated(fault: Duplicate) -> str:
    return "duplicated" if fault.channel is None else f"duplicated on {fault.channel}"


def _disconnected(fault: Disconnect) -> str:
    return f"its channel {'is reset' if fault.reset else 'ends'} behind it"


_FAULTS: Final[Mapping[type, Callable[[Any], str]]] = {
    Drop: lambda fault: "dropped",
    Duplicate: _duplicated,
    Corrupt: _corrupted,
    Truncate: lambda fault: f"cut to {count_text(fault.length, 'byte')}",
    SetField: lambda fault: f"{fault.field} set to {fault.value}",
    Hold: lambda fault: "held until behind",
    Disconnect: _disconnected,
}


# The state.


def moment_lines(moment: Moment, destination: Destination, frame: Frame | None) -> Iterator[str]:
    """Show an event and the destination after it, on one screen.

    ``frame`` is what arrived, None for a step of a thread and for the end of a channel.
    """
    yield f"{_event_text(moment, destination)}{f': {frame_text(frame)}' if frame else ''}"
    yield from (f"{_INDENT}{line}" for line in _done(moment.commands, destination))
    state = moment.state
    yield f"{_INDENT}{'main':14}{main_text(state, destination, moment.names)}"
    for number, receiver in enumerate(state.receivers):
        if receiver is not None:
            yield f"{_INDENT}{_receiver_text(number, receiver, moment)}"
    for number, device in enumerate(state.devices):
        yield f"{_INDENT}{destination.devices[number].idstr}: {device_text(device)}"
    yield f"{_INDENT}next: {_next_text(moment, destination)}"


def _event_text(moment: Moment, destination: Destination) -> str:
    event = moment.event
    if isinstance(event, Step):
        kind, number = event.actor
        if kind is ActorKind.LOAD:
            return f"step of the load thread of {destination.devices[number].idstr}"
        return "step of the main thread"
    assert moment.entry is not None
    place = place_text(moment.entry)
    if isinstance(event, Connect):
        return f"{place} connects"
    if isinstance(event.item, End):
        return f"{place} ends"
    return place


def _done(commands: Iterable[Command], destination: Destination) -> Iterator[str]:
    """Say what the destination did about the event."""
    names = [device.idstr.removesuffix("/vfio") for device in destination.devices]
    for command in commands:
        if isinstance(command, Trace):
            yield trace_line(command, names.__getitem__)
        elif isinstance(command, Print):
            yield f"prints: {command.text}"
        elif isinstance(command, Violate):
            yield f"breaks {command.rule}: {command.message}"
        elif isinstance(command, WriteBuffer):
            what = "data of the main stream" if command.idx is None else f"buffer {command.idx}"
            size = count_text(command.data.length, "byte")
            yield f"wrote {what}, {size}, to {destination.devices[command.device].idstr}"
        elif isinstance(command, Abort | Fail):
            yield f"the destination {'dies' if isinstance(command, Abort) else 'exits'}"


def main_text(state: State, destination: Destination, names: Sequence[str]) -> str:
    """Say where the main thread is and what it waits for."""
    main = state.main
    there = [found for found in state.receivers if found is not None]
    if main.phase is MainPhase.CONNECTING:
        missing = "" if main.has_channel else ", and the main channel"
        return f"connecting: {len(there)} of {destination.channels} channels are there{missing}"
    if main.phase is MainPhase.SYNCING:
        late = [
            names[number]
            for number, found in enumerate(state.receivers)
            if found is not None and found.phase is not ReceivePhase.SYNCING
        ]
        count = f"{main.collected} of {destination.channels}"
        return f"syncing: has {count} SYNCs, waits for {', '.join(late) or 'more'}"
    if main.phase is MainPhase.JOINING:
        busy = [
            destination.devices[number].idstr
            for number, device in enumerate(state.devices)
            if device.phase not in _DONE
        ]
        return f"joining: waits for the load thread of {', '.join(busy)}"
    section = main.section if main.phase in {MainPhase.SECTION, MainPhase.FOOTER} else None
    where = f" of {section.idstr}" if section is not None else ""
    return f"{main.phase.value}{where}"


_DONE: Final = frozenset({LoadPhase.IDLE, LoadPhase.LOADED, LoadPhase.FAILED})


def _receiver_text(number: int, receiver: Receiver, moment: Moment) -> str:
    name = moment.names[number] if number < len(moment.names) else f"connection {number}"
    text = f"{name:14}{receiver.phase.value}"
    if receiver.phase is ReceivePhase.SYNCING:
        text += ": waits for the main thread's flush"
    elif receiver.phase is ReceivePhase.LOCKED and receiver.held is not None:
        text += f": waits for the mutex of {receiver.held.idstr}, with idx {receiver.held.idx}"
    text += f", {count_text(receiver.packets, 'packet')} read"
    waiting = len(moment.queued.get(name, ()))
    return f"{text}, {waiting} more waiting" if waiting else text


def device_text(device: Device) -> str:
    """Say where a device's load thread is, what waits for it, and what the device has."""
    last = "no config yet" if device.last == UNKNOWN_LAST else f"config at {device.last}"
    parts = [_LOAD_TEXTS.get(device.phase, device.phase.value).format(cur=device.cur), last]
    if len(device.slots):
        parts.append(f"waiting idx {_slots_text(device)}")
    parts.append(f"{device.queued} bytes queued")
    parts.append(f"{device.intake.size} bytes written")
    return ", ".join(parts)


_LOAD_TEXTS: Final = {
    LoadPhase.IDLE: "no load thread, next idx {cur}",
    LoadPhase.SPAWNED: "load thread spawned, next idx {cur}",
    LoadPhase.LOOKING: "looking, next idx {cur}",
    LoadPhase.STARVED: "starved: waits for idx {cur}",
    LoadPhase.WRITING: "writing idx {cur}",
    LoadPhase.AWAITING: "awaiting DEV_CONFIG_LOAD_READY",
    LoadPhase.READY: "about to load the config",
    LoadPhase.LOADING: "loading the config at {cur}",
}


def _slots_text(device: Device) -> str:
    if len(device.slots) > _SLOTS_LISTED:
        return f"in {len(device.slots)} slots"
    ranges: list[list[int]] = []
    for idx in sorted(device.slots):
        if ranges and ranges[-1][1] == idx - 1:
            ranges[-1][1] = idx
        else:
            ranges.append([idx, idx])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in ranges[:_RANGES_LISTED]]
    more = len(ranges) - _RANGES_LISTED
    return " ".join(shown) + (f" and {more} more ranges" if more > 0 else "")


def _next_text(moment: Moment, destination: Destination) -> str:
    """Say which threads can go on without anything more arriving."""
    state = moment.state
    if state.outcome is not None:
        return f"nothing, the destination {_ENDS[state.outcome.value]}"
    loader = Loader(destination)
    able = [
        "the main thread sets devices up"
        if step.actor.kind is ActorKind.MAIN
        else f"the load thread of {destination.devices[step.actor.number].idstr} can go on"
        for step in loader.steps(state)
    ]
    numbers = {name: number for number, name in enumerate(moment.names)}
    for name, queue in moment.queued.items():
        if not queue or not isinstance(event := queue[0][1].event, Deliver):
            continue
        number = numbers.get(name)
        why = loader.why_not(state, Deliver(number, event.item))
        reads = "reads" if not why else "cannot read"
        what = "its end" if isinstance(event.item, End) else place_text(queue[0][1])
        able.append(f"{name} {reads} {what}{f' ({why})' if why else ''}")
    return "; ".join(able) or "nothing, until more arrives"


_ENDS: Final = {
    "completed": "has completed",
    "failed": "has failed",
    "aborted": "is dead",
    "stalled": "has stalled",
}
