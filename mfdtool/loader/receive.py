# SPDX-License-Identifier: GPL-2.0-or-later
"""Multifd receive threads (multifd.c:multifd_recv_thread), and the handshakes before them.

A thread reads a packet, checks it, processes it, and only then reads the next. After a SYNC packet
it waits for the main thread. The first error of any thread is recorded and ends all of them, by
shutting their sockets down; it does not touch the main channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from mfdtool.loader.device import insert
from mfdtool.loader.events import (
    Announced,
    BadHeader,
    DevicePacket,
    End,
    Handshake,
    Lost,
    MultiFDItem,
    RamPacket,
    receiver,
)
from mfdtool.loader.finish import end_all_receivers, exit_early
from mfdtool.loader.moves import LoadPhase, ReceiveCause, ReceivePhase
from mfdtool.loader.state import Receiver
from mfdtool.loader.sync import post
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_MAGIC,
    MULTIFD_VERSION,
    MULTIFD_ZLIB_BUFFER_SIZE,
    VFIO_INVALID_IDX,
    VFIO_PACKET_HEADER_SIZE,
    VFIO_PACKET_VERSION,
    MultiFDFlag,
)

if TYPE_CHECKING:
    from mfdtool.loader.state import State
    from mfdtool.loader.turn import Turn

_CUT_OFF: Final = "Unexpected end-of-file before all data were read"
_SYNC: Final = MultiFDFlag.SYNC.value


# Handshakes.


def shake_hands(turn: Turn, handshake: Handshake) -> None:
    """Accept a multifd channel (multifd.c:multifd_recv_new_channel)."""
    channels = turn.destination.channels
    rule, error = _handshake_error(turn, handshake)
    if error:
        turn.violate(rule, error)
        exit_early(turn, _failed_to_receive(turn, error))
    elif handshake.id == channels:
        turn.violate(
            "channel-id-out-of-bounds",
            f"id {handshake.id} is one beyond the {channels} channels: undefined behaviour",
        )
        turn.abort(None)
    elif any(known is not None and known.id == handshake.id for known in turn.receivers):
        error = f"multifd: received id '{handshake.id}' already setup'"
        turn.violate("channel-id-duplicate", error)
        exit_early(turn, error)
    else:
        actor = receiver(len(turn.receivers))
        turn.receivers.append(Receiver(id=handshake.id))
        turn.trace(actor, "multifd_recv_new_channel", handshake.id)
        turn.trace(actor, "multifd_recv_thread_start", handshake.id)


def cut_off_handshake(turn: Turn) -> None:
    """Meet the end of a channel inside its handshake."""
    turn.violate("handshake-truncated", _CUT_OFF)
    exit_early(turn, _failed_to_receive(turn, _CUT_OFF))


def _failed_to_receive(turn: Turn, error: str) -> str:
    count = sum(known is not None for known in turn.receivers)
    return f"failed to receive packet via multifd channel {count}: {error}"


def _handshake_error(turn: Turn, handshake: Handshake) -> tuple[str, str]:
    """Give the rule that a handshake breaks, and QEMU's text; both empty if it is right."""
    magic, version = handshake.magic, handshake.version
    if magic != MULTIFD_MAGIC:
        text = f"multifd: received packet magic {magic:x} expected {MULTIFD_MAGIC:x}"
        return "handshake-magic", text
    if version != MULTIFD_VERSION:
        text = f"multifd: received packet version {version} expected {MULTIFD_VERSION}"
        return "handshake-version", text
    expected = turn.destination.uuid
    if expected is not None and handshake.uuid != expected:
        text = (
            f"multifd: received uuid '{uuid_text(handshake.uuid)}' and expected uuid"
            f" '{uuid_text(expected)}' for channel {handshake.id}"
        )
        return "handshake-uuid", text
    channels = turn.destination.channels
    if handshake.id > channels:
        text = (
            f"multifd: received channel id {handshake.id} is greater than number of channels"
            f" {channels}"
        )
        return "channel-id-too-large", text
    return "", ""


