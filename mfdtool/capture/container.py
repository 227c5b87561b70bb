# SPDX-License-Identifier: GPL-2.0-or-later
"""Main streams in files that hold other things as well.

======================  ==========================================================================
a raw main stream       the whole file, as ``migrate file:PATH`` or ``exec:cat > PATH`` write it
a libvirt save image    one stream behind a header and XML, raw or compressed
a qcow2 image           one stream for each snapshot with a VM state
======================  ==========================================================================
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mfdtool.capture.compression import (
    PIECE_SIZE,
    Codec,
    bzip2_codec,
    decompress,
    gzip_codec,
    xz_codec,
    zstd_codec,
)
from mfdtool.capture.source import DEFAULT_LIMIT, Source, open_copy
from mfdtool.errors import CaptureError, UnsupportedError
from mfdtool.packets.info import Format
from mfdtool.packets.qcow2 import Extent, Image, Snapshot, read_image, read_snapshots, state_extents
from mfdtool.packets.save_image import HEADER_SIZE, SaveFormat, SaveImage, read_save_image
from mfdtool.stream.span import Run, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_CODECS: Final[Mapping[SaveFormat, Callable[[], Codec]]] = {
    SaveFormat.GZIP: gzip_codec,
    SaveFormat.BZIP2: bzip2_codec,
    SaveFormat.XZ: xz_codec,
    SaveFormat.ZSTD: zstd_codec,
}
_PLAIN: Final = frozenset({SaveFormat.RAW, SaveFormat.SPARSE})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStream:
    """A main stream in a file.

    Attributes:
        runs: its bytes, which must not outlive the source.
        origin: where in the file it begins, if its own places count from the file's start.
        label: what tells it from others of the file; empty if there are no others.
    """

    runs: tuple[Run, ...]
    origin: int = 0
    label: str = ""

    def tail(self) -> memoryview:
        """Give the bytes at the end that lie together in the file."""
        if not self.runs:
            return memoryview(b"")
        last = self.runs[-1]
        start = last.offsets[-1]
        return last.buffer[start : start + last.stop - last.starts[-1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a file holds.

    Attributes:
        streams: in the file's order.
        remarks: what the file says of them, in words.
        problems: what is wrong with it.
    """

    streams: tuple[StoredStream, ...]
    remarks: tuple[str, ...] = ()
    problems: tuple[CaptureError, ...] = ()


def unpack(source: Source, opening: ExitStack, *, limit: int = DEFAULT_LIMIT) -> Container:
    """Find the main streams of an opened file; copies that this takes are closed by ``opening``.

    Raises:
        CaptureError: it is damaged, holds no stream, or a copy would have more than ``limit``
            bytes.
        UnsupportedError: it is understood, but its stream cannot be had.
    """
    if source.kind is Format.LIBVIRT:
        return _unpack_save_image(source, opening, limit)
    if source.kind is Format.QCOW2:
        return _unpack_image(source, limit)
    return Container(streams=(StoredStream(runs=(run_of(source.view),)),))


def _unpack_save_image(source: Source, opening: ExitStack, limit: int) -> Container:
    image = read_save_image(source.view, path=source.path)
    if image.start == len(source.view):
        raise CaptureError("ends where its stream should begin", path=source.path)
    problems: list[CaptureError] = []
    if image.is_partial:
        problems.append(CaptureError("the save was not finished", path=source.path, offset=0))
    stored = source.view[image.start :]
    opening.callback(stored.release)
    if image.format in _PLAIN:
        stream = StoredStream(runs=(run_of(stored),), origin=image.start)
    else:
        codec = _codec_for(image, source.path)
        damage: list[CaptureError] = []
        pieces = decompress(_pieces(stored), codec, source.path, damage)
        copy = opening.enter_context(open_copy(pieces, source.path, problems=damage, limit=limit))
        problems += damage
        stream = StoredStream(runs=(run_of(copy.view),))
    return Container(
        streams=(stream,), remarks=tuple(_save_remarks(image)), problems=tuple(problems)
    )


