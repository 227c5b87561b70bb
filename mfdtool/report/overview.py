# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of an input as a whole: the file, its migrations, and what else is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mfdtool.packets.values import Endpoint
from mfdtool.stream.channel import ChannelKind
from mfdtool.wire.vendors.registry import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.errors import CaptureError
    from mfdtool.packets.info import CaptureInfo
    from mfdtool.stream.channel import Stream
    from mfdtool.stream.connections import StreamCounters
    from mfdtool.stream.summary import MigrationSummary
    from mfdtool.wire.vendors.registry import Registry


class OtherStream(NamedTuple):
    """One direction of a connection that is no migration's; ends are None if nobody knows."""

    client: Endpoint | None
    server: Endpoint | None
    bytes: int
    kind: ChannelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is known of an input; ``path`` is empty and ``info`` says nothing for raw streams.

    ``remarks`` are what a file that is no capture says of its streams; ``vendors`` the drivers that
    its devices' state is compared with.
    """

    path: str
    size: int | None
    info: CaptureInfo
    counters: StreamCounters | None
    migrations: tuple[MigrationSummary, ...]
    others: tuple[Stream, ...]
    problems: tuple[CaptureError, ...]
    complete: bool
    remarks: tuple[str, ...] = ()
    vendors: Registry = BUILT_IN

    @property
    def first_ns(self) -> int:
        """When the first migration began; -1 if times are unknown."""
        return min((one.first_ns for one in self.migrations), default=-1)

    @property
    def last_ns(self) -> int:
        """When the last byte of a migration arrived; -1 if times are unknown."""
        return max((one.last_ns for one in self.migrations), default=-1)

    def other_streams(self) -> Iterator[OtherStream]:
        """Give the streams that are no migration's."""
        for stream in self.others:
            key = stream.key
            client, server = (key.source, key.destination) if key is not None else (None, None)
            if not stream.is_towards_server:
                client, server = server, client
            yield OtherStream(client, server, stream.length, stream.kind or ChannelKind.UNKNOWN)
