# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures ``mfdtool record proxy`` against a direct connection and socat, in one run.

    python -m tools.bench_proxy [--size 8] [--runs 3] [--directory /dev/shm]

Eight streams of 1 MiB device state packets over loopback, from one process to another, which reads
into memory as a destination does. Ways are measured in turn; what is compared is the median of the
ratios within a turn. A last, smaller round with random piece sizes compares digests of both ends.
tcpdump records the direct connection, to show what it loses.

A virtual machine gives the memory of deleted files back to its host, and whoever needs it next
waits for the host. So before each way as much memory as its file takes is used once, and freed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mfdtool.wire.multifd import MultiFDInit
from mfdtool.wire.vfio import DeviceStateHeader

STREAMS: Final = 8
PACKET: Final = 1 << 20
IDSTR: Final = b"0000:00:05.0/vfio".ljust(256, b"\0")
HOST: Final = "127.0.0.1"
STARTED: Final = 0.3
"""Seconds that a peer without a message gets to start."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    """One transfer: bytes per second, and the CPU seconds of what was between the ends."""

    rate: float
    cpu: float
    note: str = ""


def packet() -> bytes:
    """Give a whole device state packet."""
    head = DeviceStateHeader(idstr=IDSTR, next_packet_size=PACKET - 276, idx=0).build()
    return head + bytes(PACKET - len(head))


def send(address: Address, number: int, size: int, *, seed: int | None = None) -> str:
    """Send one stream; with a seed in pieces of random size. Give its digest if there is one."""
    digest = hashlib.sha256()
    data = memoryview(packet())
    with socket.create_connection(address) as connection:
        start = MultiFDInit(id=number).build()
        connection.sendall(start)
        digest.update(start)
        rng = random.Random(seed)
        for _ in range(size // PACKET):
            if seed is None:
                connection.sendall(data)
                continue
            at = 0
            digest.update(data)
            while at < len(data):
                piece = rng.choice((1, 12, 276, 1448, 65536, 300_000))
                connection.sendall(data[at : at + piece])
                at += piece
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return digest.hexdigest()


def receive(connection: socket.socket, *, hashes: bool) -> tuple[int, str]:
    """Read a stream to its end; give its length, and its digest if that is wanted."""
    buffer = memoryview(bytearray(PACKET))
    digest = hashlib.sha256()
    total = 0
    with connection:
        while count := connection.recv_into(buffer):
            total += count
            if hashes:
                digest.update(buffer[:count])
    return total, digest.hexdigest()


def transfer(
    listener: socket.socket, address: Address, size: int, *, seed: int | None = None
) -> float:
    """Send all streams from a process of its own; give the seconds. SystemExit if bytes differ."""
    reader, writer = os.pipe()
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        with ThreadPoolExecutor(STREAMS) as pool:
            numbers = range(STREAMS)
            sent = pool.map(lambda n: send(address, n, size // STREAMS, seed=seed), numbers)
            os.write(writer, "\n".join(sent).encode())
        os._exit(0)
    connections = [listener.accept()[0] for _ in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        got = list(pool.map(lambda each: receive(each, hashes=seed is not None), connections))
    seconds = time.perf_counter() - begun
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        sent_digests = sorted(pipe.read().split())
    expected = STREAMS * (size // STREAMS // PACKET * PACKET + 64)
    if sum(total for total, _ in got) != expected:
        sys.exit(f"{sum(total for total, _ in got)} bytes arrived, {expected} were sent")
    if seed is not None and sorted(digest for _, digest in got) != sent_digests:
        sys.exit("the bytes that arrived are not those that were sent")
    return seconds


class Between:
    """A program between the two ends; its CPU time is known when it has ended."""

    def __init__(self, destination: Address) -> None:
        self.address = destination
        self.process: subprocess.Popen[str] | None = None

    def finish(self) -> tuple[float, str]:
        """Wait for the end; give CPU seconds, and what is to be said."""
        if self.process is None:
            return 0.0, ""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        text = self.process.stderr.read() if self.process.stderr is not None else ""
        return usage.ru_utime + usage.ru_stime, self.note(text)

    def note(self, text: str) -> str:
        """Say what matters of the program's messages."""
        del text
        return ""


class Socat(Between):
    """socat with its default buffers; a process for each connection."""

    def __init__(self, destination: Address) -> None:
        super().__init__(destination)
        with socket.create_server((HOST, 0)) as probe:
            self.address = probe.getsockname()
        port = self.address[1]
        listen = f"TCP-LISTEN:{port},bind={HOST},fork,reuseaddr,backlog=64"
        self.process = subprocess.Popen(
            ["socat", listen, f"TCP:{HOST}:{destination[1]}"], text=True
        )
        time.sleep(STARTED)

    def finish(self) -> tuple[float, str]:
        """End it: it would listen for ever."""
        assert self.process is not None
        time.sleep(STARTED)
        self.process.send_signal(signal.SIGTERM)
        return super().finish()


