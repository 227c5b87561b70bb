# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration as the loader takes it: events in the order of arrival, and what else is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mfdtool.loader.events import Connect, Deliver
from mfdtool.wire.constants import X86_PAGE_SIZE

if TYPE_CHECKING:
    from mfdtool.loader.destination import RamBlock


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that arrived.

    Attributes:
        event: what it means to the destination.
        channel: name of the channel, as ``decode`` shows it.
        number: number of its frame in the channel; None if it has none.
        offset: where it begins in the channel.
        time_ns: when its last byte arrived; -1 if unknown.
    """

    event: Connect | Deliver
    channel: str
    number: int | None = None
    offset: int = 0
    time_ns: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One migration.

    Attributes:
        migration: its number in the capture.
        entries: what arrived, in that order.
        page_size: target page size.
        blocks: the RAM blocks that the source lists; None if the list was not captured.
        acks: messages SWITCHOVER_ACK on the return path.
        resets: names of the multifd channels that were reset.
        is_whole: whether every packet that was sent is there, by the packet numbers; if not, the
            recording was cut together and its times tell nothing.
    """

    migration: int = 0
    entries: tuple[Entry, ...] = ()
    page_size: int = X86_PAGE_SIZE
    blocks: tuple[RamBlock, ...] | None = None
    acks: int = 0
    resets: tuple[str, ...] = ()
    is_whole: bool = True
    names: tuple[str, ...] = field(default=())
    """Names of the multifd channels, in the order in which they connect."""
