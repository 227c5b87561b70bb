# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a destination does not go on."""

from __future__ import annotations

from dataclasses import replace

from mfdtool.loader.events import (
    Connect,
    Deliver,
    Eof,
    FileHeader,
    Handshake,
    SectionPart,
    Step,
    loader,
)
from mfdtool.loader.stall import Stall, why_stalled
from mfdtool.wire.constants import SectionType
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import DESTINATION, FLUSH, SYNC, Playbook, packet, with_device

NAMES = ("multifd-0", "multifd-1")


def stalls(book: Playbook) -> list[Stall]:
    return list(why_stalled(book.loader.destination, book.state, NAMES))


def test_channels_that_are_missing() -> None:
    book = Playbook()
    book.do(Connect(Handshake(0)))
    message = "1 of 2 multifd channels are there, and the main channel is missing"
    assert stalls(book) == [Stall("channels-missing", message)]
    book.do(Connect(FileHeader()))
    assert stalls(book)[0].message == "1 of 2 multifd channels are there"


def test_syncs_that_are_missing() -> None:
    book = Playbook().setup().main(SectionPart(1), FLUSH).receive(1, SYNC)
    assert stalls(book) == [Stall("flush-without-sync", "flush 2 got no SYNC from multifd-0")]
    assert next(iter(why_stalled(DESTINATION, book.state))).message.endswith("from 0")


def test_threads_that_wait_for_each_other() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    book.receive(1, packet(1)).main(SectionPart(1, SectionType.END), FLUSH).receive(0, SYNC)
    assert [stall.rule for stall in stalls(book)] == ["lock-cycle", "flush-without-sync"]


def test_load_threads_that_wait() -> None:
    starved = Playbook().switch_over().main(Eof())
    assert stalls(starved) == [
        Stall("device-unfinished", "the load thread waits for idx 0, no config packet came", 0)
    ]
    starved.receive(0, packet(3, config=True)).run()
    assert stalls(starved)[0].message == "the load thread waits for idx 0, last is 3"
    late = replace(DESTINATION, profile=PROFILES["10.1"], config_after_iter=True)
    awaiting = Playbook(late).switch_over().receive(0, packet(0, config=True)).run().main(Eof())
    assert [stall.rule for stall in stalls(awaiting)] == ["load-ready-missing"]
    hanging = Playbook(with_device(write_hangs=True)).switch_over().receive(0, packet(0)).run()
    assert [stall.rule for stall in stalls(hanging.main(Eof()))] == ["device-write-hangs"]


def test_capture_that_ends() -> None:
    assert stalls(Playbook().header()) == [
        Stall("capture-ends", "the main thread waits for more: it is at element")
    ]


def test_cleanup_that_never_ends_has_said_so() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step().receive(1, packet(1))
    book.main(Eof())
    assert book.blocked(Deliver(1, SYNC)) == "the receive thread is locked"
    book.do(Step(loader(0)))
    stuck = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    stuck.receive(1, packet(1)).main(SectionPart(99))
    assert stalls(stuck) == []
