# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace events as text."""

from __future__ import annotations

from mfdtool.loader.commands import Trace
from mfdtool.loader.events import MAIN, loader, receiver
from mfdtool.loader.trace import MIGRATION_FORMATS, VFIO_FORMATS, trace_line


def line(name: str, *args: int | str) -> str:
    return trace_line(Trace(MAIN, name, args), lambda number: f"device{number}")


def test_events_look_as_in_a_log() -> None:
    assert line("multifd_recv_unfill", 2, 6, 1, 8192) == (
        "multifd_recv_unfill channel 2 packet_num 6 flags 0x1 next packet size 8192"
    )
    assert line("loadvm_state_setup") == "loadvm_state_setup "
    assert line("vfio_load_state", 1, 0xFFFFFFFFEF100003) == (
        "vfio_load_state  (device1) data 0xffffffffef100003"
    )
    assert line("vfio_migration_set_state", 0, "RESUMING", "RUNNING") == (
        "vfio_migration_set_state  (device0) new state RESUMING, recover state RUNNING"
    )


def test_names_are_in_one_table_only() -> None:
    assert not MIGRATION_FORMATS.keys() & VFIO_FORMATS.keys()


def test_actors_have_names() -> None:
    assert [str(actor) for actor in (MAIN, receiver(3), loader(1))] == [
        "main",
        "receive 3",
        "load 1",
    ]
