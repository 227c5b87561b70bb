# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures how long a large failing recording takes to be reduced.

The recording is made: 10,000 device packets on 8 channels, of which one arrives twice.
"""

from __future__ import annotations

import time
from typing import Final

from mfdtool.explore.bisect import Candidate, Progress, bisect
from mfdtool.explore.signature import Signature, judge
from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.fixtures.segments import Network, transmit
from mfdtool.loader.assume import assume
from mfdtool.loader.options import DestinationOptions
from mfdtool.packets import pcapng
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import parse_fault
from mfdtool.schedule.observation import observations_of
from mfdtool.schedule.schedule import Schedule
from mfdtool.stream.connections import ScalarStreams
from mfdtool.stream.migration import Decoder

PACKETS: Final = 10_000
CHANNELS: Final = 8


def main() -> None:
    """Make the recording, reduce the failure, and print what it took."""
    device = Device(buffers=tuple(bytes(64) for _ in range(PACKETS - 1)))
    migration = assemble(Plan(devices=(device,), channels=CHANNELS))
    capture = pcapng_bytes(transmit(migration, Network(segment_size=32768)))
    decoder = Decoder(keep_extents=True)
    frames = []
    for window in ScalarStreams(memoryview(capture), pcapng.read(memoryview(capture))).windows():
        frames += decoder.feed(window)
    frames += decoder.finish()
    (found,) = observations_of(frames, decoder.migrations)
    destination, _ = assume(found.recording, DestinationOptions())
    idstr = destination.devices[0].idstr
    for text in (f"duplicate:dev={idstr},idx=7000", f"drop:dev={idstr},idx=7000"):
        fault = parse_fault(text)
        bad = apply(found, [fault])
        schedule = Schedule(bad.trace.digest)
        wanted = judge(bad.trace, destination, schedule).signature
        last = Progress(0, 0, 0)

        def note(progress: Progress) -> None:
            nonlocal last
            last = progress

        def fails(some: Candidate, wanted: Signature = wanted) -> bool:
            return judge(some.trace, destination, some.schedule).signature == wanted

        start = time.perf_counter()
        cause = bisect(
            found,
            [fault],
            schedule,
            fails,
            progress=note,
        )
        spent = time.perf_counter() - start
        assert cause is not None
        items = len(cause.candidate.trace.observed)
        print(f"{text}: {wanted}: {last.tests} tries, {items} items left, {spent:.1f} s")


if __name__ == "__main__":
    main()
