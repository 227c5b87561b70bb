# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool record proxy``."""

from __future__ import annotations

import json
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mfdtool.cli.console import Progress as Line
from mfdtool.cli.console import write_all
from mfdtool.cli.make_options import SIZE_TYPE, Parsed
from mfdtool.cli.status import ExitStatus
from mfdtool.errors import CaptureError
from mfdtool.live.addresses import TcpAddress, parse_address
from mfdtool.live.proxy.file import STEP
from mfdtool.live.proxy.recording import DEFAULT_BUFFER, OnFull, RecordingOptions
from mfdtool.live.proxy.server import Progress, ProxyOptions
from mfdtool.report.info import overview_text
from mfdtool.report.info_json import overview_json
from mfdtool.report.units import count_text, rate_text, size_text
from mfdtool.stream.channel import ChannelKind
from mfdtool.workflows.record import Recorded, overview_of, record_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.live.addresses import Address

_SMALLEST_FILE: Final = 1 << 20
_ADDRESS: Final = Parsed("uri", parse_address)


@click.command("proxy")
@click.option(
    "--listen",
    required=True,
    metavar="URI",
    type=_ADDRESS,
    help="Where the source connects to: tcp:HOST:PORT (port 0: any that is free), unix:PATH.",
)
@click.option(
    "--to",
    required=True,
    metavar="URI",
    type=_ADDRESS,
    help="Where the destination listens: tcp:HOST:PORT, unix:PATH.",
)
@click.option(
    "-w",
    "--write",
    "path",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The recording, a pcapng file.",
)
@click.option("--redact", is_flag=True, help="Record no guest RAM and device state, but lengths.")
@click.option("--digest", is_flag=True, help="With --redact: SHA-256 of what is left out.")
@click.option(
    "--on-full",
    type=click.Choice([each.value for each in OnFull]),
    default=OnFull.DROP.value,
    show_default=True,
    help="When the file is full or slow: go on without recording, or hold the migration.",
)
@click.option("--stay", is_flag=True, help="Go on after the first migration, until interrupted.")
@click.option(
    "--only-qemu", is_flag=True, help="Refuse connections that do not begin as QEMU's do."
)
@click.option(
    "--limit-rate",
    metavar="BYTES",
    type=SIZE_TYPE,
    default=0,
    help="Forward at most so many bytes per second.",
)
@click.option(
    "--max-size",
    metavar="BYTES",
    type=SIZE_TYPE,
    default=0,
    help="Begin another file (run.1.pcapng, run.2.pcapng, ...) before one is larger.",
)
@click.option(
    "--max-files",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --max-size: keep only the last N files.",
)
@click.option(
    "--preallocate",
    metavar="BYTES",
    type=SIZE_TYPE,
    default=STEP,
    help="Disk space to reserve before the migration; 64M by default.",
)
@click.option(
    "--buffer",
    "buffer_size",
    metavar="BYTES",
    type=SIZE_TYPE,
    default=DEFAULT_BUFFER,
    help="Memory for what waits to be written; 32M by default.",
)
@click.option("--comment", "comments", metavar="TEXT", multiple=True, help="Say this in the file.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as one JSON object.")
def command(
    *,
    listen: Address,
    to: Address,
    path: Path,
    redact: bool,
    digest: bool,
    on_full: str,
    stay: bool,
    only_qemu: bool,
    limit_rate: int,
    max_size: int,
    max_files: int | None,
    preallocate: int,
    buffer_size: int,
    comments: tuple[str, ...],
    as_json: bool,
) -> ExitStatus:
    """Forward a migration to its destination and record it.

    \b
    mfdtool record proxy --listen tcp:0.0.0.0:4444 --to tcp:dst:4444 -w run.pcapng

    Then give the source the proxy's address: "migrate tcp:PROXY:4444". All of its connections are
    forwarded as they are, and recorded with nanosecond stamps. The recording ends with the
    migration (see --stay), or by an interrupt: the first one lets connections go on to their end.
    """
    if digest and not redact:
        raise click.UsageError("--digest goes with --redact: otherwise the bytes are all there.")
    if listen == to and not (isinstance(listen, TcpAddress) and not listen.port):
        raise click.UsageError(f"{to} is where it listens itself: --to is the destination.")
    if max_files and not max_size:
        raise click.UsageError("--max-files goes with --max-size.")
    if max_size and max_size < _SMALLEST_FILE:
        raise click.UsageError("--max-size is at least 1M.")
    proxy_options = ProxyOptions(
        listen=listen,
        to=to,
        stays=stay,
        redact=redact,
        digest=digest,
        limit_rate=limit_rate,
        only_qemu=only_qemu,
    )
    options = RecordingOptions(
        on_full=OnFull(on_full),
        max_size=max_size,
        max_files=max_files or 0,
        preallocate=preallocate,
        buffer=buffer_size,
        comments=comments,
    )
    line = _LiveLine()
    try:
        recorded = record_proxy(path, proxy_options, options, report=line.report, show=line.show)
    finally:
        line.clear()
    return _finish(recorded, as_json=as_json)


