# SPDX-License-Identifier: GPL-2.0-or-later
"""Made migrations over real sockets."""

from __future__ import annotations

import socket
from random import Random
from threading import Thread
from typing import Final

import pytest

from mfdtool.errors import SinkError
from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.generate import Shape, random_migration
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.live.feed import SocketPairs, send_migration

MIGRATION: Final = assemble(Plan(channels=2, devices=[Device(buffers=[bytes(1 << 20)])]))


def read_all(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_every_channel_arrives_whole_and_ends() -> None:
    received: dict[str, bytes] = {}
    with SocketPairs(MIGRATION) as pairs:
        assert pairs.channels == ("main", "multifd-0", "multifd-1")

        def read(channel: str) -> None:
            received[channel] = read_all(pairs[channel])

        readers = [Thread(target=read, args=(channel,)) for channel in pairs.channels]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert received == {channel: MIGRATION.stream(channel) for channel in pairs.channels}


def test_random_migrations_that_fit_into_the_sockets() -> None:
    for seed in range(5):
        migration = random_migration(Random(seed), Shape(pages=(0, 0), packets=(0, 3)))
        with SocketPairs(migration) as pairs:
            for channel in pairs.channels:
                assert read_all(pairs[channel]) == migration.stream(channel)


def test_leaving_early_ends_the_sender() -> None:
    with SocketPairs(MIGRATION) as pairs:
        assert pairs["main"].recv(4) == b"QEVM"
    assert pairs["main"].fileno() == -1


def test_a_reader_that_closes_its_end() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(SinkError, match=r"^multifd-0: Broken pipe$") as caught:
        send_migration(MIGRATION, {"main": ours, "multifd-0": ours, "multifd-1": ours})
    assert isinstance(caught.value.__cause__, OSError)


def test_a_channel_without_a_socket() -> None:
    with pytest.raises(KeyError, match="multifd-0"):
        send_migration(MIGRATION, {})
