# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults from a budget: ``drop=1,dup=1,set=1`` allows at most one of each kind, in one run.

Every combination up to the budget is a variant of the recording, fewer faults first. Held packets
are no part of it: all orders are tried anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Final

from mfdtool.errors import ScheduleError
from mfdtool.schedule.address import address_of
from mfdtool.schedule.faults import (
    Corrupt,
    Disconnect,
    Drop,
    Duplicate,
    Fault,
    Hold,
    SetField,
    Truncate,
)
from mfdtool.stream.frames import Frame, Kind
from mfdtool.wire.constants import VFIO_INVALID_IDX, MultiFDFlag
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from mfdtool.schedule.observation import Observation

MOST: Final = 8
"""Of no kind may there be more."""

_SIZE: Final = 288
"""Bytes before a device packet's data."""

_DROPPED: Final = frozenset({Kind.MULTIFD_DEVICE_STATE, Kind.MAIN_COMMAND, Kind.VFIO_MARKER})


@dataclass(frozen=True, slots=True)
class Budget:
    """How many faults of each kind there may be at most, by the kind's name."""

    most: Mapping[str, int]

    def __str__(self) -> str:
        return ",".join(f"{kind}={count}" for kind, count in self.most.items())


NO_FAULTS: Final = Budget({})


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Raises:
        ScheduleError: it is none; the message says what is wrong.
    """
    most: dict[str, int] = {}
    for item in text.split(","):
        kind, _, count = item.partition("=")
        if kind == Hold.KIND:
            raise ScheduleError("hold: all orders are tried anyway")
        if kind not in _CANDIDATES:
            raise ScheduleError(f"{kind!r} is no kind of fault; there are {', '.join(_CANDIDATES)}")
        if kind in most:
            raise ScheduleError(f"{kind} is there twice")
        if not count.isascii() or not count.isdecimal() or len(count) > 1 or int(count) > MOST:
            raise ScheduleError(f"{item!r} is not {kind}=N, with N from 0 to {MOST}")
        most[kind] = int(count)
    return Budget(most)


def variants(observation: Observation, budget: Budget) -> Iterator[tuple[Fault, ...]]:
    """Give all combinations of faults in a budget; the first has none."""
    frames = [frame for frame in observation.frames if frame.number is not None]
    kinds = [kind for kind, count in budget.most.items() if count]
    candidates = {kind: list(_CANDIDATES[kind](observation, frames)) for kind in kinds}
    amounts = sorted(product(*(range(budget.most[kind] + 1) for kind in kinds)), key=_by_total)
    for counts in amounts:
        chosen = [
            combinations(candidates[kind], count) for kind, count in zip(kinds, counts, strict=True)
        ]
        for groups in product(*chosen):
            faults = tuple(fault for group in groups for fault in group)
            if _make_sense(faults):
                yield faults


def _by_total(counts: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    return sum(counts), tuple(-count for count in counts)


def _make_sense(faults: Sequence[Fault]) -> bool:
    """Whether no fault is about a packet that does not arrive, or a field that is set twice."""
    dropped = {fault.address for fault in faults if isinstance(fault, Drop)}
    fields = [(fault.address, fault.field) for fault in faults if isinstance(fault, SetField)]
    others = [fault for fault in faults if not isinstance(fault, Drop)]
    return len(set(fields)) == len(fields) and all(fault.address not in dropped for fault in others)


# What is tried of each kind.


def _drops(observation: Observation, frames: Sequence[Frame]) -> Iterator[Fault]:
    for frame in frames:
        if frame.kind in _DROPPED:
            yield Drop(address_of(frame))


def _duplicates(observation: Observation, frames: Sequence[Frame]) -> Iterator[Fault]:
    """Repeat device packets on each channel, and commands."""
    channels = [name for name in observation.by_channel if name.startswith("multifd-")]
    for frame in frames:
        if frame.kind is Kind.MAIN_COMMAND:
            yield Duplicate(address_of(frame))
        elif frame.kind is Kind.MULTIFD_DEVICE_STATE:
            yield Duplicate(address_of(frame))
            for channel in channels:
                if channel != frame.channel.name:
                    yield Duplicate(address_of(frame), channel)


def _sets(observation: Observation, frames: Sequence[Frame]) -> Iterator[Fault]:
    """Give the fields of device packets other values."""
    packets = _packets(frames)
    used: dict[tuple[bytes, int], set[int]] = {}
    for _, header in packets:
        used.setdefault((header.idstr, header.instance_id), set()).add(header.idx)
    for frame, header in packets:
        idxs = used[header.idstr, header.instance_id]
        for name, values in _values(header, idxs).items():
            for value in sorted(values - {getattr(header, name)}):
                yield SetField(address_of(frame), name, str(value))


def _values(header: DeviceStateHeader, idxs: set[int]) -> dict[str, set[int]]:
    """Give the interesting values of each field."""
    idx = header.idx
    near = {near for near in (idx - 1, idx + 1) if 0 <= near <= VFIO_INVALID_IDX}
    return {
        "idx": {0, 1, VFIO_INVALID_IDX - 1, VFIO_INVALID_IDX} | near | idxs,
        "flags": {0, 1},
        "version": {1},
        "magic": {0},
        "packet_version": {0, header.packet_version + 1},
        "instance_id": {1, VFIO_INVALID_IDX},
        "packet_flags": {0, MultiFDFlag.DEVICE_STATE | MultiFDFlag.SYNC},
        "next_packet_size": {0, VFIO_INVALID_IDX},
    }


def _corruptions(observation: Observation, frames: Sequence[Frame]) -> Iterator[Fault]:
    """Invert the first and the last byte of a device packet's data."""
    for frame, _ in _packets(frames):
        for offset in sorted({_SIZE, frame.length - 1}):
            if _SIZE <= offset < frame.length:
                yield Corrupt(address_of(frame), offset, 1)


def _truncations(observation: Observation, frames: Sequence[Frame]) -> Iterator[Fault]:
    """Leave out a device packet's data, and its last byte."""
    for frame, _ in _packets(frames):
        for length in sorted({_SIZE, frame.length - 1}):
            if length < frame.length:
                yield Truncate(address_of(frame), length)


def _disconnections(observation: Observation, frames: Sequence[Frame]) -> Iterator[Fault]:
    for frame, _ in _packets(frames):
        yield Disconnect(address_of(frame))
        yield Disconnect(address_of(frame), reset=True)


def _packets(frames: Sequence[Frame]) -> list[tuple[Frame, DeviceStateHeader]]:
    """Give the device packets whose headers are known."""
    return [(frame, frame.value) for frame in frames if isinstance(frame.value, DeviceStateHeader)]


_CANDIDATES: Final[Mapping[str, Callable[[Observation, Sequence[Frame]], Iterator[Fault]]]] = {
    "drop": _drops,
    "dup": _duplicates,
    "set": _sets,
    "corrupt": _corruptions,
    "truncate": _truncations,
    "disconnect": _disconnections,
}