class Proxy(Between):
    """``mfdtool record proxy`` with some options."""

    def __init__(self, destination: Address, path: Path, options: Sequence[str]) -> None:
        super().__init__(destination)
        self._path = path
        command = [sys.executable, "-m", "mfdtool", "record", "proxy", "--listen", f"tcp:{HOST}:0"]
        command += ["--to", f"tcp:{HOST}:{destination[1]}", "-w", str(path), "--stay", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.address = (HOST, int(line.rpartition(":")[2]))
        self._cpu = _cpu_seconds(self.process.pid)

    def finish(self) -> tuple[float, str]:
        """End it, as a user would; the time to sum up the file is not counted."""
        assert self.process is not None
        # All that it did for the transfer: not its start, and not the reading of its file.
        cpu = _cpu_seconds(self.process.pid) - self._cpu
        self.process.send_signal(signal.SIGINT)
        _, note = super().finish()
        size = self._path.stat().st_size
        self._path.unlink()
        return cpu, f"{size / 1e9:.2f} GB recorded{note}"

    def note(self, text: str) -> str:
        """Say what was not recorded."""
        return "".join(f"; {line[9:]}" for line in text.splitlines() if "not recorded" in line)


class Tcpdump(Between):
    """tcpdump beside a direct connection."""

    def __init__(self, destination: Address, path: Path) -> None:
        super().__init__(destination)
        self._path = path
        command = ["tcpdump", "-Z", "root", "-i", "lo", "-s", "0", "-B", "65536", "-w", str(path)]
        self.process = subprocess.Popen(
            [*command, "port", str(destination[1])], stderr=subprocess.PIPE, text=True
        )
        time.sleep(1)

    def finish(self) -> tuple[float, str]:
        """End it, as a user would."""
        assert self.process is not None
        time.sleep(1)
        self.process.send_signal(signal.SIGINT)
        cpu, note = super().finish()
        size = self._path.stat().st_size
        self._path.unlink()
        return cpu, f"{size / 1e9:.2f} GB recorded{note}"

    def note(self, text: str) -> str:
        """Say what it dropped."""
        found = re.search(r"(\d+) packets dropped by kernel", text)
        return f"; {found[1]} packets dropped" if found else ""


def _cpu_seconds(process: int) -> float:
    """Give the CPU time that a running process has used (proc(5), stat)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(way: str, size: int, directory: Path, *, seed: int | None = None) -> Result:
    """Transfer once in one of the ways."""
    path = directory / "bench.pcapng"
    with socket.create_server((HOST, 0), backlog=64) as listener:
        destination = listener.getsockname()
        between = Between(destination)
        if way == "socat":
            between = Socat(destination)
        elif way == "tcpdump":
            between = Tcpdump(destination, path)
        elif way != "direct":
            between = Proxy(destination, path, WAYS[way])
        seconds = transfer(listener, between.address, size, seed=seed)
        cpu, note = between.finish()
    return Result(size / seconds, cpu, note)


def warm(size: int, directory: Path) -> None:
    """Use memory for a file of that size, and free it."""
    path, data = directory / "warm", bytes(PACKET)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // PACKET):
            file.write(data)
    path.unlink()


WAYS: Final = {
    "full": (),
    "full, preallocated": ("--preallocate", "8704M"),
    "redact": ("--redact",),
    "redact, digest": ("--redact", "--digest"),
}
"""The proxy's options."""


def main() -> None:
    """Measure all ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8, help="gigabytes of a transfer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="of the files")
    options = parser.parse_args()
    ways = ["direct", "full", "full, preallocated", "redact", "redact, digest"]
    ways[1:1] = [name for name in ("socat",) if shutil.which(name)]
    ways += [name for name in ("tcpdump",) if shutil.which(name) and os.geteuid() == 0]
    size = options.size << 30
    results: dict[str, list[Result]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        for _ in range(options.runs):
            for way in ways:
                warm(size + size // 16, Path(name))
                results[way].append(measure(way, size, Path(name)))
        for way in ("full", "redact"):
            measure(way, size // 64, Path(name), seed=1)
    print(f"{STREAMS} streams, {options.size} GiB, medians of {options.runs} runs")
    print(f"{'':20}{'GB/s':>8}{'direct':>9}{'socat':>9}{'CPU-s/GB':>10}")
    for way in ways:
        found = results[way]
        line = f"{way:20}{statistics.median(each.rate for each in found) / 1e9:8.2f}"
        for peer in ("direct", "socat"):
            pairs = zip(found, results.get(peer, ()), strict=False)
            ratios = [one.rate / other.rate for one, other in pairs]
            line += f"{statistics.median(ratios):9.0%}" if ratios else f"{'-':>9}"
        cpu = statistics.median(each.cpu for each in found) / (size / 1e9)
        print(f"{line}{cpu:10.2f}  {found[-1].note}")
    print("digests of both ends agree, pieces of 1 to 300,000 bytes: full, redact")


if __name__ == "__main__":
    main()
