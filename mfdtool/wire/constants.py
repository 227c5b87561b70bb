# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of the migration stream, their QEMU symbols, and what they mean in words.

Each enumeration is followed by one table with a row for every member. The tables are the only
thing that the construct schemas and the scapy layers share.

Values found on the wire are kept as plain integers and looked up here when they are shown:
``MultiFDFlag(value)`` of a hostile value would be remembered by ``enum`` for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, TypeVar


class Meaning(NamedTuple):
    """What a number is called in QEMU's source, and in words.

    ``since`` is the release that introduced it, empty if it is older than multifd (4.0).
    """

    symbol: str
    text: str
    since: str = ""


# Main stream: savevm.h, savevm.c.

QEMU_VM_FILE_MAGIC: Final = 0x5145564D
QEMU_VM_FILE_VERSION: Final = 3
QEMU_CPR_FILE_MAGIC: Final = 0x51435052
"""A CPR side channel (cpr.c:cpr_state_save), which is not a migration stream."""

FILE_HEADER_SIZE: Final = 8
SECTION_FOOTER_SIZE: Final = 5
IDSTR_SIZE: Final = 256
"""Size of idstr and ramblock in multifd packets (multifd.h)."""

CONFIGURATION_PREFIX: Final = "configuration/"
"""How the names of the configuration section's subsections begin."""

X86_PAGE_SIZE: Final = 4096

PAGE_SIZES: Final = (65536, 32768, 16384, 8192, 4096, 2048, 1024)
"""Target page sizes that QEMU's targets use, largest first. No other is believed."""


class SectionType(IntEnum):
    """First byte of an element of the main stream (savevm.h)."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


SECTION_TYPES: Final[Mapping[SectionType, Meaning]] = {
    SectionType.EOF: Meaning("QEMU_VM_EOF", "end of the stream"),
    SectionType.START: Meaning("QEMU_VM_SECTION_START", "an iterable handler begins"),
    SectionType.PART: Meaning("QEMU_VM_SECTION_PART", "an iterable handler goes on"),
    SectionType.END: Meaning("QEMU_VM_SECTION_END", "an iterable handler finishes"),
    SectionType.FULL: Meaning("QEMU_VM_SECTION_FULL", "a device's state in one piece"),
    SectionType.SUBSECTION: Meaning("QEMU_VM_SUBSECTION", "optional part inside a vmstate body"),
    SectionType.VMDESCRIPTION: Meaning("QEMU_VM_VMDESCRIPTION", "JSON text about the sections"),
    SectionType.CONFIGURATION: Meaning("QEMU_VM_CONFIGURATION", "machine type and capabilities"),
    SectionType.COMMAND: Meaning("QEMU_VM_COMMAND", "order to the destination"),
    SectionType.FOOTER: Meaning("QEMU_VM_SECTION_FOOTER", "closes a section, repeats its id"),
}


class Command(IntEnum):
    """Command of the main stream (savevm.c:enum qemu_vm_cmd)."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11


COMMANDS: Final[Mapping[Command, Meaning]] = {
    Command.OPEN_RETURN_PATH: Meaning("MIG_CMD_OPEN_RETURN_PATH", "answer on this connection"),
    Command.PING: Meaning("MIG_CMD_PING", "answer with PONG and the same value"),
    Command.POSTCOPY_ADVISE: Meaning("MIG_CMD_POSTCOPY_ADVISE", "postcopy may follow, page sizes"),
    Command.POSTCOPY_LISTEN: Meaning("MIG_CMD_POSTCOPY_LISTEN", "begin to accept pages on demand"),
    Command.POSTCOPY_RUN: Meaning("MIG_CMD_POSTCOPY_RUN", "start the guest"),
    Command.POSTCOPY_RAM_DISCARD: Meaning("MIG_CMD_POSTCOPY_RAM_DISCARD", "forget dirty ranges"),
    Command.PACKAGED: Meaning("MIG_CMD_PACKAGED", "a wrapped piece of stream follows"),
    Command.ENABLE_COLO: Meaning("MIG_CMD_ENABLE_COLO", "continue as a COLO secondary"),
    Command.POSTCOPY_RESUME: Meaning("MIG_CMD_POSTCOPY_RESUME", "resume after a broken postcopy"),
    Command.RECV_BITMAP: Meaning("MIG_CMD_RECV_BITMAP", "send back a block's received bitmap"),
    Command.SWITCHOVER_START: Meaning(
        "MIG_CMD_SWITCHOVER_START", "the guest has stopped, start loading devices", "10.0"
    ),
}

