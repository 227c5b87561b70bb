# SPDX-License-Identifier: GPL-2.0-or-later
"""How it ends: the guest runs, or the destination gives up
(migration.c:process_incoming_migration_co, migration_incoming_state_destroy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.loader.commands import Complete, Fail, Reply, Reset, SetState
from mfdtool.loader.device import cancel
from mfdtool.loader.errno import EINVAL, strerror
from mfdtool.loader.models import leave_resuming
from mfdtool.loader.moves import LoadPhase, MainCause, MainPhase, ReceiveCause, ReceivePhase
from mfdtool.loader.state import Outcome
from mfdtool.loader.turn import main_trace
from mfdtool.wire.profile import MainStreamErrors

if TYPE_CHECKING:
    from mfdtool.loader.turn import Turn

_THREAD_IS_OVER = frozenset({LoadPhase.IDLE, LoadPhase.LOADED, LoadPhase.FAILED})


def exit_early(turn: Turn, error: str) -> None:
    """Exit before the main stream is read (channel.c:migration_channel_process_incoming)."""
    turn.print(error)
    turn.record(error)
    _exit(turn, error)


def fail_loading(turn: Turn, errno: int, *, printed: tuple[str, ...] = (), cause: str = "") -> None:
    """Fail in the main stream or after it.

    ``printed`` is what older releases print where it happens, ``cause`` what later ones record
    instead, as part of the one error that they print last.
    """
    error = f"load of migration failed: {strerror(errno)}"
    if turn.profile.main_stream_errors is MainStreamErrors.PRINTED:
        for line in printed:
            turn.print(line)
    elif cause:
        error = f"{error}: {cause}"
    turn.record(error)
    if not _clean_up(turn, failed_stream=bool(printed or cause)):
        turn.move_main(MainCause.ERROR, MainPhase.STUCK)
        return
    assert turn.error is not None
    turn.print(turn.error)
    _exit(turn, turn.error)


def join(turn: Turn) -> None:
    """Go on if all load threads are done (savevm.c:qemu_loadvm_thread_pool_wait)."""
    if turn.main.phase is not MainPhase.JOINING or turn.outcome is not None:
        return
    if any(device.phase not in _THREAD_IS_OVER for device in turn.devices):
        return
    if turn.error is not None:
        fail_loading(turn, EINVAL, cause="Error while loading vmstate")
    elif turn.main.postcopy:
        # Nobody reads on: after a postcopy there is no vmdescription (savevm.c:qemu_loadvm_state).
        complete(turn, MainCause.THREADS)
    else:
        turn.move_main(MainCause.THREADS, MainPhase.DESCRIPTION)


def complete(turn: Turn, cause: MainCause) -> None:
    """Start the guest (migration.c:process_incoming_migration_bh)."""
    main_trace(turn, "multifd_recv_terminate_threads", 0)
    end_all_receivers(turn)
    _resume_devices(turn)
    if turn.outcome is not None:
        return
    _clean_up(turn, failed_stream=False)
    turn.move_main(cause, MainPhase.DONE)
    turn.outcome = Outcome.COMPLETED
    turn.do(Complete())


def end_all_receivers(turn: Turn) -> None:
    """Wake all receive threads and shut their channels down.

    A thread that has a packet in its hands keeps it until it gets the device's mutex.
    """
    turn.exiting = True
    for number, found in enumerate(list(turn.receivers)):
        if found is not None and found.phase in {ReceivePhase.READING, ReceivePhase.SYNCING}:
            turn.move_receiver(number, ReceiveCause.TERMINATED, ReceivePhase.ENDED)


def _exit(turn: Turn, error: str) -> None:
    turn.move_main(MainCause.ERROR, MainPhase.FAILED)
    turn.printed = error
    turn.outcome = Outcome.FAILED
    turn.do(Fail(error))


def _resume_devices(turn: Turn) -> None:
    """Let the devices leave RESUMING, where their drivers judge what they got.

    See QEMU vfio/migration.c:vfio_vmstate_change_prepare and vfio_vmstate_change.
    """
    specs = turn.destination.devices
    for number, spec in enumerate(specs):
        if spec.has_p2p:
            _resume(turn, number, "RUNNING_P2P")
    for number in range(len(specs)):
        if turn.outcome is None:
            _resume(turn, number, "RUNNING")


def _resume(turn: Turn, number: int, state: str) -> None:
    spec = turn.destination.devices[number]
    device = turn.devices[number]
    main_trace(turn, "vfio_migration_set_state", number, state, "ERROR")
    if device.reset:
        return
    errno = leave_resuming(spec, device.intake)
    if not errno:
        main_trace(turn, "vfio_migration_set_device_state", number, state)
        turn.do(SetState(number, state))
        return
    text = f"the device got {device.intake.size} bytes and cannot run with them"
    if not spec.can_reset:
        turn.violate("device-reset-fails", text, number)
        error = f"NAME: Failed resetting device, err: {strerror(errno)}"
        turn.abort(f"qemu: hardware error: {error}")
        return
    turn.violate("device-reset", text, number)
    turn.do(Reset(number))
    main_trace(turn, "vfio_migration_set_device_state", number, "RUNNING")
    turn.set_device(number, reset=True)
    error = (
        f"NAME: Failed setting device state to {state}. Recover state is ERROR. Resetting device:"
        f" {strerror(errno)}"
    )
    turn.print(error)
    turn.printed = error


def _clean_up(turn: Turn, *, failed_stream: bool) -> bool:
    """Free everything (migration.c:migration_incoming_state_destroy).

    False if that never ends: a receive thread waits for a load thread, which waits for the big
    lock; or a device takes no data.
    """
    main_trace(turn, "multifd_recv_terminate_threads", 0)
    end_all_receivers(turn)
    if any(found is not None and found.phase is ReceivePhase.LOCKED for found in turn.receivers):
        turn.violate("lock-cycle", "the cleanup waits for a thread that waits for it")
        return False
    main_trace(turn, "loadvm_state_cleanup")
    for number in range(len(turn.devices)):
        if not cancel(turn, number):
            turn.violate("device-write-hangs", "the device does not take the data", number)
            return False
        main_trace(turn, "vfio_load_cleanup", number)
    if turn.main.return_path:
        turn.do(Reply("SHUT", int(failed_stream)))
    return True
