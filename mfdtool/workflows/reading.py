# SPDX-License-Identifier: GPL-2.0-or-later
"""From the files that a user names to frames: the way in that all subcommands share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mfdtool.capture.container import StoredStream, unpack
from mfdtool.capture.raw import stream_of
from mfdtool.capture.source import DEFAULT_LIMIT, Source, open_input, open_main, open_raw
from mfdtool.errors import CaptureError, WireError
from mfdtool.packets.info import CaptureInfo, Format
from mfdtool.stream.bulk import BulkStreams
from mfdtool.stream.channel import Channel, ChannelKind
from mfdtool.stream.connections import StreamCounters
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import EndReason
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.vmdesc import DEFAULT_LIMIT as DESCRIPTION_LIMIT
from mfdtool.wire.vmdesc import VmDescription, find_vmdescription, parse_vmdescription

_CAPTURES: Final = frozenset({Format.PCAP, Format.PCAPNG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What to read: one capture (``-`` is standard input), or streams that were saved as files.

    ``description`` is a vmdescription to go by instead of the streams' own, ``described_by`` the
    file that it came from, for the command that repeats a run; ``page_size`` is the target page
    size where the streams do not tell it; ``limit`` bounds the temporary copy of a compressed or
    piped input, in bytes.
    """

    capture: str | None = None
    main: Path | None = None
    multifd: tuple[Path, ...] = ()
    page_size: int | None = None
    description: VmDescription | None = None
    described_by: Path | None = None
    limit: int = DEFAULT_LIMIT


