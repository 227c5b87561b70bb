# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations between two real QEMUs, recorded by tcpdump: what captures/ is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.live.lab.qemu import PORT, Qemu, Setup, Tcpdump
from tests.live.lab.scenario import Inside, Scenario

SECONDS: Final = 600
_MTU: Final = Path("/sys/class/net/lo/mtu")
_DEFAULT_MTU: Final = 65536
_ENDS: Final = ("completed", "failed")
"""A source may think that it has completed what its destination then refuses."""


def wait_for_end(source: Qemu) -> None:
    """Wait until a source thinks that its migration is over."""
    source.wait_until(lambda: source.migration_status() in _ENDS, "end of the migration")


def wait_for_guest(source: Qemu, destination: Qemu) -> None:
    """Wait until the guest of a migration that is over runs at its destination."""
    assert source.migration_status() == "completed"
    destination.wait_until(
        lambda: destination.migration_status() == "completed", "end of the migration"
    )
    destination.wait_until(
        lambda: bool(destination.command("query-status")["running"]), "running guest"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A migration to be recorded, as a capture of the same name shows it.

    Attributes:
        name: the scenario's, and the capture's.
        ports: serial ports of each device.
        channels, read_size, transfer: see `Setup`.
        host: address that the destination listens on.
        default_mtu: whether frames may be longer than a capture's records: it may have holes.
        lacks_device: whether the destination has no device.
    """

    name: str
    ports: tuple[int, ...] = (2,)
    channels: int = 4
    read_size: int = 0
    transfer: bool = True
    host: str = "127.0.0.1"
    default_mtu: bool = False
    lacks_device: bool = False

    def run(self, inside: Inside) -> None:
        """Migrate, and leave ``capture.pcap`` and both logs in the scenario's folder."""
        if self.default_mtu:
            mtu = _MTU.read_text()
            _MTU.write_text(str(_DEFAULT_MTU))
            inside.stack.callback(_MTU.write_text, mtu)
        uuids = [inside.device(ports=ports) for ports in self.ports]
        setup = Setup(
            uuids=uuids, channels=self.channels, read_size=self.read_size, transfer=self.transfer
        )
        others = [] if self.lacks_device else [inside.device(ports=ports) for ports in self.ports]
        destination = Qemu(inside, "dst", replace(setup, uuids=others, read_size=0, incoming=True))
        source = Qemu(inside, "src", setup)
        capture = Tcpdump(inside, inside.folder / "capture.pcap")
        source.wait_until(source.is_idle, "guest that waits")
        uri = f"tcp:{self.host}:{PORT}"
        destination.command("migrate-incoming", uri=uri)
        source.command("migrate", uri=uri)
        wait_for_end(source)
        if self.lacks_device:
            destination.wait_until(lambda: destination.exit_status() is not None, "exit")
        else:
            wait_for_guest(source, destination)
        inside.notes["destination"] = destination.exit_status()
        destination.end()
        source.end()
        capture.end()


RECORDED: Final = (
    Recorded(name="mtty-4ch-clean", read_size=16),
    Recorded(name="mtty-4ch-one-packet"),
    Recorded(name="mtty-2dev-2ch-holes", ports=(1, 2), channels=2, read_size=24, default_mtu=True),
    Recorded(name="mtty-8ch-ipv6", channels=8, read_size=8, host="[::1]"),
    Recorded(name="mtty-main-stream-only", transfer=False),
    Recorded(name="mtty-dst-lacks-device", lacks_device=True),
)

SCENARIOS: Final = tuple(
    Scenario(name=recorded.name, run=recorded.run, seconds=SECONDS) for recorded in RECORDED
)
