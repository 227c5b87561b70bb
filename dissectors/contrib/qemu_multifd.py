# SPDX-License-Identifier: GPL-2.0-or-later
# scapy.contrib.description = QEMU migration: multifd channels, main stream, return path
# scapy.contrib.status = loads
"""What ``load_contrib("qemu_multifd")`` gives.

Scapy executes this file once more, as a module of its own: so it defines nothing.
"""

from __future__ import annotations

from dissectors import bind_ports, read
from dissectors.captured import ChannelFrame, Missing, Undecoded
from dissectors.main_stream import (
    Command,
    Configuration,
    ConfigurationSubsection,
    CountedString,
    DiscardRange,
    EndOfStream,
    FileHeader,
    MainStream,
    Packaged,
    Ping,
    PostcopyAdvise,
    PostcopyRamDiscard,
    RecvBitmap,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    SubsectionHeader,
    VmDescription,
)
from dissectors.multifd import (
    MultiFDChannel,
    MultiFDInit,
    MultiFDPacket,
    MultiFDPacketDeviceState,
    MultiFDPacketHdr,
    MultiFDSync,
)
from dissectors.ram import (
    MappedRamHeader,
    MemSizeEntry,
    RamBlockRecord,
    RamCompressedPage,
    RamMemSize,
    RamPage,
    RamRecord,
    RamXbzrle,
    RamZero,
)
from dissectors.return_path import (
    Pong,
    RecvBitmapReply,
    ReqPages,
    ReqPagesId,
    ResumeAck,
    ReturnPath,
    ReturnPathMessage,
    Shut,
)
from dissectors.vfio import (
    VFIOConfigState,
    VFIODeviceData,
    VFIODeviceStatePacket,
    VFIOMarkerRecord,
)

__all__ = [
    "ChannelFrame",
    "Command",
    "Configuration",
    "ConfigurationSubsection",
    "CountedString",
    "DiscardRange",
    "EndOfStream",
    "FileHeader",
    "MainStream",
    "MappedRamHeader",
    "MemSizeEntry",
    "Missing",
    "MultiFDChannel",
    "MultiFDInit",
    "MultiFDPacket",
    "MultiFDPacketDeviceState",
    "MultiFDPacketHdr",
    "MultiFDSync",
    "Packaged",
    "Ping",
    "Pong",
    "PostcopyAdvise",
    "PostcopyRamDiscard",
    "RamBlockRecord",
    "RamCompressedPage",
    "RamMemSize",
    "RamPage",
    "RamRecord",
    "RamXbzrle",
    "RamZero",
    "RecvBitmap",
    "RecvBitmapReply",
    "ReqPages",
    "ReqPagesId",
    "ResumeAck",
    "ReturnPath",
    "ReturnPathMessage",
    "SectionEnd",
    "SectionFooter",
    "SectionFull",
    "SectionPart",
    "SectionStart",
    "Shut",
    "SubsectionHeader",
    "Undecoded",
    "VFIOConfigState",
    "VFIODeviceData",
    "VFIODeviceStatePacket",
    "VFIOMarkerRecord",
    "VmDescription",
    "bind_ports",
    "read",
]
