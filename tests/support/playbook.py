# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts for the reference destination: events in, and what it does about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Self

from mfdtool.loader.blob import Blob, blob_of
from mfdtool.loader.commands import Abort, Blocked, Command, Fail, Print, Trace, Violate
from mfdtool.loader.destination import Destination, DeviceSpec
from mfdtool.loader.events import (
    MAIN,
    Configuration,
    Connect,
    Deliver,
    DevicePacket,
    Eof,
    Event,
    FileHeader,
    Footer,
    Handshake,
    MainItem,
    Marker,
    MultiFDItem,
    RamPacket,
    RamRecord,
    SectionPart,
    SectionStart,
    Step,
    VmDescription,
    loader,
)
from mfdtool.loader.events import (
    Command as CommandItem,
)
from mfdtool.loader.machine import Loader
from mfdtool.loader.moves import LoadPhase, MainPhase
from mfdtool.loader.state import Outcome, State
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.constants import MultiFDFlag, RamFlag, SectionType, VFIOMarker
from mfdtool.wire.vfio import wrap_config

DEVICE: Final = "0000:00:05.0/vfio"
MACHINE: Final = "pc-q35-10.0"
CONFIG: Final = wrap_config((2).to_bytes(4) + bytes(256) + bytes(16))
"""The config of a conventional PCI device without MSI-X."""

_MTTY_SPACE: Final = bytes.fromhex("484353320301000210020007").ljust(4096, b"\0")
MTTY_CONFIG: Final = wrap_config((2).to_bytes(4) + _MTTY_SPACE + bytes(16))
"""The config of an mtty."""

SWITCHOVER: Final = CommandItem(CommandNumber.SWITCHOVER_START)
FLUSH: Final = RamRecord(RamFlag.MULTIFD_FLUSH)
EOS: Final = RamRecord(RamFlag.EOS)
SYNC: Final = RamPacket(flags=MultiFDFlag.SYNC)
END_OF_STATE: Final = Marker(VFIOMarker.END_OF_STATE)

DESTINATION: Final = Destination(devices=(DeviceSpec(idstr=DEVICE),), channels=2, machine=MACHINE)


def packet(
    idx: int, data: bytes | Blob | None = None, *, config: bool = False, idstr: str = DEVICE
) -> DevicePacket:
    """Make a device packet; a config packet has a good config unless told otherwise."""
    if data is None:
        data = CONFIG if config else b"data %d" % idx
    blob = blob_of(data) if isinstance(data, bytes) else data
    return DevicePacket(
        idstr=idstr, next_packet_size=12 + blob.length, idx=idx, flags=int(config), data=blob
    )


class Playbook:
    """A destination and what has happened to it."""

    def __init__(self, destination: Destination = DESTINATION) -> None:
        self.loader = Loader(destination)
        self.state: State = self.loader.initial()
        self.commands: list[Command] = []

    # Events

    def do(self, event: Event) -> list[Command]:
        """Carry out an event; give its commands."""
        self.state, commands = self.loader.step(self.state, event)
        self.commands.extend(commands)
        return list(commands)

    def main(self, *items: MainItem) -> Self:
        """Let the main thread read items, and set the devices up when it is time."""
        for item in items:
            self.do(Deliver(None, item))
            while self.state.main.phase is MainPhase.SETUP and self.state.outcome is None:
                self.do(Step(MAIN))
        return self

    def receive(self, channel: int, *items: MultiFDItem) -> Self:
        """Let a receive thread read items."""
        for item in items:
            self.do(Deliver(channel, item))
        return self

    def step(self, count: int = 1, *, device: int = 0) -> Self:
        """Let a load thread take steps."""
        for _ in range(count):
            self.do(Step(loader(device)))
        return self

    def run(self) -> Self:
        """Let all load threads go as far as they can."""
        while steps := self.loader.steps(self.state):
            for one in steps:
                self.do(one)
        return self

    # Scenes

    def connect(self) -> Self:
        """Connect all channels."""
        for number in range(self.loader.destination.channels):
            self.do(Connect(Handshake(number)))
        self.do(Connect(FileHeader()))
        return self

    def header(self) -> Self:
        """Read the main stream up to the first section."""
        return self.connect().main(FileHeader(), Configuration(MACHINE))

    def sync(self) -> Self:
        """Send a SYNC on every channel."""
        for channel in range(self.loader.destination.channels):
            self.receive(channel, SYNC)
        return self

    def setup(self) -> Self:
        """Go on until all START sections are read."""
        self.header().sync()
        self.main(SectionStart(1, "ram", 0, 4), FLUSH, EOS, Footer(1))
        for number, device in enumerate(self.loader.destination.devices):
            self.main(SectionStart(2 + number, device.idstr, device.instance_id))
            self.main(Marker(VFIOMarker.DEV_SETUP_STATE), Footer(2 + number))
        return self

    def switch_over(self) -> Self:
        """Go on until the load threads have looked around."""
        return self.setup().main(SWITCHOVER).run()

    def finish(self) -> Self:
        """Read the rest of a good main stream."""
        self.main(SectionPart(1, SectionType.END), FLUSH)
        self.sync()
        self.main(EOS, Footer(1))
        for number in range(len(self.loader.destination.devices)):
            self.main(SectionPart(2 + number, SectionType.END), END_OF_STATE, Footer(2 + number))
        for number, device in enumerate(self.loader.destination.devices):
            full = SectionStart(2 + number, device.idstr, type=SectionType.FULL)
            self.main(full, END_OF_STATE, Footer(2 + number))
        return self.main(Eof()).run().main(VmDescription())

    # What can be asserted

    @property
    def phase(self) -> LoadPhase:
        """Where the first device's load thread is."""
        return self.state.devices[0].phase

    @property
    def outcome(self) -> Outcome | None:
        """How it ended."""
        return self.state.outcome

    @property
    def stderr(self) -> list[str]:
        """What was printed."""
        return [command.text for command in self.commands if isinstance(command, Print)]

    @property
    def rules(self) -> list[str]:
        """The rules that were broken."""
        return [command.rule for command in self.commands if isinstance(command, Violate)]

    @property
    def ends(self) -> list[Command]:
        """How the process ended."""
        return [command for command in self.commands if isinstance(command, Abort | Fail)]

    def traced(self, name: str) -> list[tuple[int | str, ...]]:
        """The arguments of a trace event, each time it was reached."""
        return [
            command.args
            for command in self.commands
            if isinstance(command, Trace) and command.name == name
        ]

    def blocked(self, event: Event) -> str:
        """Say why an event cannot happen; it must not."""
        before = self.state
        (command,) = self.do(event)
        assert isinstance(command, Blocked)
        assert self.state == before
        return command.why

    @property
    def is_stuck(self) -> bool:
        """Whether no thread can go on by itself, and none has ended it."""
        return self.outcome is None and not self.loader.steps(self.state)


def with_device(destination: Destination = DESTINATION, **changes: Any) -> Destination:
    """Change the first device of a destination."""
    first, *others = destination.devices
    return replace(destination, devices=(replace(first, **changes), *others))
