# SPDX-License-Identifier: GPL-2.0-or-later
"""Every state with every event: a legal move, a documented end, or nothing; never an exception."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mfdtool.loader.blob import blob_of
from mfdtool.loader.commands import Blocked
from mfdtool.loader.events import (
    MAIN,
    BadHeader,
    Body,
    Command,
    Configuration,
    Connect,
    Deliver,
    End,
    Eof,
    Event,
    FileHeader,
    Footer,
    Handshake,
    Lost,
    MainItem,
    Marker,
    MultiFDItem,
    RamPacket,
    RamRecord,
    SectionPart,
    SectionStart,
    Step,
    Unknown,
    VmDescription,
    loader,
    receiver,
)
from mfdtool.loader.machine import Loader
from mfdtool.loader.moves import (
    LOAD_MOVES,
    MAIN_MOVES,
    RECEIVE_MOVES,
    LoadPhase,
    MainPhase,
    ReceivePhase,
)
from mfdtool.loader.state import State
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import SectionType, VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import (
    CONFIG,
    DESTINATION,
    DEVICE,
    FLUSH,
    MACHINE,
    SYNC,
    Playbook,
    packet,
)

LATE = replace(DESTINATION, profile=PROFILES["11.1"], config_after_iter=True, max_queued=100)

MULTIFD_ITEMS: tuple[MultiFDItem, ...] = (
    SYNC,
    RamPacket(pages_alloc=128, normal_pages=1, next_packet_size=4096),
    RamPacket(pages_alloc=999),
    BadHeader(1, 1),
    Lost(3),
    End(),
    End(EndReason.RST),
    End(inside=True),
    packet(0),
    packet(1),
    packet(0, config=True),
    packet(2, config=True),
    packet(7, bytes(200)),
    packet(0xFFFFFFFE),
    packet(3, idstr="nobody"),
)
MAIN_ITEMS: tuple[MainItem, ...] = (
    FileHeader(),
    FileHeader(version=9),
    Configuration(MACHINE),
    Configuration("isapc"),
    SectionStart(1, "ram", 0, 4),
    SectionStart(2, DEVICE),
    SectionStart(2, DEVICE, type=SectionType.FULL),
    SectionStart(3, "nobody"),
    SectionPart(1),
    SectionPart(2, SectionType.END),
    SectionPart(99),
    *(Marker(marker, blob_of(CONFIG)) for marker in VFIOMarker),
    Marker(0x1234),
    FLUSH,
    RamRecord(0x10),
    RamRecord(0x3),
    Body(b"12345678"),
    Footer(1),
    Footer(2),
    *(Command(number, 0) for number in range(13)),
    Command(2, 4, 1),
    Eof(),
    VmDescription(),
    Unknown(b""),
    Unknown(b"\x07\xff\xff\xff\xff"),
    Lost(7),
    End(),
    End(EndReason.CAPTURE),
)
EVENTS: tuple[Event, ...] = (
    *(Connect(first) for first in (Handshake(0), Handshake(1), Handshake(2), Handshake(3))),
    *(Connect(first) for first in (FileHeader(), Unknown(b"HTTP/1.1" * 9), End())),
    *(Deliver(channel, item) for channel in (0, 1, 9) for item in MULTIFD_ITEMS),
    *(Deliver(None, item) for item in MAIN_ITEMS),
    Step(MAIN),
    Step(receiver(0)),
    *(Step(loader(device)) for device in (0, 1)),
)


def states(seed: int) -> list[State]:
    """Walk at random from places that matter, and give all states on the way."""
    rng = random.Random(seed)
    destination = LATE if seed % 2 else DESTINATION
    start = rng.choice(("connect", "header", "setup", "switch_over"))
    book = Playbook(destination)
    getattr(book, start)()
    found = []
    for _ in range(40):
        found.append(book.state)
        if book.state.outcome is not None:
            break
        book.do(rng.choice(EVENTS))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_every_state_takes_every_event(seed: int) -> None:
    machine = Loader(LATE if seed % 2 else DESTINATION)
    for state in states(seed)[::4]:
        for event in EVENTS:
            after, commands = machine.step(state, event)
            why = machine.why_not(state, event)
            assert bool(why) == any(isinstance(command, Blocked) for command in commands)
            if why:
                assert after is state
            hash(after)


def test_steps_are_pure() -> None:
    for state in states(3):
        for event in EVENTS[::7]:
            assert Loader(LATE).step(state, event) == Loader(LATE).step(state, event)


def test_equal_histories_give_equal_states() -> None:
    for one, other in zip(states(5), states(5), strict=True):
        assert one == other
        assert hash(one) == hash(other)


def test_orders_that_do_not_matter_give_equal_states() -> None:
    one = Playbook().switch_over().receive(0, packet(3)).receive(1, packet(2))
    other = Playbook().switch_over().receive(1, packet(2)).receive(0, packet(3))
    assert one.state == other.state


def test_every_phase_is_in_the_tables() -> None:
    for table, phases in (
        (RECEIVE_MOVES, ReceivePhase),
        (LOAD_MOVES, LoadPhase),
        (MAIN_MOVES, MainPhase),
    ):
        entered = {after for outcomes in table.values() for after in outcomes}
        left = {before for before, _ in table}
        assert entered | left == set(phases)
