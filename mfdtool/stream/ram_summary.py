# SPDX-License-Identifier: GPL-2.0-or-later
"""What was sent of the guest's RAM: by multifd, as records of the main stream, or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.mapped_ram import mapped_block
from mfdtool.stream.values import RamRecord, ReturnPathRecord
from mfdtool.wire.constants import RamFlag, ReturnPathType
from mfdtool.wire.multifd import MultiFDPacketCounts

_REQUESTS: Final = frozenset({ReturnPathType.REQ_PAGES.value, ReturnPathType.REQ_PAGES_ID.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class RamSummary:
    """RAM, by multifd and on the main stream.

    Attributes:
        blocks: names and lengths, as the main stream lists them.
        normal_pages: pages that were sent with their content, compressed or not.
        zero_pages: pages of zeroes; of a mapped-ram file, those that the bitmaps do not name.
        xbzrle_pages: pages that were sent as differences to their copy before.
        bytes: the content as it travelled, compressed or not.
        packets: multifd packets with pages.
        rounds: MULTIFD_FLUSH records, one for each pass over the guest's RAM.
        sections: PART sections of RAM before the switchover, one for each iteration.
        syncs: SYNC packets of all channels.
        requests: requests for pages on the return path.
        is_mapped: whether pages lie at their own places, as in a mapped-ram file.
    """

    blocks: tuple[tuple[str, int], ...] = ()
    normal_pages: int = 0
    zero_pages: int = 0
    xbzrle_pages: int = 0
    bytes: int = 0
    packets: int = 0
    rounds: int = 0
    sections: int = 0
    syncs: int = 0
    requests: int = 0
    is_mapped: bool = False


class RamTracker:
    """Counts the pages of one migration."""

    __slots__ = (
        "_blocks",
        "_bytes",
        "_is_mapped",
        "_normal",
        "_packets",
        "_requests",
        "_rounds",
        "_syncs",
        "_xbzrle",
        "_zero",
    )

    def __init__(self) -> None:
        self._blocks: tuple[tuple[str, int], ...] = ()
        self._normal = self._zero = self._xbzrle = self._bytes = 0
        self._packets = self._rounds = self._syncs = self._requests = 0
        self._is_mapped = False

    def add(self, frame: Frame) -> None:
        """Take a frame of any kind."""
        kind = frame.kind
        if kind is Kind.MULTIFD_RAM or kind is Kind.MULTIFD_SYNC:
            self._packet(frame)
        elif kind is Kind.RAM_RECORD:
            if isinstance(frame.value, RamRecord):
                self._record(frame, frame.value)
        elif kind is Kind.RETURN_PATH_MESSAGE and isinstance(frame.value, ReturnPathRecord):
            self._requests += frame.value.header.type in _REQUESTS

    def summary(self, *, sections: int) -> RamSummary:
        """Give the counts, with the number of PART ``sections`` that somebody else has counted."""
        return RamSummary(
            blocks=self._blocks,
            normal_pages=self._normal,
            zero_pages=self._zero,
            xbzrle_pages=self._xbzrle,
            bytes=self._bytes,
            packets=self._packets,
            rounds=self._rounds,
            sections=sections,
            syncs=self._syncs,
            requests=self._requests,
            is_mapped=self._is_mapped,
        )

    def _packet(self, frame: Frame) -> None:
        is_sync = frame.kind is Kind.MULTIFD_SYNC
        self._syncs += is_sync
        self._packets += not is_sync
        packet = frame.value
        if isinstance(packet, MultiFDPacketCounts) and frame.payload is not None:
            self._bytes += frame.payload.size
            self._normal += packet.normal_pages
            self._zero += packet.zero_pages

    def _record(self, frame: Frame, record: RamRecord) -> None:
        if record.flags & RamFlag.MEM_SIZE:
            self._blocks = tuple((entry.idstr, entry.used_length) for entry in record.entries)
            self._mapped(record)
        elif record.flags & RamFlag.MULTIFD_FLUSH:
            self._rounds += 1
        elif record.flags & RamFlag.ZERO:
            self._zero += 1
        elif frame.payload is not None:
            if record.flags & RamFlag.XBZRLE:
                self._xbzrle += 1
            else:
                self._normal += 1
            self._bytes += frame.payload.size

    def _mapped(self, record: RamRecord) -> None:
        for entry, count in zip(record.entries, record.mapped, strict=False):
            block = mapped_block(entry, origin=record.origin)
            if block is not None:
                self._is_mapped = True
                self._normal += count
                self._zero += block.page_count - count
                self._bytes += count * block.page_size
