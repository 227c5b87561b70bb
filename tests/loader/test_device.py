# SPDX-License-Identifier: GPL-2.0-or-later
"""Load threads: order, starvation, the config, and every way in which they die."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.loader.blob import Blob
from mfdtool.loader.commands import Abort, Fail, LoadConfig, WriteBuffer
from mfdtool.loader.device import array_size
from mfdtool.loader.events import (
    MAIN,
    Announced,
    Configuration,
    Deliver,
    FileHeader,
    Footer,
    Marker,
    SectionPart,
    SectionStart,
    Step,
    loader,
)
from mfdtool.loader.moves import LoadPhase, MainPhase, ReceivePhase
from mfdtool.loader.state import Outcome
from mfdtool.wire.constants import SectionType, VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import (
    CONFIG,
    DESTINATION,
    DEVICE,
    FLUSH,
    MACHINE,
    SWITCHOVER,
    SYNC,
    Playbook,
    packet,
    with_device,
)

LATE_CONFIG = replace(DESTINATION, profile=PROFILES["10.1"], config_after_iter=True)
LOAD_READY = Marker(VFIOMarker.DEV_CONFIG_LOAD_READY)


def written(book: Playbook) -> list[int | None]:
    return [command.idx for command in book.commands if isinstance(command, WriteBuffer)]


def test_good_migration_completes() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(0), packet(2, config=True)).receive(1, packet(1))
    book.run().finish()
    assert book.outcome is Outcome.COMPLETED
    assert written(book) == [0, 1]
    assert any(isinstance(command, LoadConfig) for command in book.commands)
    assert book.stderr == []
    assert book.rules == []
    device = book.state.devices[0]
    assert (device.buffers, device.queued, device.waiting) == (2, len(CONFIG), len(CONFIG))


def test_steps_are_look_write_look() -> None:
    book = Playbook().setup().main(SWITCHOVER)
    phases = [book.phase, book.step().phase, book.receive(0, packet(0)).phase]
    phases += [book.step().phase for _ in range(3)]
    assert phases == [
        LoadPhase.SPAWNED,
        LoadPhase.STARVED,
        LoadPhase.LOOKING,
        LoadPhase.WRITING,
        LoadPhase.LOOKING,
        LoadPhase.STARVED,
    ]
    assert book.traced("vfio_load_state_device_buffer_starved") == [(0, 0), (0, 1)]


def test_every_arrival_wakes_a_starved_thread() -> None:
    book = Playbook().switch_over()
    for idx in (3, 2, 1):
        book.receive(0, packet(idx)).run()
    assert book.traced("vfio_load_state_device_buffer_starved") == [(0, 0)] * 4


def test_empty_buffers_are_passed_over() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(0, b""), packet(1), packet(2, config=True)).run()
    assert book.traced("vfio_load_state_device_buffer_load_start") == [(0, 1)]
    assert book.traced("vfio_load_state_device_buffer_start") == [(0,)]
    assert book.phase is LoadPhase.LOADED


def test_device_without_data_has_its_config_first() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(0, config=True)).run()
    assert book.phase is LoadPhase.LOADED
    assert book.traced("vfio_load_state_device_buffer_start") == []


def test_buffers_end_shows_only_if_the_config_is_there() -> None:
    early = Playbook().switch_over().receive(0, packet(1, config=True), packet(0)).run()
    late = Playbook().switch_over().receive(0, packet(0)).run().receive(0, packet(1, config=True))
    assert early.traced("vfio_load_state_device_buffer_end") == [(0,)]
    assert late.run().traced("vfio_load_state_device_buffer_end") == []


def test_data_above_the_config_is_never_looked_at() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(1, config=True), packet(5), packet(0)).run().finish()
    assert book.outcome is Outcome.COMPLETED
    assert written(book) == [0]


# The catalogue of crashes.


def test_c1_config_at_the_idx_being_written_aborts() -> None:
    book = Playbook().switch_over().receive(0, packet(0)).step()
    assert book.phase is LoadPhase.WRITING
    book.receive(1, packet(0, config=True)).step(2)
    assert book.outcome is Outcome.ABORTED
    assert "config-lowered" in book.rules
    assert book.ends == [
        Abort(
            "hw/vfio/migration-multifd.c:366: vfio_load_bufs_thread: Assertion"
            " `multifd->load_buf_idx <= multifd->load_buf_idx_last' failed."
        )
    ]


def test_config_below_a_starved_idx_only_fails_the_channel() -> None:
    book = Playbook().switch_over().receive(0, packet(0), packet(1)).run()
    book.receive(1, packet(0, config=True)).run()
    assert book.phase is LoadPhase.STARVED
    assert book.state.devices[0].last == 0
    assert book.state.error == "NAME: state buffer 0 already filled"


def test_c2_second_switchover_aborts() -> None:
    book = Playbook().switch_over().main(SWITCHOVER)
    assert book.outcome is Outcome.ABORTED
    assert book.stderr == [
        "hw/vfio/migration-multifd.c:676: vfio_multifd_switchover_start: Assertion"
        " `!multifd->load_bufs_thread_running' failed."
    ]


def test_second_switchover_after_loading_loads_the_config_again() -> None:
    book = Playbook().switch_over().receive(0, packet(0), packet(1, config=True)).run()
    book.main(SWITCHOVER).run()
    assert book.phase is LoadPhase.LOADED
    assert book.traced("vfio_load_device_config_state_end") == [(0,), (0,)]


def test_second_switchover_after_a_failed_write_fails_again() -> None:
    book = Playbook(with_device(mtty_ports=1)).switch_over().receive(0, packet(0, bytes(61))).run()
    assert book.state.error == "NAME: writing state buffer 0 failed: 12"
    book.main(SWITCHOVER).run()
    assert book.phase is LoadPhase.FAILED
    assert book.rules.count("device-write") == 2


def test_c3_config_changed_while_waiting_for_load_ready_aborts() -> None:
    book = Playbook(LATE_CONFIG).switch_over()
    book.receive(0, packet(0), packet(1, config=True)).run()
    assert book.phase is LoadPhase.AWAITING
    book.receive(1, packet(3, config=True))
    book.main(SectionStart(2, DEVICE, type=SectionType.FULL), LOAD_READY).step()
    assert book.outcome is Outcome.ABORTED
    assert book.rules[-1] == "config-changed-while-waiting"
    assert "load_buf_idx == multifd->load_buf_idx_last' failed." in book.stderr[-1]


def test_c4_packet_between_the_halves_of_the_setup_aborts() -> None:
    book = Playbook().connect()
    for item in (Deliver(None, FileHeader()), Deliver(None, Configuration(MACHINE))):
        book.do(item)
    book.do(Step(MAIN))
    assert book.state.devices[0].transfer
    book.receive(0, packet(0))
    assert book.outcome is Outcome.ABORTED
    assert book.rules == ["loader-missing"]


def test_packet_before_the_setup_is_refused() -> None:
    book = Playbook().connect().receive(0, packet(0))
    assert book.state.error == "NAME: got device state packet but not doing multifd transfer"
    assert book.state.receivers[1] is not None
    assert book.state.receivers[1].phase is ReceivePhase.ENDED


def test_c5_huge_idx_aborts() -> None:
    book = Playbook().switch_over().receive(0, packet(0xFFFFFFFE))
    assert book.outcome is Outcome.ABORTED
    assert book.stderr == ["GLib: ../../../glib/gmem.c:207: failed to allocate 137438953472 bytes"]
    assert book.rules == ["idx-allocation"]


def test_huge_idx_is_fine_with_enough_memory() -> None:
    book = Playbook(replace(DESTINATION, memory=1 << 40)).switch_over()
    book.receive(0, packet(0xFFFFFFFE))
    assert book.outcome is None
    assert book.state.devices[0].length == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("length", "size"), [(0, 0), (1, 32), (2, 64), (3, 128), (5, 128), (6, 256)]
)
def test_arrays_grow_by_powers_of_two(length: int, size: int) -> None:
    assert array_size(length) == size


def test_c6_packet_that_cannot_be_allocated_aborts() -> None:
    book = Playbook(replace(DESTINATION, memory=1 << 30)).switch_over()
    outcomes = [book.receive(0, Announced(size)).outcome for size in (1 << 30, (1 << 32) - 1)]
    assert outcomes == [None, Outcome.ABORTED]
    assert book.stderr == ["GLib: failed to allocate 4294967295 bytes"]
    whole = Playbook(replace(DESTINATION, memory=1 << 30)).switch_over()
    whole.receive(0, replace(packet(0), next_packet_size=(1 << 32) - 1, is_cut=True))
    assert whole.stderr == book.stderr


def test_c7_unlimited_queueing_ends_with_the_memory() -> None:
    book = Playbook(replace(DESTINATION, memory=1 << 20)).switch_over()
    idx = 1
    while book.outcome is None:
        book.receive(0, packet(idx, Blob(1 << 16, ("multifd-0", idx))))
        idx += 1
    assert book.outcome is Outcome.ABORTED
    assert book.rules == ["memory-exhausted"]
    assert book.ends == [Abort(None)]
    assert idx == 17


def test_queue_limit_of_later_releases() -> None:
    limited = replace(DESTINATION, profile=PROFILES["10.2"], max_queued=10)
    book = Playbook(limited).switch_over().receive(0, packet(1, bytes(10)))
    book.receive(0, packet(2, b"x"))
    assert book.state.error == ("NAME: queuing state buffer 2 would exceed the size max of 10")
    device = book.state.devices[0]
    assert (device.queued, 2 in device.slots) == (11, False)
    unlimited = Playbook(replace(limited, profile=PROFILES["10.0"])).switch_over()
    assert unlimited.receive(0, packet(1, bytes(99))).state.error is None


# Endless waits.


def test_h1_gap_starves() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(0), packet(2), packet(3, config=True)).run().finish()
    assert book.is_stuck
    assert book.state.main.phase is MainPhase.JOINING
    assert (book.phase, book.state.devices[0].cur) == (LoadPhase.STARVED, 1)


def test_h2_device_that_only_the_destination_has_starves() -> None:
    devices = (*DESTINATION.devices, replace(DESTINATION.devices[0], idstr="0000:00:06.0/vfio"))
    book = Playbook(replace(DESTINATION, devices=devices)).switch_over()
    book.receive(0, packet(0, config=True)).run().finish()
    assert book.is_stuck
    assert [device.phase for device in book.state.devices] == [LoadPhase.LOADED, LoadPhase.STARVED]


def test_h3_load_ready_that_never_comes() -> None:
    book = Playbook(LATE_CONFIG).switch_over().receive(0, packet(0, config=True)).run().finish()
    assert book.is_stuck
    assert book.phase is LoadPhase.AWAITING


def test_load_ready_lets_the_config_load() -> None:
    book = Playbook(LATE_CONFIG).switch_over().receive(0, packet(0, config=True)).run()
    book.main(SectionStart(2, DEVICE, type=SectionType.FULL), LOAD_READY, Footer(2)).run()
    assert book.phase is LoadPhase.LOADED


def test_load_ready_before_the_config_is_remembered() -> None:
    book = Playbook(LATE_CONFIG).switch_over()
    book.main(SectionStart(2, DEVICE, type=SectionType.FULL), LOAD_READY, Footer(2))
    book.receive(0, packet(0, config=True)).run()
    assert book.phase is LoadPhase.LOADED


def test_h5_lock_cycle_between_three_threads() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    assert book.phase is LoadPhase.LOADING
    book.receive(1, packet(1))
    book.main(SectionPart(1, SectionType.END), FLUSH)
    book.receive(0, SYNC)
    assert book.blocked(Step(loader(0))) == "the main thread holds the big lock"
    assert book.blocked(Deliver(1, SYNC)) == "the receive thread is locked"
    assert book.is_stuck


def test_packet_waits_for_the_config_and_is_stored_then() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    book.receive(1, packet(1))
    assert book.traced("vfio_load_state_device_buffer_incoming")[-1] == (0, 1)
    assert 1 not in book.state.devices[0].slots
    book.step()
    assert book.phase is LoadPhase.LOADED
    assert 1 in book.state.devices[0].slots
    assert book.state.receivers[1] is not None
    assert book.state.receivers[1].phase is ReceivePhase.READING


def test_waiting_packet_may_be_a_duplicate() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    book.receive(1, packet(0)).step()
    assert book.state.error == "NAME: state buffer 0 already filled"


def test_lock_cycle_in_the_cleanup() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    book.receive(1, packet(1)).main(SectionStart(99, "nobody"))
    assert book.state.main.phase is MainPhase.STUCK
    assert "lock-cycle" in book.rules
    assert book.is_stuck


def test_h6_device_that_takes_no_data() -> None:
    book = Playbook(with_device(write_hangs=True)).switch_over().receive(0, packet(0)).run()
    assert book.phase is LoadPhase.WRITING
    assert book.blocked(Step(loader(0))) == "the device does not take the data"
    book.main(SectionStart(99, "nobody"))
    assert book.state.main.phase is MainPhase.STUCK
    assert "device-write-hangs" in book.rules


def test_l1_without_switchover_the_state_is_dropped() -> None:
    book = Playbook(with_device(mtty_ports=1)).setup()
    book.receive(0, packet(0), packet(1, config=True)).finish()
    assert book.outcome is Outcome.COMPLETED
    assert book.state.devices[0].reset
    assert book.phase is LoadPhase.IDLE


# Several configs.


def test_second_config_above_makes_data_of_the_first() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(1, config=True), packet(2, config=True), packet(0)).run()
    assert written(book) == [0, 1]
    assert book.phase is LoadPhase.LOADED
    assert "config-twice" in book.rules


def test_second_config_below_wins() -> None:
    book = Playbook().switch_over()
    book.receive(0, packet(2, config=True), packet(1, config=True), packet(0)).run()
    assert written(book) == [0]
    assert book.phase is LoadPhase.LOADED


def test_config_at_the_idx_of_stored_data_makes_a_config_of_it() -> None:
    book = Playbook().switch_over().receive(0, packet(1, b"12345678"))
    book.receive(0, packet(1, config=True)).run()
    book_error = book.state.error
    assert book_error == "NAME: state buffer 1 already filled"
    late = Playbook().switch_over().receive(0, packet(1, b"12345678")).receive(1, packet(0))
    late.receive(0, packet(1, config=True)).run()
    assert late.phase is LoadPhase.FAILED
    assert late.traced("vfio_load_bufs_thread_end") == [(0,)]


# Cleanup.


@pytest.mark.parametrize(
    ("steps", "phase"),
    [(0, LoadPhase.SPAWNED), (1, LoadPhase.LOOKING), (2, LoadPhase.WRITING)],
)
def test_cleanup_cancels_load_threads(steps: int, phase: LoadPhase) -> None:
    book = Playbook().setup().main(SWITCHOVER)
    if steps:
        book.step()
    book.receive(0, packet(0)).step(max(0, steps - 1))
    assert book.phase is phase
    book.main(SectionStart(99, "nobody"))
    assert book.outcome is Outcome.FAILED
    assert book.phase is LoadPhase.FAILED
    assert book.state.devices[0].cancelled
    assert book.traced("vfio_load_bufs_thread_end") == [(0,)]
    assert isinstance(book.ends[0], Fail)


def test_cleanup_finishes_a_write_that_fails() -> None:
    book = Playbook(with_device(mtty_ports=1)).switch_over().receive(0, packet(0, bytes(61))).step()
    book.main(SectionStart(99, "nobody"))
    assert book.phase is LoadPhase.FAILED
    assert not book.state.devices[0].cancelled


def test_cleanup_lets_a_config_load() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).step()
    book.main(SectionStart(99, "nobody"))
    assert book.outcome is Outcome.FAILED
    assert book.phase is LoadPhase.LOADED


# Events that cannot happen.


def test_steps_that_cannot_be_taken() -> None:
    book = Playbook().setup()
    assert book.blocked(Step(loader(0))) == "the load thread is idle"
    assert book.blocked(Step(loader(7))) == "there is no such device"
    assert book.blocked(Step(MAIN)) == "there is nothing to set up"
