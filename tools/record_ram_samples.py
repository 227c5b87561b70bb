# SPDX-License-Identifier: GPL-2.0-or-later
"""Records the ``ram-*`` samples of captures/ anew, between two real QEMUs without any device.

The guest is a firmware of a few dozen bytes, made here, that fills sixteen pages and then changes
some of them for ever, each in a way of its own. Run it as root (tcpdump, userfaultfd) in a
network namespace of its own, whose MTU spares the recordings holes::

    unshare -n sh -c 'ip link set lo up mtu 65000; python -m tools.record_ram_samples DIRECTORY'

What it prints belongs into captures/MANIFEST.toml: the digest of the guest's sixteen pages, as
QEMU itself tells them after the migration. ``make lab-captures`` puts it there.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qemu.qmp import ConnectError, QMPClient

from mfdtool.packets.save_image import HEADER_SIZE, MAGIC, SaveFormat

PORT: Final = 4444
MACHINE: Final = "pc-i440fx-10.0"
MEMORY: Final = 4
"""MiB of guest RAM: nearly all of it zero pages."""

PAGES_START: Final = 0x20000
PAGES_SIZE: Final = 0x10000

_PATIENCE: Final = 60.0
_SETTLE: Final = 0.5
_SLOW: Final = 200_000
"""Bytes per second of a precopy that must not end by itself."""

_FIRMWARE_SIZE: Final = 0x10000
_RESET_VECTOR: Final = 0xFFF0
_JUMP: Final = bytes.fromhex("ea 0000 00f0")  # jmp far f000:0000
_CODE: Final = bytes.fromhex(
    "fa fc"  # cli; cld
    "b8 0020 8ed8 8ec0 31ff"  # ds = es = 2000h, that is PAGES_START; di = 0
    "89f8 b055 ab 85ff 75f7"  # fill 64 KiB: 55h and the high byte of each offset
    "ff06 0000"  # inc word [0000h]: a page's first bytes
    "ff06 1010"  # inc word [1010h]
    "ff06 fe2f"  # inc word [2ffeh]: a page's last bytes
    "8306 0038 03"  # add word [3800h], 3
    "bf 0040 b9 0008 a1 0000 f3ab"  # fill page 4000h with the word of [0000h]
    "c706 0050 0000"  # mov word [5000h], 0: the same again and again
    "ebdc"  # jmp to the first inc
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How one recording is made.

    Attributes:
        capabilities: those that are on.
        parameters: migration parameters of both sides.
        to_file: whether the stream goes to a file instead of a second QEMU.
        in_image: whether that file is a libvirt save image, and of which format.
        slow: whether the guest's changes must outrun the first pass.
        postcopy: whether to switch to postcopy.
    """

    capabilities: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    to_file: bool = False
    in_image: SaveFormat | None = None
    slow: bool = False
    postcopy: bool = False


SAMPLES: Final[Mapping[str, Sample]] = {
    "ram-return-path": Sample(capabilities=("return-path", "switchover-ack")),
    "ram-xbzrle": Sample(capabilities=("xbzrle",), slow=True),
    "ram-zlib": Sample(
        capabilities=("multifd",),
        parameters={"multifd-channels": 2, "multifd-compression": "zlib"},
    ),
    "ram-zstd": Sample(
        capabilities=("multifd",),
        parameters={"multifd-channels": 2, "multifd-compression": "zstd"},
    ),
    "ram-postcopy": Sample(capabilities=("postcopy-ram",), slow=True, postcopy=True),
    "ram-preempt": Sample(
        capabilities=("postcopy-ram", "postcopy-preempt"), slow=True, postcopy=True
    ),
    "ram-ignore-shared": Sample(capabilities=("x-ignore-shared",)),
    "ram-file": Sample(to_file=True),
    "ram-mapped": Sample(capabilities=("mapped-ram",), to_file=True),
    "ram-mapped-multifd": Sample(
        capabilities=("mapped-ram", "multifd"), parameters={"multifd-channels": 2}, to_file=True
    ),
    "ram-libvirt-raw": Sample(to_file=True, in_image=SaveFormat.RAW),
    "ram-libvirt-sparse": Sample(
        capabilities=("mapped-ram",), to_file=True, in_image=SaveFormat.SPARSE
    ),
    "ram-snapshot": Sample(capabilities=("background-snapshot",), to_file=True),
}
SAVEVM: Final = "ram-savevm"


