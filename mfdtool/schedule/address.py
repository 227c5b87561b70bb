# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of single packets: ``multifd-2#14``, or ``dev=0000:00:05.0/vfio,idx=7,nth=2``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.errors import ScheduleError
from mfdtool.stream.selection import is_device
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.schedule.observation import Observation
    from mfdtool.stream.frames import Frame

ADDRESS: Final = (
    r"dev=(?P<idstr>[^,\s]+),idx=(?P<idx>[0-9]{1,10})(?:,nth=(?P<nth>[1-9][0-9]{0,8}))?"
    r"|(?P<channel>[a-z][a-z-]*\??[0-9]*)#(?P<number>[0-9]{1,12})"
)
"""The grammar, as part of a regular expression."""

_ADDRESS: Final = re.compile(ADDRESS)


@dataclass(frozen=True, slots=True)
class FrameAddress:
    """A frame by its channel and its number there, as ``decode`` shows them."""

    channel: str
    number: int

    def __str__(self) -> str:
        return f"{self.channel}#{self.number}"

    def resolve(self, observation: Observation) -> Frame:
        """Find the frame.

        Raises:
            ScheduleError: there is none of that name.
        """
        frames = observation.by_channel.get(self.channel)
        if frames is None:
            names = ", ".join(observation.by_channel)
            raise ScheduleError(f"there is no channel {self.channel} (there are {names})")
        for frame in frames:
            if frame.number == self.number:
                return frame
        raise ScheduleError(f"there is no packet {self}")


@dataclass(frozen=True, slots=True)
class PacketAddress:
    """A device packet by its device and idx; ``nth`` from 1 in the order of arrival.

    The device is given as in a `Selection`: by its idstr or the first part of it.
    """

    idstr: str
    idx: int
    nth: int = 1

    def __str__(self) -> str:
        text = f"dev={self.idstr},idx={self.idx}"
        return text if self.nth == 1 else f"{text},nth={self.nth}"

    def resolve(self, observation: Observation) -> Frame:
        """Find the packet.

        Raises:
            ScheduleError: there is none of that name.
        """
        for count, frame in enumerate(self._matching(observation), start=1):
            if count == self.nth:
                return frame
        raise ScheduleError(f"there is no packet {self}")

    def _matching(self, observation: Observation) -> Iterator[Frame]:
        for frame in observation.frames:
            value = frame.value
            if not isinstance(value, DeviceStateHeader) or value.idx != self.idx:
                continue
            if is_device(value.idstr_text, (self.idstr,)):
                yield frame


Address = FrameAddress | PacketAddress


def parse_address(text: str) -> Address:
    """Read a packet's name.

    Raises:
        ScheduleError: it is none.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ScheduleError(
            f"{text!r} names no packet: CHANNEL#NUMBER or dev=IDSTR,idx=N[,nth=N] is wanted"
        )
    if match["channel"] is not None:
        return FrameAddress(match["channel"], int(match["number"]))
    return PacketAddress(match["idstr"], int(match["idx"]), int(match["nth"] or 1))


def address_of(frame: Frame) -> FrameAddress:
    """Name a frame; it must be one that has a number."""
    assert frame.number is not None
    return FrameAddress(frame.channel.name, frame.number)
