# SPDX-License-Identifier: GPL-2.0-or-later
"""From the files that a user names to frames: the way in that all subcommands share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mfdtool.capture.raw import stream_of
from mfdtool.capture.source import DEFAULT_LIMIT, Source, open_capture, open_raw
from mfdtool.errors import CaptureError
from mfdtool.packets.info import CaptureInfo
from mfdtool.stream.bulk import BulkStreams
from mfdtool.stream.channel import Channel, ChannelKind
from mfdtool.stream.connections import StreamCounters
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import EndReason

if TYPE_CHECKING:
    from mfdtool.wire.vmdesc import VmDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What to read: one capture (``-`` is standard input), or streams that were saved as files.

    ``page_size`` is the target page size where the streams do not tell it; ``limit`` bounds
    the temporary copy of a compressed or piped input, in bytes.
    """

    capture: str | None = None
    main: Path | None = None
    multifd: tuple[Path, ...] = ()
    page_size: int | None = None
    description: VmDescription | None = None
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
        problems: what is wrong with the input; what could be read comes all the same.
        first_loss: the first frame that is a gap, undecoded or incomplete; None if none came.
    """

    def __init__(self, source: Input, *, keep_extents: bool = False) -> None:
        """Open the files.

        Raises:
            CaptureError: one of them cannot be read or is not what it should be.
        """
        self.input = source
        self.info = CaptureInfo()
        self.counters: StreamCounters | None = None
        self.problems: list[CaptureError] = []
        self.first_loss: Frame | None = None
        self.decoder = Decoder(
            page_size=source.page_size,
            description=source.description,
            keep_extents=keep_extents,
        )
        self._keeps = keep_extents
        self._stack = ExitStack()
        with ExitStack() as opening:
            self._capture, self._streams = self._open(opening)
            self._stack = opening.pop_all()

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
            for kind, source in self._streams:
                self.decoder.add(kind, stream_of(source))
        else:
            yield from self._windows(self._capture)
        yield self.decoder.finish()

    def _all_frames(self) -> Iterator[Frame]:
        for batch in self.batches():
            yield from batch

    def _open(self, opening: ExitStack) -> tuple[Source | None, list[tuple[ChannelKind, Source]]]:
        wanted = self.input
        capture = None
        if wanted.capture is not None:
            capture = opening.enter_context(open_capture(wanted.capture, limit=wanted.limit))
            self.problems.extend(capture.problems)
        streams = []
        mains = [wanted.main] if wanted.main is not None else []
        for kind, paths in ((ChannelKind.MAIN, mains), (ChannelKind.MULTIFD, wanted.multifd)):
            for path in paths:
                source = opening.enter_context(open_raw(path, limit=wanted.limit))
                self.problems.extend(source.problems)
                streams.append((kind, source))
        return capture, streams

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


def _is_loss(frame: Frame) -> bool:
    return bool(frame.missing) or frame.kind is Kind.UNDECODED
