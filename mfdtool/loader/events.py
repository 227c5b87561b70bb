# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen to a destination.

An event is a move of the environment: a connection is accepted, a channel delivers its next item,
or a thread that could go on does so. Items are what threads read from channels, one per
packet, record or section header; they hold what QEMU looks at, and payloads by reference.

Channels are numbered in the order in which they connect; the main channel is not among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from mfdtool.loader.blob import EMPTY, Blob
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import (
    MULTIFD_MAGIC,
    MULTIFD_VERSION,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    MultiFDFlag,
    SectionType,
    VFIOMarker,
)


class ActorKind(Enum):
    """The three kinds of thread that a destination consists of."""

    MAIN = "main"
    RECEIVE = "receive"
    LOAD = "load"


class Actor(NamedTuple):
    """A thread: the main thread, the receive thread of a channel, or a device's load thread."""

    kind: ActorKind
    number: int = 0

    def __str__(self) -> str:
        return (
            self.kind.value if self.kind is ActorKind.MAIN else f"{self.kind.value} {self.number}"
        )


MAIN: Final = Actor(ActorKind.MAIN)


def receiver(channel: int) -> Actor:
    """Name the receive thread of a channel."""
    return Actor(ActorKind.RECEIVE, channel)


def loader(device: int) -> Actor:
    """Name the load thread of a device."""
    return Actor(ActorKind.LOAD, device)


# Items of any channel.


@dataclass(frozen=True, slots=True)
class End:
    """The channel ends here: nothing more will come.

    ``inside`` tells that it ends in the middle of something, ``after_header`` that this is right
    behind a packet's 12-byte header.
    """

    reason: EndReason = EndReason.FIN
    inside: bool = False
    after_header: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes that the recording does not have; the destination had them.

    Attributes:
        length: how many.
        is_inside: whether they are of the item before, of which the rest is known.
    """

    length: int
    # Not in the representation, of which the digests of traces are made.
    is_inside: bool = field(default=False, repr=False)


# Items of a multifd channel.


@dataclass(frozen=True, slots=True)
class Handshake:
    """The first 64 bytes of a multifd channel; ``has_reserved`` if its unused bytes are used."""

    id: int
    magic: int = MULTIFD_MAGIC
    version: int = MULTIFD_VERSION
    uuid: bytes = bytes(16)
    has_reserved: bool = False


@dataclass(frozen=True, slots=True)
class BadHeader:
    """Twelve bytes where a packet header must be that are none."""

    magic: int
    version: int


@dataclass(frozen=True, slots=True)
class Announced:
    """The header of a device packet whose payload never arrives completely.

    The destination allocates ``size`` bytes when it reads this; the packet follows as an item of
    its own when the channel ends.
    """

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RamPacket:
    """A RAM or SYNC packet.

    ``offset`` is the greatest of its page offsets. It and the name of the block are None if they
    are not known. ``has_reserved`` tells that unused fields are used.
    """

    flags: int = 0
    pages_alloc: int = 0
    normal_pages: int = 0
    zero_pages: int = 0
    next_packet_size: int = 0
    packet_num: int = 0
    ramblock: str | None = ""
    offset: int | None = None
    has_reserved: bool = False

    @property
    def is_sync(self) -> bool:
        """Whether the receive thread waits for the main thread behind it."""
        return bool(self.flags & MultiFDFlag.SYNC)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePacket:
    """A device state packet.

    ``version``, ``idx`` and ``flags`` are those of the payload's header, None if the payload is
    too short to have one. ``data`` is what follows that header. ``is_cut`` tells that the channel
    ends inside the payload.
    """

    idstr: str
    instance_id: int = 0
    packet_flags: int = MultiFDFlag.DEVICE_STATE.value
    is_terminated: bool = True
    next_packet_size: int
    version: int | None = 0
    idx: int | None = None
    flags: int | None = 0
    data: Blob = EMPTY
    is_cut: bool = False

    @property
    def is_config(self) -> bool:
        """Whether the destination takes its data for the device's config."""
        return bool((self.flags or 0) & 1)


# Items of the main channel.


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Magic and version."""

    magic: int = QEMU_VM_FILE_MAGIC
    version: int = QEMU_VM_FILE_VERSION


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration section; ``length`` is what it says of the machine name's length."""

    machine: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class SectionStart:
    """The header of a START or FULL section."""

    section_id: int
    idstr: str
    instance_id: int = 0
    version_id: int = 1
    type: SectionType = SectionType.START


@dataclass(frozen=True, slots=True)
class SectionPart:
    """The header of a PART or END section."""

    section_id: int
    type: SectionType = SectionType.PART


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker of a VFIO section, with what the destination reads along with it.

    That is the data of DEV_DATA_STATE (``is_cut`` if the stream ends inside it), the whole config,
    both markers included, of DEV_CONFIG_STATE, and the word behind DEV_SETUP_STATE.
    """

    marker: int
    data: Blob = EMPTY
    following: int = VFIOMarker.END_OF_STATE.value
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class RamRecord:
    """A record of a RAM section; ``fill`` is what a ZERO page is filled with."""

    flags: int
    addr: int = 0
    ramblock: str = ""
    fill: int | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a section that is not taken apart; ``head`` are its first bytes."""

    head: bytes = b""


@dataclass(frozen=True, slots=True)
class Footer:
    """A section footer."""

    section_id: int


@dataclass(frozen=True, slots=True)
class Command:
    """A command; ``value`` is the number that PING carries."""

    cmd: int
    length: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Eof:
    """The byte that ends the main stream."""


@dataclass(frozen=True, slots=True)
class VmDescription:
    """The JSON text behind the end."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Bytes that could not be decoded; ``head`` are the first of them."""

    head: bytes = b""


MultiFDItem: TypeAlias = RamPacket | DevicePacket | Announced | BadHeader | Lost | End
MainItem: TypeAlias = (
    FileHeader
    | Configuration
    | SectionStart
    | SectionPart
    | Marker
    | RamRecord
    | Body
    | Footer
    | Command
    | Eof
    | VmDescription
    | Unknown
    | Lost
    | End
)


# Events.


@dataclass(frozen=True, slots=True)
class Connect:
    """A connection is accepted.

    ``first`` is what it begins with: a handshake, the main stream's header (which is delivered
    later all the same), other bytes, or nothing.
    """

    first: Handshake | FileHeader | Unknown | End


@dataclass(frozen=True, slots=True)
class Deliver:
    """The thread at a channel's end reads its next item; channel None is the main channel."""

    channel: int | None
    item: MultiFDItem | MainItem


@dataclass(frozen=True, slots=True)
class Step:
    """A thread that has something to do goes on to the next place where others can come between.

    For a load thread that is one of: look for the next buffer, write it, load the config; for the
    main thread, one half of the setup of a device.
    """

    actor: Actor


Event: TypeAlias = Connect | Deliver | Step
