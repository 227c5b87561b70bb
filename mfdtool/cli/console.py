# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands say besides their data: problems, progress, and the exit status.

Data goes to standard output; everything here goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import click

from mfdtool.cli.status import ExitStatus
from mfdtool.errors import CaptureError
from mfdtool.stream.channel import ChannelKind, Stream
from mfdtool.stream.frames import Frame
from mfdtool.stream.selection import DevicesMet, Selection
from mfdtool.stream.vmstate import DeviceState
from mfdtool.workflows.reading import Input, Reading

PATIENCE: Final = 1.0
"""Seconds before progress is shown, so that quick work stays quiet."""

_INTERVAL: Final = 0.2
_PORTS_LISTED: Final = 8
_DEVICES_LISTED: Final = 32
_BLOCK: Final = 1 << 18


@contextmanager
def reading_of(source: Input, *, keep_extents: bool = False) -> Iterator[Reading]:
    """Open an input, and show progress while it is read for long.

    Raises:
        CaptureError: it cannot be read, or is not what it should be.
    """
    progress = Progress(sys.stderr, enabled=sys.stderr.isatty() and not sys.stdout.isatty())
    with _WatchedReading(source, keep_extents=keep_extents, progress=progress) as reading:
        try:
            yield reading
        finally:
            progress.clear()


def finish(reading: Reading) -> ExitStatus:
    """Tell the problems of an input that was read to its end; give the exit status.

    Raises:
        CaptureError: there was no migration in it.
    """
    for problem in reading.problems:
        click.echo(f"mfdtool: {problem}", err=True)
    reason = why_nothing(reading)
    if reason:
        raise CaptureError(reason, path=reading.input.capture or "")
    for loss in losses(reading):
        click.echo(f"mfdtool: {loss}", err=True)
    return ExitStatus.OK if reading.complete else ExitStatus.INCOMPLETE


def losses(reading: Reading) -> Iterator[str]:
    """Say where decoding first lacked bytes, and which main streams have no end."""
    name = reading.input.capture
    if (loss := reading.first_loss) is not None:
        where = name or "input"
        if loss.record:
            where = f"{where}, record {loss.record}"
        number = "" if loss.number is None else f" #{loss.number}"
        yield (
            f"{where}: {loss.channel}{number} {loss.kind} at offset {loss.offset}: "
            f"{loss.reason or _why_lost(loss)} (the first loss; 'mfdtool info' counts all)"
        )
    for channel in reading.unfinished:
        length = channel.stream.length
        yield f"{name or 'input'}: {channel.name} stops at offset {length}, before its end"


def _why_lost(loss: Frame) -> str:
    """Say what a loss is that has no reason of its own."""
    rest = loss.value.rest() if isinstance(loss.value, DeviceState) else None
    if loss.missing or rest is None:
        return "bytes are missing"
    return f"its bytes {rest.start}-{rest.stop - 1} are undecoded, {rest.reason}"


def why_nothing(reading: Reading) -> str:
    """Say why nothing was decoded; empty if something was."""
    migrations = reading.decoder.migrations
    kinds = {channel.kind for migration in migrations for channel in migration.channels}
    if kinds == {ChannelKind.TLS}:
        servers = dict.fromkeys(str(migration.server) for migration in migrations)
        listed = ", ".join([*servers][:_PORTS_LISTED])
        return f"only TLS connections, to {listed}: encrypted, cannot be decoded"
    if migrations:
        return ""
    connections = _connections(reading.decoder.others)
    if not connections:
        records = reading.counters.records if reading.counters is not None else 0
        return f"no migration found: no TCP payload in {records} records"
    if all(stream.gap_bytes == stream.length for stream in reading.decoder.others):
        return (
            f"no migration found: {len(connections)} TCP connections, but none of their payload"
            f" was captured (snaplen {reading.info.snaplen})"
        )
    ports = sorted({server for server in connections if server is not None})
    listed = ", ".join(map(str, ports[:_PORTS_LISTED])) + (", ..." * (len(ports) > _PORTS_LISTED))
    return (
        f"no migration found: {len(connections)} TCP connections carry something else"
        f" (server ports {listed})"
    )


def tell_unmatched(
    reading: Reading, selection: Selection, met: DevicesMet | None, *, to_end: bool = True
) -> None:
    """Say on standard error which migration, channels or devices were asked for but are not there.

    Without ``to_end`` the input may not have been read to its end: then what was not met may
    still come, unless nothing at all was.
    """
    migrations = reading.decoder.migrations
    if selection.migration is not None and selection.migration >= len(migrations):
        last = len(migrations) - 1
        click.echo(f"mfdtool: no migration {selection.migration}; the last is {last}", err=True)
    channels = sorted({channel.name for each in migrations for channel in each.channels})
    absent = sorted(selection.channels.difference(channels))
    if to_end or len(absent) == len(selection.channels):
        for name in absent:
            click.echo(f"mfdtool: no channel {name}; there are {', '.join(channels)}", err=True)
    if met is None:
        return
    absent = met.unmatched(selection.devices)
    if to_end or len(absent) == len(selection.devices):
        listed = ", ".join(met.devices[:_DEVICES_LISTED]) or "none"
        for name in absent:
            click.echo(f"mfdtool: no device {name}; there are {listed}", err=True)


def uses_colour() -> bool:
    """Whether standard output is a terminal that may be written to in colour."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def write_all(pieces: Iterable[str], out: TextIO | None = None) -> None:
    """Write text to standard output (or ``out``) in large blocks, at once on a terminal."""
    out = sys.stdout if out is None else out
    limit = 0 if out.isatty() else _BLOCK
    block: list[str] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size > limit:
            _write(out, block)
            size = 0
    _write(out, block)


def _write(out: TextIO, block: list[str]) -> None:
    try:
        out.write("".join(block))
        out.flush()
    except OSError as error:
        error.filename = "standard output"
        raise
    block.clear()


class Progress:
    """A line on a terminal that says how far reading has come; it goes when work is done."""

    def __init__(self, terminal: TextIO, *, enabled: bool) -> None:
        self._terminal = terminal
        self._enabled = enabled
        self._start = time.monotonic()
        self._next = self._start + PATIENCE
        self._shown = False

    def tick(self, reading: Reading) -> None:
        """Show how much was read, unless that was just done."""
        records = reading.counters.records if reading.counters is not None else 0
        self.show(f"mfdtool: {records:,} records, {time.monotonic() - self._start:.0f} s")

    def show(self, text: str) -> None:
        """Show a line instead of the last one, unless that was just shown."""
        now = time.monotonic()
        if not self._enabled or now < self._next:
            return
        self._next = now + _INTERVAL
        self._shown = True
        self._write(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write("")
        self._shown = False

    def _write(self, text: str) -> None:
        self._terminal.write(f"\r{text}\x1b[K")
        self._terminal.flush()


class _WatchedReading(Reading):
    """A reading that shows progress."""

    def __init__(self, source: Input, *, keep_extents: bool, progress: Progress) -> None:
        super().__init__(source, keep_extents=keep_extents)
        self._progress = progress

    def batches(self) -> Iterator[list[Frame]]:
        """Give frames in lists, and show progress between them."""
        for batch in super().batches():
            self._progress.tick(self)
            yield batch


def _connections(streams: list[Stream]) -> list[int | None]:
    """Give the server's port of each connection, None if it is not known."""
    ports: dict[int, int | None] = {}
    for stream in streams:
        key = stream.key
        if key is not None:
            server = key.destination if stream.is_towards_server else key.source
            ports.setdefault(stream.number // 2, server.port)
    return list(ports.values())