def uuid_text(uuid: bytes) -> str:
    """Write a UUID as QEMU prints it."""
    digits = uuid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


# Packets.


def why_not(state: State, channel: int, item: object) -> str:
    """Say why a channel's thread cannot read an item; empty if it can."""
    if channel >= len(state.receivers):
        return "there is no such channel"
    found = state.receivers[channel]
    if found is None:
        return "the connection was dropped"
    if found.phase is not ReceivePhase.READING:
        return f"the receive thread is {found.phase.value}"
    return "" if isinstance(item, MultiFDItem) else "that is no item of a multifd channel"


def receive(turn: Turn, channel: int, item: MultiFDItem) -> None:
    """Let a channel's thread read and process its next packet."""
    if isinstance(item, Lost):
        return
    if isinstance(item, End):
        _close(turn, channel, item)
        return
    if isinstance(item, Announced):
        _allocate(turn, item.size)
        return
    if isinstance(item, BadHeader):
        rule, error = _header_error(item)
    elif isinstance(item, RamPacket):
        turn.set_receiver(channel, packets=turn.receiver(channel).packets + 1)
        rule, error = _receive_ram(turn, channel, item)
    else:
        turn.set_receiver(channel, packets=turn.receiver(channel).packets + 1)
        rule, error = _receive_device_state(turn, channel, item)
    if error:
        if rule:
            turn.violate(rule, error)
        fail(turn, channel, error)


def fail(turn: Turn, channel: int, error: str) -> None:
    """End all receive threads on an error (multifd.c:multifd_recv_terminate_threads)."""
    turn.trace(receiver(channel), "multifd_recv_terminate_threads", 1)
    if not turn.exiting:
        turn.exiting = True
        turn.record(error)
    cause = ReceiveCause.BAD
    if turn.receiver(channel).phase is ReceivePhase.LOCKED:
        cause = ReceiveCause.UNLOCKED
    turn.move_receiver(channel, cause, ReceivePhase.ENDED)
    end_all_receivers(turn)


def unlock(turn: Turn, number: int) -> None:
    """Let those threads go on that wait for a device's mutex."""
    for channel, held in enumerate(list(turn.receivers)):
        if held is None or held.phase is not ReceivePhase.LOCKED or held.held is None:
            continue
        packet = held.held
        if turn.destination.device_named(packet.idstr, packet.instance_id) != number:
            continue
        turn.set_receiver(channel, held=None)
        error = _store(turn, number, packet)
        if error:
            fail(turn, channel, error)
        elif turn.outcome is None:
            over = turn.exiting
            phase = ReceivePhase.ENDED if over else ReceivePhase.READING
            turn.move_receiver(channel, ReceiveCause.UNLOCKED, phase)


def _close(turn: Turn, channel: int, end: End) -> None:
    """Meet the end of a channel: right between packets it is no error."""
    if end.reason is EndReason.CAPTURE:
        return
    if end.reason is EndReason.RST:
        error = "Unable to read from socket: Connection reset by peer"
        turn.violate("connection-reset", error)
        fail(turn, channel, error)
    elif end.inside:
        error = "multifd: unexpected EOF after packet header" if end.after_header else _CUT_OFF
        turn.violate("packet-truncated", error)
        fail(turn, channel, error)
    else:
        turn.move_receiver(channel, ReceiveCause.CLOSED, ReceivePhase.ENDED)


def _header_error(header: BadHeader) -> tuple[str, str]:
    magic, version = header.magic, header.version
    if magic != MULTIFD_MAGIC:
        text = f"multifd: received packet magic {magic:x}, expected {MULTIFD_MAGIC:x}"
        return "packet-magic", text
    return (
        "packet-version",
        f"multifd: received packet version {version}, expected {MULTIFD_VERSION}",
    )


# RAM packets.

