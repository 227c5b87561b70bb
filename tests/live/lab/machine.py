# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots the lab's virtual machine, which runs scenarios and writes what became of them."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

ROOT: Final = Path(__file__).parents[3]
TOOLS: Final = ROOT / "tools" / "lab"

BOOT_SECONDS: Final = 240
"""What starting and ending may take on a busy machine; it takes 10."""

_INTERVAL: Final = 0.2
_DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")

_RECIPE: Final = ("install.sh", "init", "short_reads.c")
_GUEST_OUT: Final = "/run/out"
_QEMU: Final = "qemu-system-x86_64"
_OPTIONS: Final = (
    "-accel tcg,thread=multi -cpu max -machine q35 -smp 2 -m 2048 -nodefaults -display none"
    " -no-reboot -no-user-config -serial stdio -object rng-random,id=rng"
    " -device virtio-rng-pci,rng=rng"
)
_KERNEL_OPTIONS: Final = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr rdinit=/init"
)


@dataclass(frozen=True, slots=True)
class Installed:
    """The lab's folder, as tools/lab/install.sh fills it."""

    folder: Path

    @property
    def missing(self) -> str:
        """Say what keeps the lab from being used; empty if nothing does."""
        stamp = self.folder / "stamp"
        if not stamp.exists():
            return "the lab is not installed; 'make lab' does it"
        recipe = b"".join((TOOLS / name).read_bytes() for name in _RECIPE)
        if stamp.read_text().strip() != hashlib.sha256(recipe).hexdigest():
            return "the lab is out of date; 'make lab' renews it"
        return ""


def installed() -> Installed:
    """Give the lab's folder, whether there is one or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Installed(Path(os.environ.get("MFDTOOL_LAB") or Path(cache) / "mfdtool" / "lab"))


class Machine:
    """The machine; it runs scenarios from when it is made on."""

    def __init__(self, lab: Installed, out: Path, names: Sequence[str], *, seconds: float) -> None:
        """Start it.

        ``out`` is a folder that it writes to: ``NAME.json`` is what became of a scenario.
        ``seconds`` is the most that a scenario may take.
        """
        self._out = out
        self._seconds = seconds
        self._console = out / "console"
        out.joinpath("command").write_text(_command(lab, names))
        arguments = [
            _QEMU,
            *shlex.split(_OPTIONS),
            *("-kernel", str(lab.folder / "vmlinuz")),
            *("-initrd", str(lab.folder / "initramfs.gz")),
            *("-append", _KERNEL_OPTIONS),
            *("-virtfs", _share("/", "root", "readonly=on,multidevs=remap")),
            *("-virtfs", _share(str(out), "out", "multidevs=remap")),
        ]
        with self._console.open("wb") as log:
            self._process = subprocess.Popen(
                [*_DIES_WITH_US, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> str:
        """Wait for its end; give what its console says. One that does not get on is killed."""
        try:
            if not self._ends():
                with self._console.open("ab") as log:
                    log.write(b"\nlab: the machine got stuck and was killed\n")
        finally:
            self.kill()
        return self._console.read_text(errors="backslashreplace")

    def kill(self) -> None:
        """End it and whatever it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ends(self) -> bool:
        """Wait as long as it starts, or finishes scenarios; give whether it ended."""
        done = -1
        deadline = 0.0
        while True:
            finished = len(list(self._out.glob("*.json")))
            if finished > done:
                done, deadline = finished, monotonic() + BOOT_SECONDS + self._seconds
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_INTERVAL)
                return True
            if monotonic() > deadline:
                return False


def _command(lab: Installed, names: Sequence[str]) -> str:
    """Write the script that the machine runs."""
    environment = {
        "HOME": "/run",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/run",
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    words += [shlex.quote(sys.executable), "-m", "tests.live.lab.guest"]
    words += map(shlex.quote, [_GUEST_OUT, str(lab.folder), *names])
    return f"cd {shlex.quote(str(ROOT))} && exec env {' '.join(words)}\n"


def _share(path: str, tag: str, options: str) -> str:
    escaped = path.replace(",", ",,")
    return f"local,path={escaped},mount_tag={tag},security_model=none,{options}"