COMMAND_LENGTHS: Final[Mapping[Command, int | None]] = {
    Command.OPEN_RETURN_PATH: 0,
    Command.PING: 4,
    Command.POSTCOPY_ADVISE: None,
    Command.POSTCOPY_LISTEN: 0,
    Command.POSTCOPY_RUN: 0,
    Command.POSTCOPY_RAM_DISCARD: None,
    Command.PACKAGED: 4,
    Command.ENABLE_COLO: 0,
    Command.POSTCOPY_RESUME: 0,
    Command.RECV_BITMAP: None,
    Command.SWITCHOVER_START: 0,
}
"""Payload length that the destination demands, None if it varies (savevm.c:mig_cmd_args)."""


# RAM sections: ram.h.


class RamFlag(IntFlag):
    """Low bits of a RAM record's first word (ram.h)."""

    FULL = 0x001
    ZERO = 0x002
    MEM_SIZE = 0x004
    PAGE = 0x008
    EOS = 0x010
    CONTINUE = 0x020
    XBZRLE = 0x040
    HOOK = 0x080
    COMPRESS_PAGE = 0x100
    MULTIFD_FLUSH = 0x200


RAM_FLAGS: Final[Mapping[RamFlag, Meaning]] = {
    RamFlag.FULL: Meaning("RAM_SAVE_FLAG_FULL", "obsolete"),
    RamFlag.ZERO: Meaning("RAM_SAVE_FLAG_ZERO", "a page of zeroes"),
    RamFlag.MEM_SIZE: Meaning("RAM_SAVE_FLAG_MEM_SIZE", "list of RAM blocks"),
    RamFlag.PAGE: Meaning("RAM_SAVE_FLAG_PAGE", "a page, raw"),
    RamFlag.EOS: Meaning("RAM_SAVE_FLAG_EOS", "end of this section's records"),
    RamFlag.CONTINUE: Meaning("RAM_SAVE_FLAG_CONTINUE", "same block as the record before"),
    RamFlag.XBZRLE: Meaning("RAM_SAVE_FLAG_XBZRLE", "a page as difference to its last copy"),
    RamFlag.HOOK: Meaning("RAM_SAVE_FLAG_HOOK", "RDMA control record"),
    RamFlag.COMPRESS_PAGE: Meaning("RAM_SAVE_FLAG_COMPRESS_PAGE", "a deflated page, until 9.0"),
    RamFlag.MULTIFD_FLUSH: Meaning(
        "RAM_SAVE_FLAG_MULTIFD_FLUSH", "wait for one SYNC on every channel", "8.1"
    ),
}

RAM_SECTION_VERSION: Final = 4
MAPPED_RAM_HDR_VERSION: Final = 1
XBZRLE_ENCODING: Final = 0x01
"""The only encoding of an XBZRLE record (ram.c:ENCODING_FLAG_XBZRLE)."""


# Multifd channels: multifd.h, multifd.c.

MULTIFD_MAGIC: Final = 0x11223344
MULTIFD_VERSION: Final = 1
MULTIFD_PACKET_SIZE: Final = 512 * 1024
"""Most bytes of RAM that one packet carries."""