_Error: TypeAlias = tuple[str, str]
_NO_ERROR: Final[_Error] = ("", "")


def _receive_ram(turn: Turn, channel: int, packet: RamPacket) -> _Error:
    """Process a RAM or SYNC packet (multifd.c:multifd_recv_unfill_packet_ram)."""
    actor = receiver(channel)
    known = turn.set_receiver(channel, packet_num=packet.packet_num)
    turn.trace(
        actor,
        "multifd_recv_unfill",
        known.id,
        packet.packet_num,
        packet.flags,
        packet.next_packet_size,
    )
    rule, error = _unfill_error(turn, packet)
    if not error and (packet.normal_pages or packet.zero_pages):
        rule, error = _pages_error(turn, known.id, packet)
    if error or turn.outcome is not None:
        return rule, error
    if packet.is_sync:
        post(turn, channel)
    else:
        turn.move_receiver(channel, ReceiveCause.PACKET, ReceivePhase.READING)
    return _NO_ERROR


def _unfill_error(turn: Turn, packet: RamPacket) -> _Error:
    """Check a RAM packet's header (multifd-nocomp.c:multifd_ram_unfill_packet)."""
    alloc, normal, zero = packet.pages_alloc, packet.normal_pages, packet.zero_pages
    room = turn.destination.page_count
    if alloc > room:
        text = f"multifd: received packet with {alloc} pages, expected {room}"
        return "ram-pages-alloc", text
    if normal > alloc:
        text = (
            f"multifd: received packet with {normal} non-zero pages, which exceeds maximum"
            f" expected pages {alloc}"
        )
        return "ram-normal-pages", text
    if zero > alloc - normal:
        text = f"multifd: received packet with {zero} zero pages, expected maximum {alloc - normal}"
        return "ram-zero-pages", text
    if not normal and not zero:
        return _NO_ERROR
    return _block_error(turn, packet)


def _block_error(turn: Turn, packet: RamPacket) -> _Error:
    blocks = turn.destination.blocks
    if blocks is None or packet.ramblock is None:
        return _NO_ERROR
    length = next((known.used_length for known in blocks if known.idstr == packet.ramblock), None)
    if length is None:
        return "ram-block-unknown", f"multifd: unknown ram block {packet.ramblock}"
    limit = (length - turn.destination.page_size) % (1 << 64)
    if packet.offset is not None and packet.offset > limit:
        return "ram-page-offset", f"multifd: offset too long {packet.offset} (max {length:x})"
    return _NO_ERROR


def _pages_error(turn: Turn, id_: int, packet: RamPacket) -> _Error:
    """Check what a packet's compression method checks (multifd-nocomp.c, multifd-zlib.c, ...)."""
    expected = turn.destination.compression
    flags = packet.flags & MULTIFD_COMPRESSION_MASK
    if flags != expected:
        text = f"multifd {id_}: flags received {flags:x} flags expected {expected:x}"
        return "ram-compression", text
    if not expected:
        return _NO_ERROR
    size = packet.next_packet_size
    if not packet.normal_pages:
        if size:
            turn.violate("ram-compressed-without-pages", f"{size} bytes for no page")
            turn.fail_assertion(_RECV_FUNCTIONS[expected], "in_size == 0")
        return _NO_ERROR
    if size > MULTIFD_ZLIB_BUFFER_SIZE:
        if expected == MultiFDFlag.QATZIP:
            text = f"multifd {id_}: received unexpectedly large packet"
            return "ram-compressed-too-large", text
        if turn.destination.has_fixed_buffer:
            text = f"{size} bytes for a buffer of {MULTIFD_ZLIB_BUFFER_SIZE}: undefined behaviour"
            turn.violate("ram-compressed-too-large", text)
            turn.abort(None)
    return _NO_ERROR


