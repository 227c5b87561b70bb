# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoded headers that are more than one message of the wire package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.codec import Message
from mfdtool.wire.main_stream import CommandHeader, CommandPayload
from mfdtool.wire.ram import MemSizeEntry
from mfdtool.wire.return_path import ReturnPathMessage, ReturnPathPayload


@dataclass(frozen=True, slots=True)
class RamRecord:
    """One record of a RAM section (ram.c:ram_load_precopy).

    Attributes:
        flags: the low bits of its first word.
        addr: the other bits: an offset in the block, or for MEM_SIZE all blocks' bytes.
        ramblock: the block it is about, also where CONTINUE omits the name; empty if none.
        entries: the blocks of a MEM_SIZE record.
        fill: what fills a ZERO page.
        mapped: of each entry with mapped-ram, how many pages its bitmap names.
        origin: where in the file the stream begins, if places in ``entries`` count from there.
    """

    flags: int
    addr: int
    ramblock: str = ""
    entries: tuple[MemSizeEntry, ...] = ()
    fill: int | None = None
    mapped: tuple[int, ...] = ()
    origin: int = 0


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command of the main stream; ``payload`` is None if it is empty or not understood."""

    header: CommandHeader
    payload: CommandPayload | None


@dataclass(frozen=True, slots=True)
class MarkerRecord:
    """A VFIO marker of the main stream, and how many bytes of data or config are behind it."""

    marker: int
    data_length: int = 0


@dataclass(frozen=True, slots=True)
class ReturnPathRecord:
    """A message of the return path; ``payload`` is None if it is empty or not understood."""

    header: ReturnPathMessage
    payload: ReturnPathPayload | None


Value: TypeAlias = (
    Message
    | RamRecord
    | CommandRecord
    | MarkerRecord
    | ReturnPathRecord
    | DeviceState
    | RecordsBody
)
"""What a frame's header can be."""