class _LiveLine:
    """The line of progress, on a terminal, and messages above it.

    That nobody reads them any more is no reason to end a migration.
    """

    def __init__(self) -> None:
        self._line = Line(sys.stderr, enabled=sys.stderr.isatty())
        self._moved = 0
        self._time = time.monotonic()

    def report(self, text: str) -> None:
        """Show a message."""
        with suppress(OSError):
            self.clear()
            click.echo(f"mfdtool: {text}", err=True)

    def show(self, progress: Progress) -> None:
        """Show how far everything is."""
        now = time.monotonic()
        rate = (progress.moved - self._moved) / max(now - self._time, 1e-3)
        self._moved, self._time = progress.moved, now
        with suppress(OSError):
            self._line.show(f"mfdtool: {progress_text(progress, rate)}")

    def clear(self) -> None:
        """Take the line away."""
        with suppress(OSError):
            self._line.clear()


def progress_text(progress: Progress, rate: float) -> str:
    """Say in one line how far everything is."""
    names = [
        f"{count} {kind.value}" if count > 1 or kind is ChannelKind.MULTIFD else kind.value
        for kind, count in sorted(progress.channels.items())
    ]
    parts = [", ".join(names) if names else "waiting" if not progress.open else "connected"]
    parts += [size_text(progress.moved), rate_text(rate)]
    if progress.device_packets:
        parts.append(count_text(progress.device_packets, "device packet"))
    if progress.phase is not None:
        parts.append(progress.phase.value)
    return " · ".join(parts)


def _finish(recorded: Recorded, *, as_json: bool) -> ExitStatus:
    """Show what was recorded; give the exit status."""
    summaries = []
    for path in recorded.paths:
        try:
            summaries.append(overview_of(path))
        except CaptureError as error:
            click.echo(f"mfdtool: {error}", err=True)
    if as_json:
        result = {
            "format": 1,
            "recording": _described(recorded),
            "files": [overview_json(overview) for overview in summaries],
        }
        write_all([json.dumps(result, indent=2), "\n"])
    else:
        write_all(f"{line}\n" for overview in summaries for line in (*overview_text(overview), ""))
    for message in _messages(recorded):
        click.echo(f"mfdtool: {message}", err=True)
    if recorded.unreachable and not recorded.connections:
        return ExitStatus.LIVE
    return ExitStatus.INCOMPLETE if recorded.losses else ExitStatus.OK


def _described(recorded: Recorded) -> dict[str, Any]:
    """Give the recorder's own account as a JSON object."""
    losses = recorded.losses
    return {
        "files": [str(path) for path in recorded.paths],
        "complete": not losses,
        "lost": {
            "frames": losses.frames,
            "cut_frames": losses.cut,
            "bytes": losses.bytes,
            "reason": losses.reason or None,
        },
        "connections": recorded.connections,
        "strays": recorded.strays,
        "refused": recorded.refused,
        "unreachable": recorded.unreachable,
        "bytes": recorded.moved,
    }


def _messages(recorded: Recorded) -> Iterator[str]:
    """Say what a user should know that no summary of a file tells."""
    if recorded.strays:
        yield f"{count_text(recorded.strays, 'connection')} ended without a byte: not forwarded"
    if recorded.refused:
        yield f"{count_text(recorded.refused, 'connection')} refused: not QEMU's"
    if recorded.losses:
        yield str(recorded.losses)
    files = ", ".join(map(str, recorded.paths))
    yield f"{count_text(recorded.connections, 'connection')} recorded in {files}"
    if len(recorded.paths) > 1:
        # Each begins in the middle of the streams, and none tells how the migration ended.
        words = " ".join(shlex.quote(str(path)) for path in recorded.paths)
        yield f"these are one recording; to read it: cat {words} | mfdtool info -"