class Reading:
    """An input that is being decoded; a context manager.

    ::

        with Reading(Input(capture="run.pcapng")) as reading:
            for frame in reading.frames():
                ...

    Attributes:
        decoder: its migrations are complete when the frames are.
        info: what the capture file says about itself.
        counters: records and segments, complete when the frames are; None for raw streams.
        remarks: what a file that is no capture says of its streams, in words.
        problems: what is wrong with the input; what could be read comes all the same.
        first_loss: the first frame that is a gap, incomplete or not decoded to its end; None if
            none came.
    """

    def __init__(self, source: Input, *, keep_extents: bool = False) -> None:
        """Open the files.

        Raises:
            CaptureError: one of them cannot be read or is not what it should be.
        """
        self.input = source
        self.info = CaptureInfo()
        self.counters: StreamCounters | None = None
        self.remarks: list[str] = []
        self.problems: list[CaptureError] = []
        self.first_loss: Frame | None = None
        self._keeps = keep_extents
        self._stack = ExitStack()
        with ExitStack() as opening:
            self._capture, self._streams = self._open(opening)
            self._stack = opening.pop_all()
        self.decoder = self._new_decoder(self._described(), keeps=keep_extents)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def complete(self) -> bool:
        """Whether everything was decoded that the input has of its migrations."""
        return self.first_loss is None and not self.problems and not self.unfinished

    @property
    def unfinished(self) -> list[Channel]:
        """Main streams that the input leaves open: neither their end nor the connection's came.

        Known when the frames have all been given.
        """
        channels = (channel for known in self.decoder.migrations for channel in known.channels)
        return [
            channel
            for channel in channels
            if isinstance(channel.framer, MainFramer)
            and not channel.framer.ended
            and channel.stream.end is not None
            and channel.stream.end.reason is EndReason.CAPTURE
        ]

    def learn(self) -> None:
        """Read everything once for the vmdescriptions, so that `frames` need not wait for them.

        A main stream has its vmdescription at its end: without it, sections before the switchover
        are not known, and those after it are held back. One that the user gave is taken for all.
        """
        if self.input.description is not None:
            return
        problems = list(self.problems)
        self.decoder = self._new_decoder(self._described(), keeps=False)
        for _ in self.batches():
            pass
        known = {
            channel.framer.channel.migration: channel.framer.description
            for migration in self.decoder.migrations
            for channel in migration.channels
            if isinstance(channel.framer, MainFramer) and channel.framer.description is not None
        }
        self.decoder = self._new_decoder(known, keeps=self._keeps)
        self.problems[:] = problems
        self.info = CaptureInfo(format=self.info.format)

    def note(self, frames: Iterable[Frame]) -> None:
        """Remember the first loss among frames that did not come by `frames`."""
        if self.first_loss is None:
            self.first_loss = next(filter(_is_loss, frames), None)

    def frames(self) -> Iterator[Frame]:
        """Give all frames of all migrations in the order of arrival."""
        for frame in self._all_frames():
            if self.first_loss is None and _is_loss(frame):
                self.first_loss = frame
            yield frame

    def batches(self) -> Iterator[list[Frame]]:
        """Give the same frames in lists, as they become final; the caller has to `note` them."""
        if self._capture is None:
            for kind, stream in self._streams:
                self.decoder.add(kind, *stream.runs, origin=stream.origin)
        else:
            yield from self._windows(self._capture)
        yield self.decoder.finish()

    def _all_frames(self) -> Iterator[Frame]:
        for batch in self.batches():
            yield from batch

    def _new_decoder(self, descriptions: Mapping[int, VmDescription], *, keeps: bool) -> Decoder:
        return Decoder(
            page_size=self.input.page_size,
            description=self.input.description,
            descriptions=descriptions,
            keep_extents=keeps,
        )

    def _described(self) -> dict[int, VmDescription]:
        """Give the vmdescriptions of main streams that came as files: they are at the ends."""
        found: dict[int, VmDescription] = {}
        if self.input.description is not None:
            return found
        mains = (stream for kind, stream in self._streams if kind is ChannelKind.MAIN)
        for index, stream in enumerate(mains):
            view = stream.tail()
            if (place := find_vmdescription(view)) is not None:
                with suppress(WireError):
                    found[index] = parse_vmdescription(view[slice(*place)])
        return found

    def _open(
        self, opening: ExitStack
    ) -> tuple[Source | None, list[tuple[ChannelKind, StoredStream]]]:
        wanted = self.input
        streams: list[tuple[ChannelKind, StoredStream]] = []
        if wanted.capture is not None:
            source = opening.enter_context(open_input(wanted.capture, limit=wanted.limit))
            self.problems.extend(source.problems)
            if source.kind in _CAPTURES:
                return source, streams
            self.info.format = source.kind
            streams += self._unpack(source, opening)
        if wanted.main is not None:
            source = opening.enter_context(open_main(wanted.main, limit=wanted.limit))
            self.problems.extend(source.problems)
            streams += self._unpack(source, opening)
        for path in wanted.multifd:
            source = opening.enter_context(open_raw(path, limit=wanted.limit))
            self.problems.extend(source.problems)
            streams.append((ChannelKind.MULTIFD, StoredStream(runs=(stream_of(source),))))
        return None, streams

    def _unpack(
        self, source: Source, opening: ExitStack
    ) -> Iterator[tuple[ChannelKind, StoredStream]]:
        container = unpack(source, opening, limit=self.input.limit)
        self.remarks.extend(container.remarks)
        self.problems.extend(container.problems)
        for stream in container.streams:
            yield ChannelKind.MAIN, stream

    def _windows(self, capture: Source) -> Iterator[list[Frame]]:
        streams = BulkStreams(
            capture.view, path=capture.path, info=self.info, release=capture.drop_pages
        )
        self.counters = streams.counters
        try:
            for window in streams.windows():
                yield self.decoder.feed(window)
                if self._keeps:
                    # Whoever looked at the frames' bytes has touched their pages again.
                    capture.drop_pages(0, len(capture.view))
        except CaptureError as error:
            # Damage is told when everything before it has been given.
            self.problems.append(error)


def read_description(path: Path) -> VmDescription:
    """Read a vmdescription's JSON text, as ``extract --vmdesc`` writes it.

    Raises:
        CaptureError: the file cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            text = file.read(DESCRIPTION_LIMIT + 1)
        return parse_vmdescription(text)
    except OSError as error:
        raise CaptureError(error.strerror or str(error), path=str(path)) from error
    except WireError as error:
        raise CaptureError(f"not a vmdescription: {error}", path=str(path)) from error


def _is_loss(frame: Frame) -> bool:
    if frame.missing or frame.kind is Kind.UNDECODED:
        return True
    value = frame.value
    return isinstance(value, DeviceState) and value.rest() is not None
