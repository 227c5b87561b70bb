# SPDX-License-Identifier: GPL-2.0-or-later
"""VM states of snapshots in qcow2 images, which ``savevm`` writes.

A snapshot keeps a table of clusters of its own. The VM state lies in it behind the disk's end, as
if the disk were longer (block/qcow2.h:qcow2_vm_state_offset). Two levels of tables lead to the
clusters: an entry of the first one leads to a table of the second, whose entries lead to clusters
(docs/interop/qcow2.txt). All numbers are big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from mfdtool.errors import CaptureError, UnsupportedError

MAGIC: Final = b"QFI\xfb"
SNAPSHOTS_LIMIT: Final = 65536
"""Snapshots that an image may have (block/qcow2.h:QCOW_MAX_SNAPSHOTS)."""

_HEADER: Final = Struct(">4sIQIIQIIQQIIQ")
_INCOMPATIBLE: Final = Struct(">Q")
_SNAPSHOT: Final = Struct(">QIHHIIQII")
_EXTRA: Final = Struct(">QQ")
_ENTRY: Final = Struct(">Q")
_CLUSTER_BITS: Final = range(9, 22)
_OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED: Final = 1 << 62
_READS_AS_ZERO: Final = 1
_UNSUPPORTED: Final = {1 << 2: "an external data file", 1 << 4: "extended L2 entries"}
_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image's header, as far as it matters.

    Attributes:
        cluster_bits: log2 of a cluster's size.
        disk_size: bytes of the disk.
        snapshots: how many there are.
        snapshots_offset: where their table is.
    """

    cluster_bits: int
    disk_size: int
    snapshots: int
    snapshots_offset: int

    @property
    def table_bits(self) -> int:
        """Log2 of how many entries a table of the second level has."""
        return self.cluster_bits - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot.

    Attributes:
        number: its id, by which it is known besides its name.
        name: its name.
        time: when it was taken, seconds since the epoch.
        state_size: bytes of VM state; 0 if it has none.
        disk_size: bytes that the disk had then.
        table: where its table of the first level is, and how many entries that has.
    """

    number: str
    name: str
    time: int
    state_size: int
    disk_size: int
    table: tuple[int, int]


class Extent(NamedTuple):
    """Bytes of a VM state: where in the file they are, None if they read as zeroes; how many."""

    offset: int | None
    length: int


def is_qcow2(start: bytes) -> bool:
    """Say whether a file that begins with these (at least 4) bytes is a qcow2 image."""
    return start.startswith(MAGIC)


def read_image(buffer: memoryview, *, path: str = "") -> Image:
    """Read the header.

    Raises:
        CaptureError: it is not a qcow2 image, is cut short, or has impossible sizes.
        UnsupportedError: it is encrypted, or has features that hide the VM states.
    """
    if not is_qcow2(bytes(buffer[:4])):
        raise CaptureError("this is not a qcow2 image", path=path, offset=0)
    fields = _unpack(_HEADER, buffer, 0, path)
    _, version, _, _, cluster_bits, size, crypt, _, _, _, _, snapshots, offset = fields
    if version not in {2, 3}:
        raise UnsupportedError(f"{path}: version {version} of qcow2", path="version", offset=4)
    if cluster_bits not in _CLUSTER_BITS:
        raise CaptureError(f"clusters of 2^{cluster_bits} bytes", path=path, offset=20)
    if crypt:
        raise UnsupportedError(f"{path}: an encrypted image", path="crypt_method", offset=32)
    if version > 2:
        (features,) = _unpack(_INCOMPATIBLE, buffer, _HEADER.size, path)
        for bit, name in _UNSUPPORTED.items():
            if features & bit:
                reason = f"{path}: an image with {name}"
                raise UnsupportedError(reason, path="incompatible_features", offset=_HEADER.size)
    if snapshots > SNAPSHOTS_LIMIT:
        raise CaptureError(f"{snapshots} snapshots", path=path, offset=60)
    return Image(
        cluster_bits=cluster_bits, disk_size=size, snapshots=snapshots, snapshots_offset=offset
    )


def read_snapshots(buffer: memoryview, image: Image, *, path: str = "") -> Iterator[Snapshot]:
    """Give the snapshots, in the image's order.

    Raises:
        CaptureError: the table reaches beyond the file's end.
    """
    at = image.snapshots_offset
    for _ in range(image.snapshots):
        fields = _unpack(_SNAPSHOT, buffer, at, path)
        table, entries, id_size, name_size, seconds, _, _, state_size, extra_size = fields
        at += _SNAPSHOT.size
        disk_size = image.disk_size
        if extra_size >= _EXTRA.size:
            state_size, disk_size = _unpack(_EXTRA, buffer, at, path)
        elif extra_size >= _ENTRY.size:
            (state_size,) = _unpack(_ENTRY, buffer, at, path)
        at += extra_size
        names = bytes(buffer[at : at + id_size + name_size])
        if len(names) < id_size + name_size:
            raise CaptureError("a snapshot's name is cut short", path=path, offset=at)
        yield Snapshot(
            number=names[:id_size].decode(errors="replace"),
            name=names[id_size:].decode(errors="replace"),
            time=seconds,
            state_size=state_size,
            disk_size=disk_size,
            table=(table, entries),
        )
        at += -(-len(names) // _ALIGNMENT) * _ALIGNMENT


def state_extents(
    buffer: memoryview, image: Image, snapshot: Snapshot, *, known: set[int], path: str = ""
) -> Iterator[Extent]:
    """Give where a snapshot's VM state is, in order.

    No table and no cluster is believed twice, so there is never more work than the file is long:
    ``known`` are those of the image's other snapshots, and grows.

    Raises:
        CaptureError: a table is missing, leads outside the file or where another one leads.
        UnsupportedError: a cluster is compressed.
    """
    left = snapshot.state_size
    covered = 1 << image.cluster_bits + image.table_bits
    table, entries = snapshot.table
    for index in range(-(-snapshot.disk_size // covered), entries):
        if not left:
            return
        (entry,) = _unpack(_ENTRY, buffer, table + index * _ENTRY.size, path)
        second = entry & _OFFSET_MASK
        if not second:
            break
        _claim(known, second, path)
        for extent in _clusters(buffer, image, second, left, path):
            if extent.offset is not None:
                _claim(known, extent.offset, path)
            left -= extent.length
            yield extent
    if left:
        reason = f"snapshot {snapshot.name}: {left} bytes of its VM state are not there"
        raise CaptureError(reason, path=path, offset=table)


def _clusters(
    buffer: memoryview, image: Image, table: int, left: int, path: str
) -> Iterator[Extent]:
    size = 1 << image.cluster_bits
    for index in range(1 << image.table_bits):
        if not left:
            return
        at = table + index * _ENTRY.size
        (entry,) = _unpack(_ENTRY, buffer, at, path)
        if entry & _COMPRESSED:
            raise UnsupportedError(f"{path}: a compressed cluster of VM state", offset=at)
        length = min(left, size)
        offset = entry & _OFFSET_MASK
        if not offset or entry & _READS_AS_ZERO:
            yield Extent(None, length)
        elif offset + length > len(buffer):
            raise CaptureError(f"a cluster at {offset} is beyond the end", path=path, offset=at)
        else:
            yield Extent(offset, length)
        left -= length


def _claim(known: set[int], offset: int, path: str) -> None:
    if offset in known:
        raise CaptureError("tables lead here more than once", path=path, offset=offset)
    known.add(offset)


def _unpack(layout: Struct, buffer: memoryview, at: int, path: str) -> tuple[int, ...]:
    if at + layout.size > len(buffer):
        raise CaptureError("a table is beyond the file's end", path=path, offset=at)
    return layout.unpack_from(buffer, at)