_RECV_FUNCTIONS: Final[Mapping[int, str]] = {
    MultiFDFlag.ZLIB: "migration/multifd-zlib.c:multifd_zlib_recv",
    MultiFDFlag.ZSTD: "migration/multifd-zstd.c:multifd_zstd_recv",
    MultiFDFlag.QPL: "migration/multifd-qpl.c:multifd_qpl_recv",
    MultiFDFlag.UADK: "migration/multifd-uadk.c:multifd_uadk_recv",
    MultiFDFlag.QATZIP: "migration/multifd-qatzip.c:qatzip_recv",
}


# Device state packets.


def _receive_device_state(turn: Turn, channel: int, packet: DevicePacket) -> _Error:
    """Process a device packet (multifd.c:multifd_device_state_recv)."""
    size = packet.next_packet_size
    if not size:
        return "device-packet-empty", "multifd: received empty device state packet"
    if not _allocate(turn, size):
        return _NO_ERROR
    if packet.is_cut:
        return "packet-truncated", _CUT_OFF
    if not packet.is_terminated:
        return "idstr-unterminated", "unterminated multifd device state idstr"
    number = turn.destination.device_named(packet.idstr, packet.instance_id)
    if number is None:
        return _entry_error(turn, packet)
    rule, error = _packet_error(turn, number, packet)
    if error or turn.outcome is not None:
        return rule, error
    turn.trace(receiver(channel), "vfio_load_state_device_buffer_incoming", number, packet.idx or 0)
    if turn.devices[number].phase is LoadPhase.LOADING:
        turn.set_receiver(channel, held=packet)
        turn.move_receiver(channel, ReceiveCause.CONTENDED, ReceivePhase.LOCKED)
        return _NO_ERROR
    error = _store(turn, number, packet)
    if not error and turn.outcome is None:
        turn.move_receiver(channel, ReceiveCause.PACKET, ReceivePhase.READING)
    return "", error


def _allocate(turn: Turn, size: int) -> bool:
    """Make room for a payload before it is read; False if that kills the destination."""
    if size <= turn.destination.memory:
        return True
    turn.violate("device-packet-size", f"the destination cannot allocate {size} bytes")
    turn.fail_allocation(size)
    return False


def _entry_error(turn: Turn, packet: DevicePacket) -> _Error:
    """Say what is wrong with a packet that is for no VFIO device."""
    idstr, instance = packet.idstr, packet.instance_id
    if turn.destination.entry_version(idstr, instance) is not None:
        text = f"idstr {idstr} / instance {instance} has no load state buffer operation"
        return "device-without-buffers", text
    text = f"Unknown idstr {idstr} or instance id {instance} for load state buffer"
    return "device-unknown", text


def _packet_error(turn: Turn, number: int, packet: DevicePacket) -> _Error:
    """Check a payload's header (vfio_multifd_load_state_buffer)."""
    device = turn.devices[number]
    if not device.transfer:
        text = "NAME: got device state packet but not doing multifd transfer"
        return "device-packet-not-expected", text
    if not device.loader:
        turn.violate("loader-missing", "the device is just being set up", number)
        turn.fail_assertion("hw/vfio/migration-multifd.c:vfio_multifd_load_state_buffer", "multifd")
        return _NO_ERROR
    if packet.idx is None:
        text = (
            f"NAME: packet too short at {packet.next_packet_size}"
            f" (min is {VFIO_PACKET_HEADER_SIZE})"
        )
        return "payload-too-short", text
    if packet.version != VFIO_PACKET_VERSION:
        return "payload-version", f"NAME: packet has unknown version {packet.version}"
    if packet.idx == VFIO_INVALID_IDX:
        return "idx-invalid", "NAME: packet index is invalid"
    return _NO_ERROR


def _store(turn: Turn, number: int, packet: DevicePacket) -> str:
    """Store a packet with the mutex held; SYNC is looked at only afterwards."""
    error = insert(turn, number, packet)
    if not error and turn.outcome is None and packet.packet_flags & _SYNC:
        error = "multifd: received SYNC device state packet"
        turn.violate("device-packet-sync", error, number)
    return error
