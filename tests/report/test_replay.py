# SPDX-License-Identifier: GPL-2.0-or-later
"""The loader's state in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mfdtool.loader.events import (
    Command,
    Deliver,
    Event,
    SectionStart,
    Step,
    Unknown,
    loader,
)
from mfdtool.loader.recording import Entry
from mfdtool.replay.driver import Moment
from mfdtool.report.replay import device_text, main_text, moment_lines, place_text
from tests.support.playbook import (
    DESTINATION,
    DEVICE,
    FLUSH,
    SWITCHOVER,
    SYNC,
    Playbook,
    packet,
)

NAMES = ("multifd-0", "multifd-1")


def shown(
    play: Playbook,
    event: Event,
    *,
    queued: Mapping[str, Sequence[tuple[int, Entry]]] | None = None,
) -> list[str]:
    """Carry out an event and show it."""
    entry = None
    if isinstance(event, Deliver):
        name = "main" if event.channel is None else NAMES[event.channel]
        entry = Entry(event, name, 7)
    commands = tuple(play.do(event))
    moment = Moment(0, event, entry, play.state, commands, queued or {}, NAMES)
    return list(moment_lines(moment, DESTINATION, None))


def test_packet_that_waits_for_its_turn() -> None:
    play = Playbook().switch_over()
    event = Deliver(1, packet(3, b"abc"))
    queued = {"multifd-0": [(9, Entry(Deliver(0, packet(0)), "multifd-0", 4))]}
    assert shown(play, event, queued=queued) == [
        "multifd-1#7",
        "  vfio_load_state_device_buffer_incoming  (0000:00:05.0) idx 3",
        "  main          element",
        "  multifd-0     reading, 1 packet read, 1 more waiting",
        "  multifd-1     reading, 2 packets read",
        f"  {DEVICE}: looking, next idx 0, no config yet, waiting idx 3, 3 bytes queued,"
        " 0 bytes written",
        f"  next: the load thread of {DEVICE} can go on; multifd-0 reads multifd-0#4",
    ]


def test_receive_thread_that_waits_for_the_mutex() -> None:
    play = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    lines = shown(play, Deliver(1, packet(1)))
    assert (
        f"  multifd-1     locked: waits for the mutex of {DEVICE}, with idx 1, 2 packets read"
        in (lines)
    )
    assert f"  {DEVICE}: loading the config at 0, config at 0, waiting idx 0," in lines[-2]


def test_assertion_that_kills_it() -> None:
    play = Playbook().switch_over()
    lines = shown(play, Deliver(None, SWITCHOVER))
    assert lines[0] == "main#7"
    assert any(line.startswith("  prints: hw/vfio/migration-multifd.c") for line in lines)
    assert "  breaks switchover-twice: the load thread is running already" in lines
    assert "  the destination dies" in lines
    assert lines[-1] == "  next: nothing, the destination is dead"


def test_end_in_order() -> None:
    lines = shown(Playbook().switch_over(), Deliver(None, Unknown(b"\xee")))
    assert "  the destination exits" in lines
    assert lines[-1] == "  next: nothing, the destination has failed"


def test_step_that_writes() -> None:
    play = Playbook().switch_over().receive(0, packet(0, b"abc")).step()
    assert "writing idx 0" in device_text(play.state.devices[0])
    lines = shown(play, Step(loader(0)))
    assert lines[0] == f"step of the load thread of {DEVICE}"
    assert f"  wrote buffer 0, 3 bytes, to {DEVICE}" in lines
    assert shown(play, Step(loader(0)))[-1] == "  next: nothing, until more arrives"


def test_main_thread_that_waits() -> None:
    def text(play: Playbook) -> str:
        return main_text(play.state, DESTINATION, NAMES)

    play = Playbook()
    assert text(play) == "connecting: 0 of 2 channels are there, and the main channel"
    assert text(play.header()) == "element"
    play.receive(0, SYNC).main(SectionStart(1, "ram", 0, 4), FLUSH)
    assert text(play) == "syncing: has 1 of 2 SYNCs, waits for multifd-1"


@pytest.mark.parametrize(
    ("idx", "text"),
    [
        ([1, 2, 3, 7], "waiting idx 1-3 7,"),
        (range(2, 40, 2), "waiting idx 2 4 6 8 10 12 14 16 and 11 more ranges,"),
        (range(1, 1200), "waiting idx in 1199 slots,"),
    ],
)
def test_slots_that_wait(idx: Sequence[int], text: str) -> None:
    play = Playbook().switch_over()
    play.receive(0, *(packet(each, b"") for each in idx))
    assert text in device_text(play.state.devices[0])


def test_end_of_a_channel_has_no_number() -> None:
    event = Deliver(None, Command(1))
    assert place_text(Entry(event, "multifd-3", 4)) == "multifd-3#4"
    assert place_text(Entry(event, "multifd-3")) == "multifd-3"
