# SPDX-License-Identifier: GPL-2.0-or-later
"""Flushes: the main thread waits for one SYNC packet of every channel.

A receive thread posts one semaphore and waits at its own; the main thread takes as many posts as
there are channels, whoever they are from, then lets all threads go on
(multifd.c:multifd_recv_sync_main). It holds the big lock all the time, and nothing wakes it when a
channel ends instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.loader.moves import MainCause, MainPhase, ReceiveCause, ReceivePhase
from mfdtool.loader.turn import main_trace

if TYPE_CHECKING:
    from mfdtool.loader.turn import Turn


def flush(turn: Turn, after: MainPhase) -> None:
    """Begin to collect; ``after`` is where the main thread goes on."""
    if not turn.destination.channels:
        turn.move_main(MainCause.BODY, after)
        return
    turn.move_main(MainCause.FLUSH, MainPhase.SYNCING)
    turn.set_main(after_sync=after, collected=0)
    main_trace(turn, "multifd_recv_sync_main_wait", 0)
    _collect(turn)


def post(turn: Turn, channel: int) -> None:
    """Process a SYNC packet: post, then wait unless a release is there already."""
    found = turn.receiver(channel)
    if found.credit:
        turn.set_receiver(channel, credit=found.credit - 1)
    else:
        turn.move_receiver(channel, ReceiveCause.SYNC, ReceivePhase.SYNCING)
    turn.set_main(posted=turn.main.posted + 1)
    if turn.main.phase is MainPhase.SYNCING:
        _collect(turn)


def _collect(turn: Turn) -> None:
    channels = turn.destination.channels
    while turn.main.posted and turn.main.collected < channels:
        collected = turn.main.collected + 1
        turn.set_main(posted=turn.main.posted - 1, collected=collected)
        if collected < channels:
            main_trace(turn, "multifd_recv_sync_main_wait", collected)
    if turn.main.collected == channels:
        _release(turn)


def _release(turn: Turn) -> None:
    """Let all receive threads go on, in the order of their ids."""
    known = [
        (found.id, number, found)
        for number, found in enumerate(turn.receivers)
        if found is not None
    ]
    highest = turn.main.packet_num
    for id_, number, found in sorted(known, key=lambda entry: entry[0]):
        highest = max(highest, found.packet_num)
        main_trace(turn, "multifd_recv_sync_main_signal", id_)
        if found.phase is ReceivePhase.SYNCING:
            turn.move_receiver(number, ReceiveCause.RELEASED, ReceivePhase.READING)
        else:
            # Somebody else's SYNC was counted for it: its next one will not wait.
            turn.set_receiver(number, credit=found.credit + 1)
    main_trace(turn, "multifd_recv_sync_main", highest)
    after = turn.main.after_sync
    turn.set_main(packet_num=highest, flushes=turn.main.flushes + 1)
    turn.move_main(MainCause.SYNCED, after)
