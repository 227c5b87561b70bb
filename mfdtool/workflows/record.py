# SPDX-License-Identifier: GPL-2.0-or-later
"""``record``: forward a migration and record it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final

from mfdtool.live.addresses import listen, remove_socket
from mfdtool.live.proxy.file import STEP
from mfdtool.live.proxy.recording import Recording, RecordingOptions
from mfdtool.live.proxy.server import Progress, Proxy, ProxyOptions
from mfdtool.live.proxy.writer import Losses
from mfdtool.report.overview import Overview
from mfdtool.workflows.info import summarise
from mfdtool.workflows.reading import Input, Reading

REDACTED: Final = "redacted: guest RAM and device state are not in this file, only their lengths"

_INTERVAL: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a recording.

    Attributes:
        paths: the files, oldest first.
        losses: what was forwarded and is not in them, though it should be.
        connections: how many were forwarded.
        strays: how many ended without a byte, and were not.
        refused: how many no QEMU would have made, and were not.
        unreachable: for how many there was no destination.
        moved: bytes forwarded, both directions.
    """

    paths: tuple[Path, ...]
    losses: Losses
    connections: int
    strays: int
    refused: int
    unreachable: int
    moved: int


def record_proxy(
    path: Path,
    proxy_options: ProxyOptions,
    options: RecordingOptions,
    *,
    report: Callable[[str], None],
    show: Callable[[Progress], None],
) -> Recorded:
    """Forward connections and record them, until the migration or the user ends it.

    The first SIGINT or SIGTERM stops accepting, a second one ends the connections, and the waiting
    for a file that is full; SIGHUP only does the first. ``report`` is told what a user should know,
    ``show`` how far everything is.

    Raises:
        OSError: the file cannot be created.
        SinkError: nothing can be listened on there.
    """
    if proxy_options.redact:
        options = replace(options, comments=(REDACTED, *options.comments))
    # First the address: what a file has is not given up for a proxy that cannot be.
    listener = listen(proxy_options.listen)
    try:
        recording = Recording(path, options)
    except OSError:
        listener.close()
        remove_socket(proxy_options.listen)
        raise
    try:
        proxy = Proxy(proxy_options, recording, report, listener=listener)
        space = _Space(recording, report)
        with _signals(proxy, recording, report):
            if recording.unreserved and options.preallocate != STEP:
                report(f"--preallocate: no space is reserved: {recording.unreserved}")
            report(f"listening on {proxy.address}")
            while not proxy.wait(_INTERVAL):
                space.look()
                show(proxy.progress())
            proxy.close()
            recording.end()
            while not recording.wait(_INTERVAL):
                space.look()
    finally:
        recording.close()
    totals = proxy.totals
    return Recorded(
        paths=tuple(recording.paths),
        losses=recording.losses,
        connections=totals.connections,
        strays=totals.strays,
        refused=totals.refused,
        unreachable=totals.unreachable,
        moved=totals.moved,
    )


def overview_of(path: Path) -> Overview:
    """Sum up a file that was recorded.

    Raises:
        CaptureError: it cannot be read.
    """
    with Reading(Input(capture=str(path))) as reading:
        return summarise(reading)


class _Space:
    """Tells when a recording begins to wait for a file that is full."""

    def __init__(self, recording: Recording, report: Callable[[str], None]) -> None:
        self._recording = recording
        self._report = report
        self._told = False

    def look(self) -> None:
        """Tell what has not been told."""
        reason = self._recording.waits_for
        if reason and not self._told:
            self._report(f"{self._recording.paths[-1]}: {reason}: waiting until it can be written")
        self._told = bool(reason)


@contextmanager
def _signals(proxy: Proxy, recording: Recording, report: Callable[[str], None]) -> Iterator[None]:
    """Let the first signal end the accepting, and the second one everything."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        del frame
        if seen:
            # A terminal that goes away says so more than once; the migration goes on all the same.
            if number != signal.SIGHUP:
                proxy.abort()
            return
        seen = True
        proxy.stop()
        if proxy.progress().open:
            report("no more connections are accepted; interrupt again to end those that there are")
        elif recording.waits_for:
            report("interrupt again to give up what is not written")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {each: signal.signal(each, handle) for each in numbers}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
