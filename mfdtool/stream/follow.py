# SPDX-License-Identifier: GPL-2.0-or-later
"""Follows a channel as it passes: which bytes come next, headers to look at or payload to let by.

Whoever moves a channel's bytes asks what is wanted, and tells what went by::

    while True:
        if follower.payload:
            follower.skip(move(follower.payload))    # nobody needs to see them
        else:
            follower.feed(read(follower.wanted))     # at most so many

A recorder that must not write payload writes the follower's *parts*: bytes that were understood
as headers, and numbers of bytes that were not shown. A channel that does not follow the format
has no more headers: all the rest of it is payload.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.multifd import ram_payload_size
from mfdtool.wire.constants import (
    MULTIFD_DEVICE_STATE_SIZE,
    MULTIFD_INIT_SIZE,
    MULTIFD_MAGIC,
    MULTIFD_RAM_FIXED_SIZE,
    MULTIFD_VERSION,
    PAGE_SIZES,
    QEMU_VM_FILE_MAGIC,
    VFIO_PACKET_HEADER_SIZE,
    X86_PAGE_SIZE,
    MultiFDFlag,
)
from mfdtool.wire.multifd import (
    DEVICE_STATE_LAYOUT,
    HEADER_LAYOUT,
    INIT_LAYOUT,
    RAM_COUNTS_LAYOUT,
    page_count_for,
    ram_packet_size,
)

REST: Final = 1 << 62
"""The payload of a channel that has no more headers."""

_MAGIC_SIZE: Final = 4
_TLS_HANDSHAKE: Final = b"\x16\x03"
_DEVICE_HEADER_SIZE: Final = MULTIFD_DEVICE_STATE_SIZE + VFIO_PACKET_HEADER_SIZE
"""Every packet has at least so many bytes."""
_DEVICE_STATE: Final = int(MultiFDFlag.DEVICE_STATE)
_PACKET_START: Final = HEADER_LAYOUT.message(flags=0).build()[:8]
_PAGE_COUNTS: Final = tuple(page_count_for(size) for size in PAGE_SIZES)
_USUAL_COUNT: Final = page_count_for(X86_PAGE_SIZE)


class Part(NamedTuple):
    """A stretch of a stream: bytes that were understood, or ``unseen`` ones that were not shown."""

    data: bytes
    unseen: int


class Follower:
    """Follows what a client sends on one connection.

    Attributes:
        wanted: how many bytes of a header come next; 0 if payload does.
        payload: how many bytes of payload come next, `REST` if all that is left.
        kind: what the channel carries; None before its first four bytes.
        channel_id: the number in a multifd channel's handshake; None if there was none.
        ram_packets: RAM packets so far, SYNC packets included.
        device_packets: device state packets so far.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self.payload = 0
        self.kind: ChannelKind | None = None
        self.channel_id: int | None = None
        self.ram_packets = 0
        self.device_packets = 0
        self._held = b""
        self._unseen = 0
        self._parts: list[Part] = []
        self._page_count = 0
        self._steps = self._run()
        next(self._steps)

    def feed(self, data: bytes | memoryview) -> None:
        """Take up to ``wanted`` bytes of a header.

        Raises:
            ValueError: they are more, or payload comes first.
        """
        if len(data) > self.wanted:
            raise ValueError(f"{len(data)} bytes of a header, {self.wanted} were wanted")
        self._held += data
        self.wanted -= len(data)
        if not self.wanted:
            next(self._steps)

    def skip(self, count: int) -> None:
        """Let ``count`` bytes of payload go by.

        Raises:
            ValueError: there is not so much payload here.
        """
        if count > self.payload:
            raise ValueError(f"{count} bytes of payload, {self.payload} come")
        self._unseen += count
        if self.payload < REST:
            self.payload -= count
            if not self.payload:
                next(self._steps)

    def follow(self, data: bytes | memoryview) -> None:
        """Take bytes of which nobody knows whether they are headers or payload."""
        view = memoryview(data)
        while view:
            if self.payload:
                count = min(self.payload, len(view))
                self.skip(count)
            else:
                count = min(self.wanted, len(view))
                self.feed(view[:count])
            view = view[count:]

    def take_parts(self, *, all_of_it: bool = False) -> list[Part]:
        """Give the stretches that are complete, once; with ``all_of_it`` also what is not."""
        if all_of_it:
            # A header that did not become whole is nothing that was understood.
            self._unseen += len(self._held)
            self._held = b""
            self._hide()
        parts, self._parts = self._parts, []
        return parts

    # Inside: the steps set what comes next, and go on when it has come

    def _run(self) -> Generator[None, None, None]:
        start = yield from self._take(_MAGIC_SIZE)
        magic = int.from_bytes(start)
        if magic == MULTIFD_MAGIC:
            self.kind = ChannelKind.MULTIFD
            self._held = start
            yield from self._multifd()
        elif magic == QEMU_VM_FILE_MAGIC:
            self.kind = ChannelKind.MAIN
            self._show(start)
        elif start.startswith(_TLS_HANDSHAKE):
            self.kind = ChannelKind.TLS
            self._show(start)
        else:
            self.kind = ChannelKind.UNKNOWN
            self._unseen += len(start)
        yield from self._pass(REST)

    def _multifd(self) -> Generator[None, None, None]:
        """Go from packet to packet, until there is none where one must be."""
        init = yield from self._take(MULTIFD_INIT_SIZE)
        self._show(init)
        self.channel_id = INIT_LAYOUT.parse(init).id
        while True:
            head = yield from self._take(_DEVICE_HEADER_SIZE)
            magic, version, flags = HEADER_LAYOUT.unpack(head)
            if magic != MULTIFD_MAGIC or version != MULTIFD_VERSION:
                self._unseen += len(head)
                return
            if flags & _DEVICE_STATE:
                yield from self._device_state(head)
            else:
                yield from self._ram(head, flags)

    def _device_state(self, head: bytes) -> Generator[None, None, None]:
        size = DEVICE_STATE_LAYOUT.parse(head).next_packet_size
        self.device_packets += 1
        if size >= VFIO_PACKET_HEADER_SIZE:
            self._show(head)
            yield from self._pass(size - VFIO_PACKET_HEADER_SIZE)
            return
        # Too short for a VFIO header: what was read too much begins the next packet.
        self._show(head[:MULTIFD_DEVICE_STATE_SIZE])
        self._held = head[MULTIFD_DEVICE_STATE_SIZE + size :]
        self._unseen += size
        self._hide()

    def _ram(self, head: bytes, flags: int) -> Generator[None, None, None]:
        self._held = head
        fixed = yield from self._take(MULTIFD_RAM_FIXED_SIZE)
        counts = RAM_COUNTS_LAYOUT.parse(fixed)
        self._held = fixed
        if counts.pages_alloc in _PAGE_COUNTS and not self._page_count:
            self._page_count = counts.pages_alloc
        if not self._page_count:
            yield from self._learn_page_count()
        packet = yield from self._take(ram_packet_size(self._page_count))
        self.ram_packets += 1
        self._show(packet)
        yield from self._pass(
            ram_payload_size(
                flags,
                counts.pages_alloc,
                counts.normal_pages,
                counts.zero_pages,
                next_packet_size=counts.next_packet_size,
                page_count=self._page_count,
            )
        )

    def _learn_page_count(self) -> Generator[None, None, None]:
        """Find out how long RAM packets are by a SYNC packet, which is filled with zeroes.

        The next packet's magic tells, as it does in `MultiFDFramer`; at the usual length nothing
        behind it is waited for.
        """
        for count in _PAGE_COUNTS:
            end = ram_packet_size(count)
            if count == _USUAL_COUNT:
                self._page_count = count
                return
            self._held = yield from self._take(end + len(_PACKET_START))
            if self._held[end:] == _PACKET_START:
                self._page_count = count
                return

    def _take(self, count: int) -> Generator[None, None, bytes]:
        """Wait for a header's bytes; what is held beyond them stays."""
        while len(self._held) < count:
            self.wanted = count - len(self._held)
            yield
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _pass(self, count: int) -> Generator[None, None, None]:
        """Wait until payload has gone by; some of it may be held already."""
        held = min(count, len(self._held))
        self._held = self._held[held:]
        self._unseen += held
        self.payload = count - held if count < REST else REST
        while self.payload:
            yield
        self._hide()

    def _show(self, data: bytes) -> None:
        self._hide()
        self._parts.append(Part(data, 0))

    def _hide(self) -> None:
        if self._unseen:
            self._parts.append(Part(b"", self._unseen))
            self._unseen = 0
