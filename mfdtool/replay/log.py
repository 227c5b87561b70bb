# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the log of a real destination: the trace events that the model knows, and errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mfdtool.loader.trace import MIGRATION_FORMATS, VFIO_FORMATS

_LINE: Final = re.compile(r"(?:[0-9]+@[0-9.]+:)?([a-z0-9_]+) ?(.*)")
_DEVICE: Final = re.compile(r" ?\(([^()]+)\)(.*)")
_ERROR: Final = re.compile(r"(?:\S+ )?qemu-system-[a-z0-9_]+: (.*)")
_NUMBER: Final = re.compile(r"(?<![\w.])-?[0-9]+(?![\w.])")
_SIGNAL: Final = "terminating on signal"
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class LogLine:
    """A trace event of a log.

    Attributes:
        number: which line it is, from 1.
        name: of the event.
        args: its arguments as text, without the device's name.
        device: the host's name of the device, empty if the event is about none.
    """

    number: int
    name: str
    args: str
    device: str = ""

    @property
    def text(self) -> str:
        """The event as QEMU writes it."""
        return f"{self.name}  ({self.device}){self.args}" if self.device else self._plain

    @property
    def _plain(self) -> str:
        return f"{self.name} {self.args}"

    @property
    def first_number(self) -> int:
        """The first decimal number of the arguments, -1 if there is none."""
        match = _NUMBER.search(self.args)
        return int(match[0]) if match is not None else -1


@dataclass(frozen=True, slots=True)
class Log:
    """A log up to the signal that ends QEMU.

    Attributes:
        events: trace events that the model knows.
        errors: what QEMU printed since the first event, by number of line.
        last: number of the last line that was read.
    """

    events: tuple[LogLine, ...]
    errors: tuple[tuple[int, str], ...]
    last: int

    @property
    def device_names(self) -> tuple[str, ...]:
        """The host's names of the devices, in order of appearance."""
        return tuple(dict.fromkeys(event.device for event in self.events if event.device))


def parse_log(lines: Iterable[str]) -> Log:
    """Read the lines of a log; those that are neither events nor errors are passed over."""
    events: list[LogLine] = []
    errors: list[tuple[int, str]] = []
    number = 0
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")[:_LONGEST]
        if _SIGNAL in line:
            break
        error = _ERROR.match(line)
        if error is not None:
            if events:
                errors.append((number, error[1]))
            continue
        event = _event(number, line)
        if event is not None:
            events.append(event)
    return Log(tuple(events), tuple(errors), number)


def _event(number: int, line: str) -> LogLine | None:
    match = _LINE.match(line)
    if match is None:
        return None
    name, args = match[1], match[2]
    if name in MIGRATION_FORMATS:
        return LogLine(number, name, args)
    device = _DEVICE.match(args)
    if name in VFIO_FORMATS and device is not None:
        return LogLine(number, name, device[2], device[1])
    return None
