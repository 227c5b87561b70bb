# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults on the way from source to destination, as values and as text.

::

    drop:multifd-2#14                       the packet never arrives
    duplicate:multifd-2#14                  it arrives twice, one right behind the other
    duplicate:multifd-2#14:multifd-0        the copy arrives on another channel, at the same time
    corrupt:multifd-2#14:300+4              four bytes, from byte 300 of it on, are inverted
    corrupt:multifd-2#14:300=deadbeef       bytes from 300 on are these
    truncate:multifd-2#14:200               only its first 200 bytes are sent
    set:multifd-2#14:idx=7                  a field of its header has another value
    hold:multifd-2#14:main#92               it arrives only after the other one
    disconnect:multifd-2#14                 its channel ends right behind it
    disconnect:multifd-2#14:rst             its channel is reset right behind it

Packets can also be named by device and idx. A fault's address is that of the packet in the
recording, whatever other faults there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from mfdtool.errors import ScheduleError
from mfdtool.schedule.address import ADDRESS, Address, parse_address

_RESET: Final = "rst"


@dataclass(frozen=True, slots=True)
class Drop:
    """A packet never arrives."""

    KIND: ClassVar[str] = "drop"
    address: Address

    def __str__(self) -> str:
        return f"{self.KIND}:{self.address}"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A packet arrives twice; the copy on ``channel``, or right behind the original if None."""

    KIND: ClassVar[str] = "duplicate"
    address: Address
    channel: str | None = None

    def __str__(self) -> str:
        text = f"{self.KIND}:{self.address}"
        return text if self.channel is None else f"{text}:{self.channel}"


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Bytes of a packet, from ``offset`` on, are replaced; ``length`` are inverted if not."""

    KIND: ClassVar[str] = "corrupt"
    address: Address
    offset: int
    length: int
    data: bytes | None = None

    def __str__(self) -> str:
        what = f"+{self.length}" if self.data is None else f"={self.data.hex()}"
        return f"{self.KIND}:{self.address}:{self.offset}{what}"


@dataclass(frozen=True, slots=True)
class Truncate:
    """Only the first ``length`` bytes of a packet are sent."""

    KIND: ClassVar[str] = "truncate"
    address: Address
    length: int

    def __str__(self) -> str:
        return f"{self.KIND}:{self.address}:{self.length}"


@dataclass(frozen=True, slots=True)
class SetField:
    """A field of a packet's header has another value, given as text."""

    KIND: ClassVar[str] = "set"
    address: Address
    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.KIND}:{self.address}:{self.field}={self.value}"


@dataclass(frozen=True, slots=True)
class Hold:
    """A packet, and what is behind it in its channel, arrives only after another packet."""

    KIND: ClassVar[str] = "hold"
    address: Address
    until: Address

    def __str__(self) -> str:
        return f"{self.KIND}:{self.address}:{self.until}"


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A packet's channel ends right behind it."""

    KIND: ClassVar[str] = "disconnect"
    address: Address
    reset: bool = False

    def __str__(self) -> str:
        text = f"{self.KIND}:{self.address}"
        return f"{text}:{_RESET}" if self.reset else text


Fault: TypeAlias = Drop | Duplicate | Corrupt | Truncate | SetField | Hold | Disconnect

_FAULT: Final = re.compile(rf"([a-z]+):({ADDRESS})(?::(.*))?", re.DOTALL)
_RANGE: Final = re.compile(r"([0-9]{1,15})(?:\+([1-9][0-9]{0,9})|=((?:[0-9a-fA-F]{2})+))")
_CHANNEL: Final = re.compile(r"[a-z][a-z-]*\??[0-9]*")


def parse_fault(text: str) -> Fault:
    """Read a fault's text.

    Raises:
        ScheduleError: it is none; the message says what is wanted.
    """
    match = _FAULT.fullmatch(text)
    kind = match[1] if match is not None else text.partition(":")[0]
    maker = _MAKERS.get(kind)
    if maker is None:
        raise ScheduleError(f"{kind!r} is no fault; there are {', '.join(_MAKERS)}")
    if match is None:
        raise ScheduleError(f"{text!r}: {kind}:CHANNEL#NUMBER or {kind}:dev=IDSTR,idx=N is wanted")
    return maker(parse_address(match[2]), match[match.re.groups])


def _drop(address: Address, rest: str | None) -> Drop:
    _nothing(rest)
    return Drop(address)


def _duplicate(address: Address, rest: str | None) -> Duplicate:
    if rest is not None and not _CHANNEL.fullmatch(rest):
        raise ScheduleError(f"{rest!r} names no channel")
    return Duplicate(address, rest)


def _corrupt(address: Address, rest: str | None) -> Corrupt:
    match = _RANGE.fullmatch(rest or "")
    if match is None:
        raise ScheduleError(f"{rest!r} is no range: OFFSET+LENGTH or OFFSET=HEX is wanted")
    if match[3] is None:
        return Corrupt(address, int(match[1]), int(match[2]))
    data = bytes.fromhex(match[3])
    return Corrupt(address, int(match[1]), len(data), data)


def _truncate(address: Address, rest: str | None) -> Truncate:
    if rest is None or not rest.isascii() or not rest.isdecimal() or len(rest) > 15:
        raise ScheduleError(f"{rest!r} is no length")
    return Truncate(address, int(rest))


def _set_field(address: Address, rest: str | None) -> SetField:
    name, equals, value = (rest or "").partition("=")
    if not equals or not name:
        raise ScheduleError(f"{rest or ''!r} is not FIELD=VALUE")
    return SetField(address, name, value)


def _hold(address: Address, rest: str | None) -> Hold:
    if rest is None:
        raise ScheduleError("hold: the packet to wait for is missing")
    return Hold(address, parse_address(rest))


def _disconnect(address: Address, rest: str | None) -> Disconnect:
    if rest not in {None, _RESET}:
        raise ScheduleError(f"{rest!r} is not {_RESET!r}")
    return Disconnect(address, rest == _RESET)


def _nothing(rest: str | None) -> None:
    if rest is not None:
        raise ScheduleError(f"{rest!r} has no meaning here")


_MAKERS: Final[Mapping[str, Callable[[Address, str | None], Fault]]] = {
    Drop.KIND: _drop,
    Duplicate.KIND: _duplicate,
    Corrupt.KIND: _corrupt,
    Truncate.KIND: _truncate,
    SetField.KIND: _set_field,
    Hold.KIND: _hold,
    Disconnect.KIND: _disconnect,
}
