# SPDX-License-Identifier: GPL-2.0-or-later
"""A multifd channel, cut into packets.

The framer follows the lengths that a destination would follow (multifd.c:multifd_recv_thread),
so a packet that lies about its size is cut as QEMU would cut it. It touches no payload. Bytes
that are not a packet where one must be are given up until the next plausible header.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mfdtool.stream.frames import ChannelId, Frame, Framer, Frames, Kind
from mfdtool.stream.reader import Reader, Stamp, State
from mfdtool.stream.span import EndReason, Span
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_DEVICE_STATE_SIZE,
    MULTIFD_HEADER_SIZE,
    MULTIFD_INIT_SIZE,
    MULTIFD_MAGIC,
    MULTIFD_RAM_FIXED_SIZE,
    MULTIFD_VERSION,
    PAGE_SIZES,
    VFIO_PACKET_HEADER_SIZE,
    X86_PAGE_SIZE,
    MultiFDFlag,
    VFIOStateFlag,
)
from mfdtool.wire.multifd import (
    DEVICE_STATE_LAYOUT,
    HEADER_LAYOUT,
    INIT_LAYOUT,
    RAM_COUNTS_LAYOUT,
    RAM_LAYOUT,
    MultiFDInit,
    MultiFDPacketCounts,
    MultiFDPacketDeviceState,
    page_count_for,
    page_size_for,
    ram_packet_size,
)
from mfdtool.wire.quick import quick_constructor
from mfdtool.wire.vendors.vendor import HEAD_SIZE
from mfdtool.wire.vfio import (
    CONFIG_LIMIT,
    DEVICE_STATE_HEADER_LAYOUT,
    DeviceStateHeader,
    unwrap_config,
)

_PACKET_START: Final = HEADER_LAYOUT.message(flags=0).build()[:8]
_DEVICE_HEADER_SIZE: Final = MULTIFD_DEVICE_STATE_SIZE + VFIO_PACKET_HEADER_SIZE
_KNOWN_FLAGS: Final = 0x7F
_CONFIG_STATE: Final = VFIOStateFlag.CONFIG_STATE.value
_DEVICE_STATE: Final = MultiFDFlag.DEVICE_STATE.value
_SYNC: Final = MultiFDFlag.SYNC.value

_new_frame: Final = quick_constructor(Frame)
_new_span: Final = quick_constructor(Span)

NameChannel = Callable[[MultiFDInit | None], ChannelId]
"""Names a channel by its handshake, or by its lack of one."""


class MultiFDFramer(Framer):
    """Cuts one multifd channel.

    ``name`` is asked once, when the handshake is there or is known to be missing.
    ``from_start`` is False if the capture may have missed the channel's first bytes.
    ``page_size`` is the target page size if it is known; otherwise the stream tells it.
    """

    def __init__(
        self,
        reader: Reader,
        channel: ChannelId,
        *,
        name: NameChannel | None = None,
        from_start: bool = True,
        page_size: int | None = None,
    ) -> None:
        super().__init__(reader, channel)
        self._name = name
        self._from_start = from_start
        self._page_count = page_count_for(page_size) if page_size else 0
        self._guessed = False

    @property
    def page_size(self) -> int:
        """Target page size in bytes; 0 as long as the stream has not told it."""
        return page_size_for(self._page_count) if self._page_count else 0

    def frames(self) -> Frames:
        """Yield the handshake, the packets, and what is neither."""
        yield from self._handshake()
        reader = self.reader
        while True:
            if (frame := self._whole_device_state()) is not None:
                yield frame
                continue
            start = reader.position
            state = reader.state(MULTIFD_HEADER_SIZE)
            if state is State.WAIT:
                yield None
                continue
            if state is State.END:
                if start < reader.fed:
                    yield from self._lose_rest(_cut_off(reader, "a packet header"))
                return
            if state is State.GAP:
                yield from self._lose(self._find_packet, "a packet header is missing")
                continue
            first = reader.stamp()
            magic, version, flags = HEADER_LAYOUT.unpack(reader.peek(MULTIFD_HEADER_SIZE))
            if magic != MULTIFD_MAGIC or version != MULTIFD_VERSION:
                yield from self._lose(self._find_packet, "not a packet header")
            elif flags & _DEVICE_STATE:
                yield from self._device_state(start, first)
            else:
                yield from self._ram(start, first, flags)
            yield from self._gaps()

    # Handshake

    def _handshake(self) -> Frames:
        reader = self.reader
        state = yield from reader.need(MULTIFD_INIT_SIZE)
        init = None
        if state is State.READY:
            init = INIT_LAYOUT.parse(reader.peek(MULTIFD_INIT_SIZE))
            # A packet begins with the same eight bytes, but never has these all zero.
            is_packet = not self._from_start and any(init.unused1 + init.unused2)
            if init.magic != MULTIFD_MAGIC or is_packet:
                init = None
        if self._name is not None:
            self.channel = self._name(init)
        if init is not None:
            first = reader.stamp()
            reader.advance(MULTIFD_INIT_SIZE)
            yield self._frame(Kind.MULTIFD_INIT, 0, first, value=init)
        elif state is State.END:
            yield from self._lose_rest(_cut_off(reader, "the handshake"))

    # Packets

    def _whole_device_state(self) -> Frame | None:
        """Cut a device state packet that is all there, the quick way; None if it is not so simple.

        Nearly all packets of a capture are of this kind.
        """
        reader = self.reader
        start = reader.position
        if reader.state(_DEVICE_HEADER_SIZE) is not State.READY:
            return None
        values = DEVICE_STATE_HEADER_LAYOUT.unpack(reader.peek(_DEVICE_HEADER_SIZE))
        magic, version, flags, _, _, size, _, idx, state_flags = values
        if magic != MULTIFD_MAGIC or version != MULTIFD_VERSION or not flags & _DEVICE_STATE:
            return None
        length = MULTIFD_DEVICE_STATE_SIZE + size
        if size < VFIO_PACKET_HEADER_SIZE or reader.state(length) is not State.READY:
            return None
        first = reader.stamp()
        config = head = b""
        if state_flags & _CONFIG_STATE or not idx:
            config, head = self._look(state_flags, _looked_at(state_flags, idx, size))
        reader.advance(length)
        last = reader.last_stamp()
        number = self._number
        self._number = number + 1
        return _new_frame(
            Kind.MULTIFD_DEVICE_STATE,
            self.channel,
            number,
            start,
            length,
            first.time_ns,
            last.time_ns,
            last.record,
            0,
            DEVICE_STATE_HEADER_LAYOUT.make(values),
            _new_span(start + MULTIFD_DEVICE_STATE_SIZE, start + length),
            None,
            "",
            reader.take_extents(start, start + length) if reader.keeps else (),
            config,
            head,
        )

    def _look(self, flags: int, count: int) -> tuple[bytes, bytes]:
        """Give the config, or the first ``count`` bytes of data, of the packet at the cursor."""
        data = self.reader.peek_at(self.reader.position + _DEVICE_HEADER_SIZE, count)
        return (unwrap_config(data), b"") if flags & _CONFIG_STATE else (b"", data)

    def _device_state(self, start: int, first: Stamp) -> Frames:
        reader = self.reader
        state = yield from reader.need(_DEVICE_HEADER_SIZE)
        value: DeviceStateHeader | MultiFDPacketDeviceState
        config = head = b""
        if state is State.READY:
            # Most often the whole header is there and one look decodes it.
            whole = DEVICE_STATE_HEADER_LAYOUT.parse(reader.peek(_DEVICE_HEADER_SIZE))
            size = whole.next_packet_size
            value = whole
            if count := _looked_at(whole.flags, whole.idx, size):
                looked = yield from reader.need(_DEVICE_HEADER_SIZE + count)
                if looked is State.READY:
                    config, head = self._look(whole.flags, count)
        if state is not State.READY or size < VFIO_PACKET_HEADER_SIZE:
            state = yield from reader.need(MULTIFD_DEVICE_STATE_SIZE)
            if state is State.END:
                yield from self._lose_rest(_cut_off(reader, "a device state packet's header"))
                return
            if state is State.GAP:
                yield from self._lose(self._find_packet, "a packet header is missing")
                return
            packet = DEVICE_STATE_LAYOUT.parse(reader.peek(MULTIFD_DEVICE_STATE_SIZE))
            size = packet.next_packet_size
            value = packet
        reader.advance(MULTIFD_DEVICE_STATE_SIZE)
        missing = yield from reader.skip(size)
        payload_start = start + MULTIFD_DEVICE_STATE_SIZE
        yield self._frame(
            Kind.MULTIFD_DEVICE_STATE,
            start,
            first,
            length=MULTIFD_DEVICE_STATE_SIZE + size,
            missing=missing,
            value=value,
            payload=Span(payload_start, payload_start + size),
            reason=_why(reader, missing),
            config=config,
            head=head,
        )

    def _ram(self, start: int, first: Stamp, flags: int) -> Frames:
        reader = self.reader
        state = yield from reader.need(MULTIFD_RAM_FIXED_SIZE)
        value: MultiFDPacketCounts
        if state is State.READY:
            value = packet = RAM_LAYOUT.parse(reader.peek(MULTIFD_RAM_FIXED_SIZE))
            counts = packet.pages_alloc, packet.normal_pages, packet.zero_pages
            size = packet.next_packet_size
        elif reader.available() >= RAM_COUNTS_LAYOUT.size:
            # The counts are there, the block's name is not: enough to go on.
            value = head = RAM_COUNTS_LAYOUT.parse(reader.peek(RAM_COUNTS_LAYOUT.size))
            counts = head.pages_alloc, head.normal_pages, head.zero_pages
            size = head.next_packet_size
        elif state is State.END:
            yield from self._lose_rest(_cut_off(reader, "a RAM packet's header"))
            return
        else:
            yield from self._lose(self._find_packet, "a packet header is missing")
            return
        if not self._page_count or (self._guessed and counts[0]):
            yield from self._learn_page_count(counts[0], first)
        length = ram_packet_size(self._page_count)
        payload = self._payload_size(flags, *counts, next_packet_size=size)
        missing = yield from reader.skip(length + payload)
        yield self._frame(
            Kind.MULTIFD_SYNC if flags & _SYNC else Kind.MULTIFD_RAM,
            start,
            first,
            length=length + payload,
            missing=missing,
            value=value,
            payload=Span(start + length, start + length + payload),
            reason=_why(reader, missing),
        )

    def _payload_size(
        self, flags: int, alloc: int, normal: int, zero: int, *, next_packet_size: int
    ) -> int:
        """Count the bytes that a destination reads behind a RAM packet."""
        return ram_payload_size(
            flags,
            alloc,
            normal,
            zero,
            next_packet_size=next_packet_size,
            page_count=self._page_count,
        )

    def _learn_page_count(self, pages_alloc: int, first: Stamp) -> Frames:
        """Find out how many page offsets a RAM packet of this stream has.

        A source writes the number into every packet with pages. A SYNC packet, normally the
        first of a channel, says 0 and is filled with zeroes: there the next packet's magic tells.
        """
        # The largest page first: that is the shortest packet first.
        counts = [page_count_for(size) for size in PAGE_SIZES]
        usual = page_count_for(X86_PAGE_SIZE)
        if pages_alloc in counts:
            self._page_count = pages_alloc
            self._guessed = False
            return
        reader = self.reader
        for count in counts:
            end = ram_packet_size(count)
            start = _PACKET_START
            wanted = end if count == usual else end + len(start)
            self.waiting_since = first.record
            state = yield from reader.need(wanted)
            self.waiting_since = None
            if state is not State.READY:
                break
            behind = reader.peek_at(reader.position + end, len(start))
            if start.startswith(behind):
                self._page_count = count
                return
        # A packet with pages may tell better.
        self._page_count = self._page_count or usual
        self._guessed = True

    def _find_packet(self, start: int) -> tuple[int | None, int]:
        return find_packet(self.reader, start)


def ram_payload_size(
    flags: int, alloc: int, normal: int, zero: int, *, next_packet_size: int, page_count: int
) -> int:
    """Count the bytes that a destination reads behind a RAM packet.

    Counts that it would refuse have no payload: what follows is judged by itself. See QEMU
    multifd-nocomp.c:multifd_ram_unfill_packet and multifd_nocomp_recv.
    """
    if alloc > page_count or normal > alloc or zero > alloc - normal:
        return 0
    if not normal and not zero:
        return 0
    if flags & MULTIFD_COMPRESSION_MASK:
        return next_packet_size
    return normal * page_size_for(page_count)


def find_packet(reader: Reader, start: int) -> tuple[int | None, int]:
    """Search what was fed for a plausible packet header, at or behind ``start``.

    Gives its position, or None; and where to search on when more was fed.
    """
    while True:
        at = reader.find(_PACKET_START, start)
        if at < 0:
            return None, max(start, reader.fed - len(_PACKET_START) + 1)
        header = reader.peek_at(at, MULTIFD_DEVICE_STATE_SIZE)
        cut = len(header) < MULTIFD_DEVICE_STATE_SIZE
        if cut and at + len(header) == reader.fed and reader.end is None:
            return None, at
        if is_plausible_packet(header):
            return at, at
        start = at + 1


def is_plausible_packet(header: bytes) -> bool:
    """Tell whether bytes look like the header of a packet that a source would write.

    ``header`` are the 276 bytes at the place, fewer if the capture has no more there.
    """
    if len(header) < RAM_COUNTS_LAYOUT.size:
        return False
    magic, version, flags = HEADER_LAYOUT.unpack(header)
    if magic != MULTIFD_MAGIC or version != MULTIFD_VERSION or flags > _KNOWN_FLAGS:
        return False
    if flags & _DEVICE_STATE:
        if len(header) < MULTIFD_DEVICE_STATE_SIZE:
            return False
        packet = DEVICE_STATE_LAYOUT.parse(header)
        return bool(packet.next_packet_size) and _is_name(packet.idstr)
    head = RAM_COUNTS_LAYOUT.parse(header)
    alloc = head.pages_alloc
    if alloc and alloc not in map(page_count_for, PAGE_SIZES):
        return False
    return head.normal_pages + head.zero_pages <= alloc


def _is_name(raw: bytes) -> bool:
    """Tell whether a fixed-size field holds a printable name, zero padded."""
    name, _, padding = raw.partition(b"\0")
    return bool(name) and name.isascii() and name.decode().isprintable() and not any(padding)


def _looked_at(flags: int, idx: int, size: int) -> int:
    """Count the bytes behind a packet's two headers that are kept: a config, or a state's head."""
    size -= VFIO_PACKET_HEADER_SIZE
    if flags & _CONFIG_STATE:
        return size if 0 < size <= CONFIG_LIMIT else 0
    return 0 if idx else max(0, min(size, HEAD_SIZE))


def _cut_off(reader: Reader, what: str) -> str:
    assert reader.end is not None
    if reader.end.reason is EndReason.CAPTURE:
        return f"the capture ends inside {what}"
    return f"the channel ends inside {what}"


def _why(reader: Reader, missing: int) -> str:
    """Say why a frame is incomplete; empty if it is not."""
    if not missing:
        return ""
    if reader.end is not None and reader.position == reader.fed:
        return _cut_off(reader, "it")
    return "not captured"
