# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures mfdtool against tcpdump, tshark, dpkt and scapy on the same captures, in one run.

    python tools/bench.py [--quick] [--sizes 1G,4G,16G] [--directory DIR]

Every figure is a whole process, the page cache warm, peers and mfdtool in turn; what is compared
is the median of the ratios of neighbouring runs. Seconds depend on the machine, ratios much less.
Peers that are not installed are left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PYTHON: Final = sys.executable
MFDTOOL: Final = str(Path(PYTHON).parent / "mfdtool")
GENERATOR: Final = Path(__file__).parent / "bench_captures.py"
CSV_FIELDS: Final = "channel,idstr,idx,length,packet_flags,time_first,time_last"
DPKT: Final = """
import dpkt, sys
for time, frame in dpkt.pcap.Reader(open(sys.argv[1], "rb")):
    dpkt.ethernet.Ethernet(frame)
"""
SCAPY: Final = """
import sys
from scapy.all import PcapReader
for packet in PcapReader(sys.argv[1]):
    pass
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process: seconds and peak resident memory in bytes."""

    seconds: float
    peak: int


def run(command: Sequence[str]) -> Run:
    """Run a command to its end, its output thrown away; SystemExit if it fails."""
    started = time.perf_counter()
    with Path(os.devnull).open("w") as null:
        process = subprocess.Popen(command, stdout=null, stderr=subprocess.PIPE)
        assert process.stderr is not None
        message = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    # 4: decoded, and said that segments are lost, as they are in some of these captures.
    if os.waitstatus_to_exitcode(status) not in (0, 4):
        sys.exit(f"{' '.join(command)}: {message.decode(errors='replace')}")
    return Run(seconds, usage.ru_maxrss * 1024)


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 22):
            pass


def compare(path: Path, ours: Sequence[str], peer: Sequence[str], *, runs: int) -> str:
    """Run the two in turn; give the line of figures."""
    pairs = []
    for _ in range(runs):
        warm(path)
        pairs.append((run(ours), run(peer)))
    mine = statistics.median(one.seconds for one, _ in pairs)
    theirs = statistics.median(other.seconds for _, other in pairs)
    ratio = statistics.median(one.seconds / other.seconds for one, other in pairs)
    peak = max(one.peak for one, _ in pairs)
    return f"{mine:8.2f} s {theirs:8.2f} s {ratio:7.2f}x {peak / 1e6:7.0f} MB"


def make(directory: Path, kind: str, size: str, *, suffix: str = "pcap") -> Path:
    """Generate a capture, unless it is there."""
    path = directory / f"{kind}-{size}.{suffix}"
    if not path.exists():
        run([PYTHON, str(GENERATOR), kind, "--size", size, "--output", str(path)])
    return path


def stats(path: Path) -> list[str]:
    """Give the command line of ``stats --by device``."""
    return [MFDTOOL, "stats", "--by", "device", str(path)]


def csv(path: Path) -> list[str]:
    """Give the command line of ``decode -T csv``."""
    return [MFDTOOL, "decode", "-T", "csv", "-e", CSV_FIELDS, str(path)]


def versions() -> str:
    """Name what is measured."""
    names = ["mfdtool", "numpy", "construct", "scapy", "dpkt"]
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    for tool in ("tcpdump", "tshark"):
        if shutil.which(tool) is None:
            found.append(f"no {tool}")
            continue
        shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
        found.append((shown.stdout or shown.stderr).splitlines()[0])
    return f"Python {sys.version.split()[0]}, " + ", ".join(found)


def against_tcpdump(directory: Path, *, size: str, double: str, runs: int) -> None:
    """The bulk path against ``tcpdump -r FILE -w /dev/null``."""
    title = "whole file against tcpdump -w /dev/null"
    print(f"\n{title:44}{'ours':>10} {'tcpdump':>10}   ratio    peak")
    for kind, suffix, bytes_ in (
        ("nic", "pcap", size),
        ("nic", "pcapng", size),
        ("ooo", "pcap", size),
        ("lo", "pcap", double),
    ):
        path = make(directory, kind, bytes_, suffix=suffix)
        peer = ["tcpdump", "-r", str(path), "-w", os.devnull]
        for name, command in (("stats", stats(path)), ("decode -T csv", csv(path))):
            print(f"{name:14} {path.name:28}", compare(path, command, peer, runs=runs))
        path.unlink()


def against_readers(directory: Path, *, size: str, runs: int) -> None:
    """The same against other readers, which decode less."""
    path = make(directory, "nic", size)
    print(f"\n{'stats --by device, ' + path.name:44}{'ours':>10} {'peer':>10}   ratio    peak")
    options = ["-q", "-z", "io,stat,0", "-o", "tcp.desegment_tcp_streams:FALSE"]
    peers = {
        "tshark " + " ".join(options): ["tshark", "-r", str(path), *options],
        "dpkt ethernet objects": [PYTHON, "-c", DPKT, str(path)],
        "scapy PcapReader": [PYTHON, "-c", SCAPY, str(path)],
    }
    for name, peer in peers.items():
        if shutil.which(peer[0]) is None:
            print(f"{name[:43]:44}not installed")
            continue
        print(f"{name[:43]:44}{compare(path, stats(path), peer, runs=runs)}")
    path.unlink()


def small_packets(directory: Path, *, size: str, runs: int) -> None:
    """JSON Lines of small packets, in packets per second."""
    path = make(directory, "small", size)
    count = int(
        subprocess.run(
            [MFDTOOL, "decode", "-T", "csv", "-e", "number", str(path)],
            capture_output=True,
            check=True,
        ).stdout.count(b"\n")
    )
    warm(path)
    timed = [run([MFDTOOL, "decode", "-T", "jsonl", str(path)]) for _ in range(runs)]
    seconds = statistics.median(one.seconds for one in timed)
    peak = max(one.peak for one in timed)
    print(
        f"\ndecode -T jsonl {path.name}: {count:,} frames, {count / seconds:,.0f} frames/s, ",
        end="",
    )
    print(f"peak {peak / 1e6:.0f} MB")
    path.unlink()


def growth(directory: Path, sizes: Sequence[str]) -> None:
    """Time and memory against the size of the file."""
    print(f"\n{'stats --by device':44}{'seconds':>10} {'per GB':>10}      peak")
    for size in sizes:
        path = make(directory, "nic", size)
        warm(path)
        done = run(stats(path))
        gigabytes = path.stat().st_size / 1e9
        print(f"{path.name:44}{done.seconds:8.2f} s {done.seconds / gigabytes:8.2f} s", end="")
        print(f"{done.peak / 1e6:7.0f} MB")
        path.unlink()


def start_up(*, runs: int) -> None:
    """``mfdtool --help``."""
    seconds = statistics.median(run([MFDTOOL, "--help"]).seconds for _ in range(runs))
    print(f"\nmfdtool --help: {seconds:.3f} s")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tenth of the size, three runs")
    parser.add_argument(
        "--sizes", default="1G,4G", help="of the growth table, for example 1G,4G,16G"
    )
    parser.add_argument("--directory", type=Path, help="where captures go for a while")
    options = parser.parse_args()
    runs = 3 if options.quick else 7
    size, double = ("100M", "200M") if options.quick else ("1G", "2G")
    print(versions())
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        if shutil.which("tcpdump"):
            against_tcpdump(directory, size=size, double=double, runs=runs)
        against_readers(directory, size="100M", runs=3)
        small_packets(directory, size="50M" if options.quick else "200M", runs=3)
        if not options.quick:
            growth(directory, options.sizes.split(","))
    start_up(runs=runs)


if __name__ == "__main__":
    main()
