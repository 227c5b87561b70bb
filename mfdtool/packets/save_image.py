# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of ``virsh save``: a header, the domain's XML, a cookie, then the main stream.

Numbers are in the byte order of the host that wrote the file, which the version tells. The stream
is raw, or compressed as a whole; in the format ``sparse`` it is raw and mapped-ram, and places in
it count from the start of the file. See libvirt's src/qemu/qemu_saveimage.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from mfdtool.errors import CaptureError, UnsupportedError
from mfdtool.packets.info import ByteOrder

MAGIC: Final = b"LibvirtQemudSave"
PARTIAL_MAGIC: Final = b"LibvirtQemudPart"
"""What the magic is until the save has succeeded."""

VERSION: Final = 2
HEADER_SIZE: Final = 92

_FIELDS: Final = "16s5I56x"
_VERSION_AT: Final = 16
_FORMAT_AT: Final = 28


class SaveFormat(IntEnum):
    """How the stream is stored (virQEMUSaveFormat)."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6


_FORMATS: Final = frozenset(int(known) for known in SaveFormat)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveImage:
    """What a save image says of itself.

    Attributes:
        format: how the stream is stored.
        was_running: whether the guest ran when it was saved.
        is_partial: whether the save had not succeeded yet.
        xml: the domain's description, without the NUL behind it.
        cookie: libvirt's own notes, as XML; empty if there are none.
        start: where in the file the stream begins.
    """

    format: SaveFormat
    was_running: bool
    is_partial: bool
    xml: bytes
    cookie: bytes
    start: int


def is_save_image(start: bytes) -> bool:
    """Say whether a file that begins with these (at least 16) bytes is a save image."""
    return start.startswith((MAGIC, PARTIAL_MAGIC))


def read_save_image(buffer: memoryview, *, path: str = "") -> SaveImage:
    """Read everything before the stream.

    Raises:
        CaptureError: it is not a save image, is cut short, or contradicts itself.
        UnsupportedError: it is of a version, or in a format, that is not known.
    """
    magic = bytes(buffer[: len(MAGIC)])
    if not is_save_image(magic):
        raise CaptureError("this is not a libvirt save image", path=path, offset=0)
    if len(buffer) < HEADER_SIZE:
        raise CaptureError("the header is cut short", path=path, offset=len(buffer))
    order = _byte_order(buffer)
    _, version, length, was_running, number, cookie = Struct(order + _FIELDS).unpack_from(buffer)
    if version > VERSION:
        reason = f"{path}: version {version} of libvirt's save images"
        raise UnsupportedError(reason, path="version", offset=_VERSION_AT)
    if number not in _FORMATS:
        reason = f"{path}: format {number} of libvirt's save images"
        raise UnsupportedError(reason, path="format", offset=_FORMAT_AT)
    start = HEADER_SIZE + length
    if start > len(buffer):
        raise CaptureError(f"ends before byte {start}, inside the XML", path=path, offset=20)
    if cookie and not HEADER_SIZE <= cookie <= start:
        raise CaptureError(f"the cookie at {cookie} is outside", path=path, offset=32)
    end = cookie or start
    return SaveImage(
        format=SaveFormat(number),
        was_running=bool(was_running),
        is_partial=magic == PARTIAL_MAGIC,
        xml=bytes(buffer[HEADER_SIZE:end]).partition(b"\0")[0],
        cookie=bytes(buffer[end:start]).partition(b"\0")[0],
        start=start,
    )


def _byte_order(buffer: memoryview) -> ByteOrder:
    """Tell the byte order by the version, which is a small number."""
    version = bytes(buffer[_VERSION_AT : _VERSION_AT + 4])
    little = int.from_bytes(version, "little") <= int.from_bytes(version)
    return ByteOrder.LITTLE if little else ByteOrder.BIG
