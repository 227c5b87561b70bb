# SPDX-License-Identifier: GPL-2.0-or-later
"""All wire values, by where they travel: for documentation and for tools that describe formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mfdtool.wire import iterable, main_stream, multifd, ram, return_path, vfio
from mfdtool.wire.codec import Message

CATALOG: Final[Mapping[str, tuple[type[Message], ...]]] = {
    "main": (
        main_stream.FileHeader,
        main_stream.ConfigurationHeader,
        main_stream.Configuration,
        main_stream.ConfigurationSubsection,
        main_stream.TargetPageBits,
        main_stream.Capabilities,
        main_stream.ConfigurationUuid,
        main_stream.SectionStart,
        main_stream.SectionPart,
        main_stream.SectionFooter,
        main_stream.SubsectionHeader,
        main_stream.CommandHeader,
        main_stream.Ping,
        main_stream.PostcopyAdvise,
        main_stream.PostcopyRamDiscard,
        main_stream.DiscardRange,
        main_stream.Packaged,
        main_stream.RecvBitmap,
        main_stream.VmDescriptionHeader,
    ),
    "ram": (
        ram.RamRecordHeader,
        ram.BlockId,
        ram.MemSizeEntry,
        ram.MappedRamHeader,
        ram.ZeroFill,
        ram.XbzrleHeader,
        ram.CompressedPageHeader,
    ),
    "iterable": (
        iterable.DirtyBitmapRecord,
        iterable.HtabHeader,
        iterable.HtabChunk,
        iterable.StorageAttributes,
    ),
    "vfio": (
        vfio.Marker,
        vfio.DeviceData,
        vfio.VFIODeviceStatePacket,
        vfio.DeviceStateHeader,
    ),
    "multifd": (
        multifd.MultiFDInit,
        multifd.MultiFDPacketHdr,
        multifd.MultiFDPacketCounts,
        multifd.MultiFDPacketFixed,
        multifd.MultiFDPacket,
        multifd.MultiFDPacketDeviceState,
    ),
    "return_path": (
        return_path.ReturnPathMessage,
        return_path.Shut,
        return_path.Pong,
        return_path.ReqPagesId,
        return_path.ReqPages,
        return_path.RecvBitmapReply,
        return_path.RecvBitmapSize,
        return_path.RecvBitmapEnd,
        return_path.ResumeAck,
    ),
}
"""Messages by module, in the order in which a stream has them."""