MULTIFD_INIT_SIZE: Final = 64
MULTIFD_HEADER_SIZE: Final = 12
MULTIFD_RAM_FIXED_SIZE: Final = 320
"""RAM packet without its page offsets."""

MULTIFD_DEVICE_STATE_SIZE: Final = 276
"""Device state packet without its payload."""

MULTIFD_MAX_CHANNELS: Final = 255
MULTIFD_ZLIB_BUFFER_SIZE: Final = 1024 * 1024
"""Receive buffer of the zlib and zstd methods (multifd-zlib.c, multifd-zstd.c)."""


class MultiFDFlag(IntFlag):
    """Flags of a multifd packet (multifd.h). NOCOMP is the absence of a method."""

    SYNC = 0x01
    ZLIB = 0x02
    ZSTD = 0x04
    QPL = 0x08
    UADK = 0x10
    QATZIP = 0x20
    DEVICE_STATE = 0x40


MULTIFD_FLAGS: Final[Mapping[MultiFDFlag, Meaning]] = {
    MultiFDFlag.SYNC: Meaning("MULTIFD_FLAG_SYNC", "synchronisation point", "4.0"),
    MultiFDFlag.ZLIB: Meaning("MULTIFD_FLAG_ZLIB", "pages compressed by zlib", "5.0"),
    MultiFDFlag.ZSTD: Meaning("MULTIFD_FLAG_ZSTD", "pages compressed by zstd", "5.0"),
    MultiFDFlag.QPL: Meaning("MULTIFD_FLAG_QPL", "pages deflated by Intel QPL", "9.1"),
    MultiFDFlag.UADK: Meaning("MULTIFD_FLAG_UADK", "pages compressed by UADK", "9.1"),
    MultiFDFlag.QATZIP: Meaning("MULTIFD_FLAG_QATZIP", "pages compressed by QATzip", "9.2"),
    MultiFDFlag.DEVICE_STATE: Meaning(
        "MULTIFD_FLAG_DEVICE_STATE", "packet of device state, not of RAM", "10.0"
    ),
}

MULTIFD_COMPRESSION_MASK: Final = 0x3E
"""Bits that hold the compression method, 9.2 and later."""

MULTIFD_COMPRESSION_MASK_9_1: Final = 0x1E
MULTIFD_COMPRESSION_MASK_9_0: Final = 0x0E


# VFIO: hw/vfio/migration.c, hw/vfio/migration-multifd.c.

VFIO_PACKET_HEADER_SIZE: Final = 12
VFIO_PACKET_VERSION: Final = 0
VFIO_INVALID_IDX: Final = 0xFFFFFFFF
"""UINT32_MAX, the one idx that the destination refuses."""

VFIO_SECTION_VERSION: Final = 1


class VFIOStateFlag(IntFlag):
    """Flags of a VFIO device state packet (vfio/migration-multifd.c)."""

    CONFIG_STATE = 0x1


VFIO_STATE_FLAGS: Final[Mapping[VFIOStateFlag, Meaning]] = {
    VFIOStateFlag.CONFIG_STATE: Meaning(
        "VFIO_DEVICE_STATE_CONFIG_STATE", "the device's config, last of its packets", "10.0"
    ),
}


class VFIOMarker(IntEnum):
    """Tag of a VFIO record in the main stream (vfio/migration.c)."""

    END_OF_STATE = 0xFFFFFFFFEF100001
    DEV_CONFIG_STATE = 0xFFFFFFFFEF100002
    DEV_SETUP_STATE = 0xFFFFFFFFEF100003
    DEV_DATA_STATE = 0xFFFFFFFFEF100004
    DEV_INIT_DATA_SENT = 0xFFFFFFFFEF100005
    DEV_CONFIG_LOAD_READY = 0xFFFFFFFFEF100006