class Guest:
    """One QEMU and its monitor."""

    def __init__(self, process: asyncio.subprocess.Process, monitor: QMPClient) -> None:
        self._process = process
        self._monitor = monitor

    async def do(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command."""
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        reply = self._monitor.execute(command, names)
        return await asyncio.wait_for(reply, _PATIENCE)

    async def prepare(self, sample: Sample) -> None:
        """Set what both sides must agree on."""
        states = [{"capability": name, "state": True} for name in sample.capabilities]
        await self.do("migrate-set-capabilities", capabilities=states)
        if sample.parameters:
            await self.do("migrate-set-parameters", **sample.parameters)

    async def wait_for(self, *statuses: str) -> None:
        """Wait until the migration has one of some states.

        Raises:
            RuntimeError: it failed.
            TimeoutError: it does not come.
        """
        async with asyncio.timeout(_PATIENCE):
            while True:
                info = await self.do("query-migrate")
                if info.get("status") in statuses:
                    return
                if info.get("status") == "failed":
                    raise RuntimeError(info.get("error-desc", "failed"))
                await asyncio.sleep(0.02)

    async def pages_digest(self, directory: Path) -> str:
        """Give the SHA-256 of the pages that the guest writes to; it must be stopped."""
        path = directory / "pages"
        await self.do("pmemsave", val=PAGES_START, size=PAGES_SIZE, filename=str(path))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    async def stop(self) -> None:
        """End the process."""
        await self._monitor.disconnect()
        self._process.terminate()
        await self._process.wait()


@asynccontextmanager
async def started(directory: Path, name: str, *options: str) -> AsyncIterator[Guest]:
    """Run a QEMU with the firmware made here."""
    firmware = directory / "firmware"
    image = bytearray(_FIRMWARE_SIZE)
    image[: len(_CODE)] = _CODE
    image[_RESET_VECTOR : _RESET_VECTOR + len(_JUMP)] = _JUMP
    firmware.write_bytes(image)
    address = directory / name
    command = ["qemu-system-x86_64", "-accel", "tcg", "-machine", MACHINE, "-m", str(MEMORY)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-bios", str(firmware)]
    command += ["-qmp", f"unix:{address},server=on,wait=off", *options]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
    monitor = QMPClient(name)
    async with asyncio.timeout(_PATIENCE):
        await _connect(monitor, address)
    guest = Guest(process, monitor)
    try:
        yield guest
    finally:
        await guest.stop()


async def _connect(monitor: QMPClient, address: Path) -> None:
    """Connect to a QEMU that is starting: the socket is there before it is listened on."""
    while True:
        try:
            return await monitor.connect(str(address))
        except ConnectError:
            await monitor.disconnect()
            await asyncio.sleep(0.02)


@asynccontextmanager
async def recorded(path: Path) -> AsyncIterator[None]:
    """Run tcpdump around the migration."""
    command = ["tcpdump", "-Z", "root", "-U", "-i", "lo", "-s", "0", "-B", "65536"]
    process = await asyncio.create_subprocess_exec(
        *command, "-w", str(path), "port", str(PORT), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    await process.stderr.readline()
    await asyncio.sleep(_SETTLE)
    yield
    await asyncio.sleep(2 * _SETTLE)
    process.terminate()
    await process.wait()


async def start(source: Guest, sample: Sample, uri: str) -> None:
    """Migrate, and make sure that the guest has changed pages behind the first pass."""
    if sample.slow:
        # So slow that the guest asks for pages before they come by themselves.
        limits = {"max_bandwidth": _SLOW, "downtime_limit": 1, "max_postcopy_bandwidth": _SLOW}
        await source.do("migrate-set-parameters", **limits)
    await source.do("migrate", uri=uri)
    if sample.postcopy:
        await source.wait_for("active")
        await asyncio.sleep(2 * _SETTLE)
        await source.do("migrate-start-postcopy")
    elif sample.slow:
        await asyncio.sleep(4 * _SETTLE)
        await source.do("migrate-set-parameters", max_bandwidth=1 << 30, downtime_limit=1000)


async def to_destination(directory: Path, sample: Sample, target: Path) -> str:
    """Record a migration between two QEMUs; give the digest of the pages."""
    paused = () if sample.postcopy else ("-S",)
    async with (
        started(directory, "source") as source,
        started(directory, "destination", "-incoming", "defer", *paused) as destination,
    ):
        await source.prepare(sample)
        await destination.prepare(sample)
        await asyncio.sleep(_SETTLE)
        uri = f"tcp:127.0.0.1:{PORT}"
        async with recorded(target):
            await destination.do("migrate-incoming", uri=uri)
            await start(source, sample, uri)
            await source.wait_for("completed")
            await destination.wait_for("completed")
        # A postcopied guest runs on at the destination; the source keeps what it had.
        stopped = source if sample.postcopy else destination
        return await stopped.pages_digest(directory)


async def to_file(directory: Path, sample: Sample, target: Path) -> str:
    """Write a migration to a file; give the digest of the pages."""
    async with started(directory, "source") as source:
        await source.prepare(sample)
        await asyncio.sleep(_SETTLE)
        start = b"" if sample.in_image is None else save_image_start(sample.in_image)
        target.write_bytes(start)
        await source.do("migrate", uri=f"file:{target},offset={len(start)}")
        await source.wait_for("completed")
        if "background-snapshot" in sample.capabilities:
            return ""
        return await source.pages_digest(directory)


def save_image_start(form: SaveFormat) -> bytes:
    """Make what libvirt writes before the stream."""
    xml = b"<domain type='qemu'><name>sample</name></domain>\0"
    cookie = b"<qemucookie/>\0"
    numbers = (2, len(xml) + len(cookie), 1, form, HEADER_SIZE + len(xml))
    return struct.pack("<16s5I56x", MAGIC, *numbers) + xml + cookie


async def savevm(directory: Path, target: Path) -> str:
    """Save a snapshot in a qcow2 image; give the digest of the pages."""
    create = ["qemu-img", "create", "-q", "-f", "qcow2", str(target), "1M"]
    assert await (await asyncio.create_subprocess_exec(*create)).wait() == 0
    drive = f"if=none,id=disk,file={target},format=qcow2"
    async with started(directory, "source", "-drive", drive) as source:
        await asyncio.sleep(_SETTLE)
        await source.do("stop")
        await source.do("human-monitor-command", command_line="savevm before")
        return await source.pages_digest(directory)


async def record(name: str, output: Path) -> None:
    """Make one sample, and say what the manifest wants to know of it."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        target = directory / "sample"
        if name == SAVEVM:
            digest, suffix = await savevm(directory, target), "qcow2"
        elif SAMPLES[name].to_file:
            digest, suffix = await to_file(directory, SAMPLES[name], target), "stream"
            if SAMPLES[name].in_image is not None:
                suffix = "save"
        else:
            digest, suffix = await to_destination(directory, SAMPLES[name], target), "pcap"
        content = gzip.compress(target.read_bytes(), mtime=0)
    (output / f"{name}.{suffix}.gz").write_bytes(content)
    print(f'\n[files."{name}.{suffix}.gz"]')
    print(f'sha256 = "{hashlib.sha256(content).hexdigest()}"')
    if digest:
        print(f'pages_sha256 = "{digest}"')
    print(f"# {len(content)} bytes", flush=True)


async def record_all(names: list[str], output: Path) -> None:
    """Make samples, one after the other."""
    for name in names:
        await record(name, output)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Record the ram-* samples of captures/.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", choices=[*SAMPLES, SAVEVM, []], metavar="NAME")
    arguments = parser.parse_args()
    asyncio.run(record_all(arguments.names or [*SAMPLES, SAVEVM], arguments.directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
