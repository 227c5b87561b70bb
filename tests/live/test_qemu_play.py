# SPDX-License-Identifier: GPL-2.0-or-later
"""Lock-step and outcomes, with a destination that is a script."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.qemu import play as playing
from mfdtool.live.qemu.play import Expected, Played, play
from mfdtool.live.qemu.source import Source
from mfdtool.loader.events import Connect, Deliver, End, FileHeader
from mfdtool.loader.recording import Entry
from mfdtool.loader.state import Outcome
from mfdtool.replay.sink import Order
from mfdtool.schedule.sending import Send
from mfdtool.stream.span import EndReason

IN = "vfio_load_state_device_buffer_incoming  (host) idx {}"
SWITCHOVER = "loadvm_process_command com=SWITCHOVER_START len=0"
DEVICE = "0000:00:05.0/vfio"
DEADLINE = 0.1


@dataclass
class Fake:
    """A destination: so many bytes make it write these lines, and end with this status."""

    script: dict[int, list[str]] = field(default_factory=dict)
    status: int | None = None
    says: str = "active"
    got: bytes = b""
    lines: Sequence[str] = ()
    errors: Sequence[str] = ("qemu-system-x86_64: words",)
    ends: list[socket.socket] = field(default_factory=list)

    def dial(self) -> socket.socket:
        """Connect."""
        near, far = socket.socketpair()
        far.settimeout(0)
        self.ends.append(far)
        return near

    def exit_status(self) -> int | None:
        """Read what came, and say how it ended, if it has read all."""
        for end in self.ends:
            try:
                self.got += end.recv(1 << 16)
            except OSError:
                continue
        self.lines = [
            line for count, lines in self.script.items() if len(self.got) >= count for line in lines
        ]
        return self.status if len(self.got) == 8 else None

    def migration_status(self, *, seconds: float) -> str:
        """Answer, or not."""
        if self.says == "silence":
            raise TimeoutError("query-migrate")
        return self.says


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Give a destination, and little patience."""
    monkeypatch.setattr(playing, "ACKNOWLEDGE_SECONDS", 0.05)
    monkeypatch.setattr(playing, "_EXIT_SECONDS", 0.05)
    made = Fake()
    yield made
    for end in made.ends:
        end.close()


def sent(*parts: bytes) -> list[Send]:
    """Send parts on the main channel, and close it."""
    opening = Send(0, "main", Entry(Connect(FileHeader()), "main", 0), ())
    items = [
        Send(
            number, "main", Entry(Deliver(None, FileHeader()), "main", number), (memoryview(part),)
        )
        for number, part in enumerate(parts, 1)
    ]
    end = Deliver(None, End(EndReason.FIN))
    return [opening, *items, Send(len(items) + 1, "main", Entry(end, "main"), ())]


PACKETS = (
    (1, Expected()),
    (2, Expected(DEVICE, 7, "multifd-1#4")),
    (3, Expected(DEVICE, 3, "m#5")),
)


def run(fake: Fake, *, deadline: float = DEADLINE) -> Played:
    """Play eight bytes in four parts to a destination that is watched."""
    with Source(fake.dial) as source:
        todo = sent(b"ab", b"cd", b"ef", b"gh")
        return play(todo, source, fake, expected=PACKETS, deadline=deadline)


def test_everything_is_acknowledged(fake: Fake) -> None:
    fake.script = {2: [SWITCHOVER], 4: [f"12@1.5:{IN.format(7)}"], 6: [IN.format(3)]}
    fake.says = "completed"
    played = run(fake)
    assert (played.outcome, played.order) == (Outcome.COMPLETED, Order.EXACT)
    assert (played.not_acknowledged, played.sent) == ((), 8)
    assert played.names == ((DEVICE, "host"),)
    assert fake.got == b"abcdefgh"
    assert played.lines[-1] == "qemu-system-x86_64: words"


def test_packet_without_a_line(fake: Fake) -> None:
    fake.script = {2: [SWITCHOVER], 6: [IN.format(3)]}
    fake.says = "completed"
    played = run(fake, deadline=60)
    assert (played.outcome, played.order) == (Outcome.COMPLETED, Order.ADVISORY)
    assert played.not_acknowledged == ("multifd-1#4",)


def test_lines_in_another_order(fake: Fake) -> None:
    fake.script = {2: [SWITCHOVER], 4: [IN.format(3), IN.format(7)]}
    fake.says = "completed"
    played = run(fake)
    assert (played.order, played.not_acknowledged) == (Order.ADVISORY, ())


def test_receive_threads_that_gave_up_are_not_waited_for(fake: Fake) -> None:
    fake.script = {2: [SWITCHOVER, "multifd_recv_terminate_threads error 1"]}
    played = run(fake)
    assert (played.outcome, played.not_acknowledged) == (Outcome.STALLED, ("multifd-1#4", "m#5"))


def test_receive_threads_that_give_up_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is sent before they have: other channels would still be read."""
    monkeypatch.setattr(playing, "_EXIT_SECONDS", 0.05)
    got: list[int] = []

    class Slow(Fake):
        def exit_status(self) -> int | None:
            status = super().exit_status()
            got.append(len(self.got))
            if got.count(4) > 3:
                self.lines = ["multifd_recv_terminate_threads error 1"]
            return status

    slow = Slow(says="completed")
    with Source(slow.dial) as source:
        todo = sent(b"ab", b"cd", b"ef", b"gh")
        expected = [(2, Expected(gives_up=True))]
        play(todo, source, slow, expected=expected, deadline=60)
    for end in slow.ends:
        end.close()
    assert got.count(4) > 3
    assert slow.got == b"abcdefgh"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(1, Outcome.FAILED), (-6, Outcome.ABORTED), (-11, Outcome.ABORTED), (0, Outcome.COMPLETED)],
)
def test_exit_status(fake: Fake, status: int, outcome: Outcome) -> None:
    fake.status = status
    played = run(fake)
    assert (played.outcome, played.exit_status) == (outcome, status)


@pytest.mark.parametrize("says", ["silence", "active", "none"])
def test_silence_is_a_stall(fake: Fake, says: str) -> None:
    fake.says = says
    assert run(fake).outcome is Outcome.STALLED


def test_failure_without_exit(fake: Fake) -> None:
    fake.says = "failed"
    assert run(fake, deadline=60).outcome is Outcome.FAILED


def test_unwatched_destination_that_closes(fake: Fake) -> None:
    with Source(fake.dial) as source:
        opening, *rest = sent(b"ab")

        def todo() -> Iterator[Send]:
            yield opening
            yield from rest
            fake.ends[0].sendall(b"\0\1\0\4\0\0\0\0")
            fake.ends[0].close()

        played = play(todo(), source, deadline=60)
    assert (played.outcome, played.order) == (None, Order.ADVISORY)
    assert played.returned == b"\0\1\0\4\0\0\0\0"


def test_unwatched_destination_that_does_nothing(fake: Fake) -> None:
    with Source(fake.dial) as source:
        assert play(sent(b"ab"), source, deadline=DEADLINE).outcome is Outcome.STALLED


def test_connection_that_is_refused() -> None:
    def dial() -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    with Source(dial) as source, pytest.raises(SinkError, match="main: cannot connect"):
        play(sent(b"ab"), source, deadline=DEADLINE)