def _codec_for(image: SaveImage, path: str) -> Codec:
    codec = _CODECS.get(image.format)
    if codec is None:
        name = image.format.name.lower()
        tail = f"tail -c +{image.start + 1} {path} | {name} -d > STREAM"
        raise UnsupportedError(
            f"the stream is compressed by {name}: try '{tail}' and --main STREAM",
            path="format",
            offset=image.start,
        )
    return codec()


def _pieces(view: memoryview) -> Iterator[bytes]:
    for start in range(0, len(view), PIECE_SIZE):
        yield bytes(view[start : start + PIECE_SIZE])


def _save_remarks(image: SaveImage) -> Iterator[str]:
    state = "running" if image.was_running else "paused"
    yield (
        f"format {image.format.name.lower()}, saved {state}, XML of {len(image.xml):,} bytes at"
        f" {HEADER_SIZE}, cookie of {len(image.cookie):,} bytes, stream at {image.start:,}"
    )


def _unpack_image(source: Source, limit: int) -> Container:
    path = source.path
    image = read_image(source.view, path=path)
    streams: list[StoredStream] = []
    remarks: list[str] = []
    problems: list[CaptureError] = []
    layout = _StateLayout(source, image, limit)
    try:
        for snapshot in read_snapshots(source.view, image, path=path):
            remarks.append(_snapshot_remark(snapshot))
            if not snapshot.state_size:
                continue
            runs = layout.runs(snapshot, problems)
            if runs:
                streams.append(StoredStream(runs=runs, label=snapshot.name))
    except CaptureError as error:
        problems.append(error)
    if not streams:
        if problems:
            raise problems[0]
        count = image.snapshots
        reason = f"has no snapshot with a VM state ({count} without)" if count else "no snapshots"
        raise CaptureError(f"a disk image: {reason}", path=path)
    return Container(streams=tuple(streams), remarks=tuple(remarks), problems=tuple(problems))


def _snapshot_remark(snapshot: Snapshot) -> str:
    when = datetime.fromtimestamp(snapshot.time, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"snapshot {snapshot.number} {snapshot.name!r}, {when}, VM state {snapshot.state_size:,}"


class _StateLayout:
    """Makes runs of the VM states of an image."""

    def __init__(self, source: Source, image: Image, limit: int) -> None:
        self._source = source
        self._image = image
        self._left = limit
        self._known: set[int] = set()
        self._zeroes = memoryview(bytes(1 << image.cluster_bits))
        """Zeroes of any number of clusters."""

    def runs(self, snapshot: Snapshot, problems: list[CaptureError]) -> tuple[Run, ...]:
        """Give a VM state; what lies behind damage is left out."""
        runs: list[Run] = []
        pieces: list[tuple[int, int]] = []
        position = 0
        try:
            for offset, length in self._extents(snapshot):
                if offset is None:
                    runs += _run_of_pieces(self._source, pieces, position)
                    pieces = []
                    runs.append(run_of(self._zeroes[:length], start=position))
                elif not pieces or pieces[-1][1] + position - pieces[-1][0] != offset:
                    pieces.append((position, offset))
                position += length
        except CaptureError as error:
            problems.append(error)
        runs += _run_of_pieces(self._source, pieces, position)
        return tuple(runs)

    def _extents(self, snapshot: Snapshot) -> Iterator[Extent]:
        """Give the extents; those that are nowhere count against the limit.

        Raises:
            CaptureError: as `state_extents`, and when the limit is passed.
        """
        path = self._source.path
        view = self._source.view
        extents = state_extents(view, self._image, snapshot, known=self._known, path=path)
        for extent in extents:
            if extent.offset is None:
                self._left -= extent.length
                if self._left < 0:
                    raise CaptureError("more zeroes than the limit allows", path=path)
            yield extent


def _run_of_pieces(source: Source, pieces: list[tuple[int, int]], stop: int) -> Iterator[Run]:
    """Give the run of pieces of a file: where each is in the stream, and where in the file."""
    if pieces:
        starts, offsets = zip(*pieces, strict=True)
        count = len(pieces)
        yield Run(source.view, starts[0], stop, starts, offsets, (0,) * count, (-1,) * count)
