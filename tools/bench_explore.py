# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures ``explore``: orders and states per second, memory per state, scaling over cores.

    python tools/bench_explore.py [--jobs N]

Each figure is from a process of its own. Seconds depend on the machine, and on what else it does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mfdtool.explore.search import Search
from mfdtool.explore.space import Space
from mfdtool.loader.blob import blob_of
from mfdtool.loader.destination import Destination, DeviceSpec
from mfdtool.loader.events import (
    Command,
    Configuration,
    Connect,
    Deliver,
    DevicePacket,
    Eof,
    FileHeader,
    Footer,
    Handshake,
    MainItem,
    RamPacket,
    RamRecord,
    SectionStart,
    VmDescription,
)
from mfdtool.loader.recording import Entry, Recording
from mfdtool.schedule.trace import Trace, trace_of
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.constants import MultiFDFlag, RamFlag

CAPTURES: Final = Path(__file__).parents[1] / "captures"
CLEAN: Final = CAPTURES / "mtty-4ch-clean.pcap.gz"
WIDE: Final = CAPTURES / "mtty-8ch-ipv6.pcap.gz"
RUNS: Final[dict[str, list[str]]] = {
    "6 packets, 4 channels": [str(CLEAN), "--jobs", "1"],
    "10 packets, 8 channels": [str(WIDE), "--jobs", "1"],
    "the same, orders at random": [str(WIDE), "--jobs", "1", "--random", "200"],
    "6 packets, fields with other values": [
        str(CLEAN),
        "--jobs",
        "1",
        "--faults",
        "set=1",
    ],
}
DEVICE: Final = "0000:00:05.0/vfio"
STATES: Final = 40_000
_STORED: Final = "--stored"


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(_STORED, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stored is not None:
        print(json.dumps(stored(arguments.stored)))
        return
    for name, words in RUNS.items():
        seconds, found = explore(words)
        print(
            f"{name}: {seconds:.2f} s, {found['explored']} orders"
            f" ({found['explored'] / seconds:.0f}/s), {found['states']} states"
            f" ({found['states'] / seconds:.0f}/s), {found['steps'] / seconds:.0f} steps/s"
        )
    memory()
    scaling(arguments.jobs)


def explore(words: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """Run the command; give its seconds and what it found."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "mfdtool", "explore", *words, "--json"]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    seconds = time.perf_counter() - started
    if process.returncode not in {0, 1}:
        raise SystemExit(f"{command} exited with {process.returncode}")
    return seconds, json.loads(process.stdout)


def stored(limit: int) -> dict[str, float]:
    """Search until there are so many states; give the processor's time and the memory's peak."""
    trace, destination = wide()
    started = time.process_time()
    result = Search(Space(trace, destination), limit=limit).run()
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"states": result.states, "seconds": seconds, "peak": peak}


def wide(lanes: int = 8) -> tuple[Trace, Destination]:
    """Make a migration of two packets on each of many channels.

    There is data behind the config, so that it matters where the load thread is.
    """
    main: list[MainItem] = [FileHeader(), Configuration("pc"), SectionStart(0, "ram", 0, 4)]
    main += [RamRecord(RamFlag.MULTIFD_FLUSH), RamRecord(RamFlag.EOS), Footer(0)]
    main += [Command(CommandNumber.SWITCHOVER_START), Eof(), VmDescription()]
    entries = [Entry(Connect(FileHeader()), "main", 0)]
    for number, item in enumerate(main, 1):
        entries.append(Entry(Deliver(None, item), "main", number))
    for lane in range(lanes):
        name = f"multifd-{lane}"
        entries.append(Entry(Connect(Handshake(lane)), name, 0))
        sync = RamPacket(flags=MultiFDFlag.SYNC)
        entries.append(Entry(Deliver(lane, sync), name, 1))
        for number, idx in enumerate((lane, lanes + lane), 2):
            packet = DevicePacket(
                idstr=DEVICE,
                next_packet_size=28,
                idx=idx,
                flags=int(idx == 2 * lanes - 2),
                data=blob_of(b"%16d" % idx),
            )
            entries.append(Entry(Deliver(lane, packet), name, number))
    destination = Destination(devices=(DeviceSpec(idstr=DEVICE),), channels=lanes)
    return trace_of(Recording(entries=tuple(entries))), destination


def memory() -> None:
    """Tell what a state takes, from the peaks of a small and a large search."""
    small, large = (_stored(limit) for limit in (1, STATES))
    states = large["states"] - small["states"]
    each = (large["peak"] - small["peak"]) / states
    print(
        f"16 packets, 8 channels, load threads anywhere: {large['states']:.0f} states,"
        f" {large['states'] / large['seconds']:.0f}/s, {each:.0f} bytes each"
        f" ({each / 1.048576:.0f} MiB per million)"
    )


def _stored(limit: int) -> dict[str, float]:
    command = [sys.executable, __file__, _STORED, str(limit)]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def scaling(jobs: int) -> None:
    """Tell how much faster more processes are."""
    seconds = {}
    for count in sorted({1, jobs}):
        seconds[count], _ = explore([str(CLEAN), "--faults", "set=1", "--jobs", str(count)])
        faster = seconds[1] / seconds[count]
        print(f"faults from a budget, {count} processes: {seconds[count]:.1f} s ({faster:.2f}x)")


if __name__ == "__main__":
    main()