VFIO_MARKERS: Final[Mapping[VFIOMarker, Meaning]] = {
    VFIOMarker.END_OF_STATE: Meaning(
        "VFIO_MIG_FLAG_END_OF_STATE", "end of the section's body", "5.2"
    ),
    VFIOMarker.DEV_CONFIG_STATE: Meaning(
        "VFIO_MIG_FLAG_DEV_CONFIG_STATE", "bus-specific config and END_OF_STATE follow", "5.2"
    ),
    VFIOMarker.DEV_SETUP_STATE: Meaning(
        "VFIO_MIG_FLAG_DEV_SETUP_STATE", "END_OF_STATE follows", "5.2"
    ),
    VFIOMarker.DEV_DATA_STATE: Meaning(
        "VFIO_MIG_FLAG_DEV_DATA_STATE", "a size and that many device bytes follow", "5.2"
    ),
    VFIOMarker.DEV_INIT_DATA_SENT: Meaning(
        "VFIO_MIG_FLAG_DEV_INIT_DATA_SENT", "initial bytes are all sent; ends the body", "8.1"
    ),
    VFIOMarker.DEV_CONFIG_LOAD_READY: Meaning(
        "VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY", "the config may be loaded; ends the body", "10.1"
    ),
}


# Return path: migration.h, migration.c.


class ReturnPathType(IntEnum):
    """Message type on the return path (migration.c:enum mig_rp_message_type)."""

    SHUT = 1
    PONG = 2
    REQ_PAGES_ID = 3
    REQ_PAGES = 4
    RECV_BITMAP = 5
    RESUME_ACK = 6
    SWITCHOVER_ACK = 7


RETURN_PATH_TYPES: Final[Mapping[ReturnPathType, Meaning]] = {
    ReturnPathType.SHUT: Meaning("MIG_RP_MSG_SHUT", "last message, 0 if all is well"),
    ReturnPathType.PONG: Meaning("MIG_RP_MSG_PONG", "answer to PING"),
    ReturnPathType.REQ_PAGES_ID: Meaning("MIG_RP_MSG_REQ_PAGES_ID", "pages wanted, with block"),
    ReturnPathType.REQ_PAGES: Meaning("MIG_RP_MSG_REQ_PAGES", "pages wanted, same block"),
    ReturnPathType.RECV_BITMAP: Meaning("MIG_RP_MSG_RECV_BITMAP", "a block's received bitmap"),
    ReturnPathType.RESUME_ACK: Meaning("MIG_RP_MSG_RESUME_ACK", "ready to resume postcopy"),
    ReturnPathType.SWITCHOVER_ACK: Meaning(
        "MIG_RP_MSG_SWITCHOVER_ACK", "the source may stop the guest", "8.1"
    ),
}

RETURN_PATH_LENGTHS: Final[Mapping[ReturnPathType, int | None]] = {
    ReturnPathType.SHUT: 4,
    ReturnPathType.PONG: 4,
    ReturnPathType.REQ_PAGES_ID: None,
    ReturnPathType.REQ_PAGES: 12,
    ReturnPathType.RECV_BITMAP: None,
    ReturnPathType.RESUME_ACK: 4,
    ReturnPathType.SWITCHOVER_ACK: 0,
}
"""Payload length that the source demands, None if it varies (migration.c:rp_cmd_args)."""

RETURN_PATH_MAX_LENGTH: Final = 512
RECV_BITMAP_ENDING: Final = 0x0123456789ABCDEF
"""Closes a received bitmap (ram.c:RAMBLOCK_RECV_BITMAP_ENDING)."""


_FlagT = TypeVar("_FlagT", bound=IntFlag)


def flag_names(value: int, table: Mapping[_FlagT, Meaning]) -> str:
    """Write flags as ``SYNC|0x80``: the table's names, then unknown bits; ``0`` if there are none.

    ``table`` is one of the tables of this module whose keys are flags.
    """
    names = [flag.name or hex(flag) for flag in table if value & flag]
    unknown = value & ~sum(table)
    if unknown or not names:
        names.append(f"{unknown:#x}" if unknown else "0")
    return "|".join(names)
