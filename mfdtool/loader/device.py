# SPDX-License-Identifier: GPL-2.0-or-later
"""Load threads, and the buffers that wait for them (vfio/migration-multifd.c).

A load thread runs from one release of the device's mutex to the next; those are its steps:

- *look* (SPAWNED, LOOKING): is the next buffer there, is it the config?
- *write* (WRITING): the mutex is free meanwhile, so packets may arrive before the step is taken.
- *load the config* (READY, LOADING): the mutex is held, and the big lock is needed.

Data is written strictly by idx. ``last`` is the idx of the latest config packet, so it can change
under the thread's feet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mfdtool.loader.commands import LoadConfig, WriteBuffer
from mfdtool.loader.config import first_marker, load_config
from mfdtool.loader.errno import EFAULT
from mfdtool.loader.events import loader
from mfdtool.loader.moves import LOAD_MOVES, LoadCause, LoadPhase
from mfdtool.loader.state import UNKNOWN_LAST
from mfdtool.wire.constants import VFIOMarker

if TYPE_CHECKING:
    from mfdtool.loader.blob import Blob
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.events import DevicePacket
    from mfdtool.loader.state import State
    from mfdtool.loader.turn import Turn

SLOT_SIZE: Final = 24
"""sizeof(VFIOStateBuffer) on a 64-bit host."""

_FILE: Final = "hw/vfio/migration-multifd.c"
_SWITCHOVER_LINES: Final = {"10.0": 676}
_LOAD_THREAD_LINES: Final = {"10.0": 366}
"""Where the assertions are, in the releases that were seen to fail them."""

_REALLOC_LINE: Final = 207


def array_size(length: int) -> int:
    """Bytes that GLib allocates for an array of so many slots: a power of two."""
    return 1 << (SLOT_SIZE * length - 1).bit_length() if length else 0


def insert(turn: Turn, number: int, packet: DevicePacket) -> str:
    """Store a packet (vfio_load_state_buffer_insert); give the error, empty if there is none."""
    device = turn.devices[number]
    idx = packet.idx
    assert idx is not None
    if packet.is_config:
        _note_lowered(turn, number, idx)
        device = turn.set_device(number, last=idx)
    if idx >= device.length and not _grow(turn, number, idx + 1):
        return ""
    if device.is_filled(idx):
        turn.violate("idx-duplicate", f"idx {idx} is there already", number)
        return f"NAME: state buffer {idx} already filled"
    queued = device.queued + packet.data.length
    turn.set_device(number, queued=queued)
    limit = turn.destination.max_queued
    if turn.profile.has_queue_limit and queued > limit:
        turn.violate("queue-limit", f"{queued} bytes would wait, {limit} may", number)
        return f"NAME: queuing state buffer {idx} would exceed the size max of {limit}"
    device = turn.set_device(
        number,
        slots=turn.devices[number].slots.put(idx, packet.data),
        waiting=device.waiting + packet.data.length,
    )
    if memory_in_use(turn) > turn.destination.memory:
        turn.violate("memory-exhausted", f"{memory_in_use(turn)} bytes wait in memory", number)
        turn.abort(None)
    elif device.phase is LoadPhase.STARVED:
        turn.move_device(number, LoadCause.BUFFER, LoadPhase.LOOKING)
    return ""


def memory_in_use(turn: Turn) -> int:
    """Count the bytes of buffers that wait, and of the arrays that they wait in."""
    return sum(device.waiting + array_size(device.length) for device in turn.devices)


def switch_over(turn: Turn, number: int) -> None:
    """Start a device's load thread (vfio_multifd_switchover_start)."""
    phase = turn.devices[number].phase
    if phase in {LoadPhase.IDLE, LoadPhase.LOADED, LoadPhase.FAILED}:
        turn.move_device(number, LoadCause.SWITCHOVER, LoadPhase.SPAWNED)
        return
    turn.violate("switchover-twice", "the load thread is running already", number)
    turn.move_device(number, LoadCause.SWITCHOVER, LoadPhase.CRASHED)
    turn.fail_assertion(
        f"{_FILE}:vfio_multifd_switchover_start",
        "!multifd->load_bufs_thread_running",
        _SWITCHOVER_LINES.get(turn.profile.name),
    )


def load_ready(turn: Turn, number: int) -> None:
    """Let the load thread go on to the config (vfio_load_state_config_load_ready)."""
    device = turn.set_device(number, iter_done=True)
    if device.phase is LoadPhase.AWAITING:
        turn.move_device(number, LoadCause.LOAD_READY, LoadPhase.READY)


def why_not(destination: Destination, state: State, number: int) -> str:
    """Say why a load thread cannot take a step; empty if it can."""
    if number >= len(state.devices):
        return "there is no such device"
    phase = state.devices[number].phase
    if phase in _IDLE:
        return _IDLE[phase]
    if phase is LoadPhase.WRITING and destination.devices[number].write_hangs:
        return "the device does not take the data"
    if phase is LoadPhase.LOADING and state.main.holds_big_lock:
        return "the main thread holds the big lock"
    return ""


def step(turn: Turn, number: int) -> bool:
    """Let a load thread take one step; give whether the device's mutex was released by it."""
    held = turn.devices[number].phase is LoadPhase.LOADING
    _STEPS[turn.devices[number].phase](turn, number)
    return held


def cancel(turn: Turn, number: int) -> bool:
    """End a load thread in the cleanup (vfio_load_cleanup_load_bufs_thread).

    False if it does not end: it waits for a device that takes no data.
    """
    phase = turn.devices[number].phase
    if (phase, LoadCause.CLEANUP) not in LOAD_MOVES:
        return True
    if phase is LoadPhase.WRITING and turn.destination.devices[number].write_hangs:
        return False
    if phase is LoadPhase.LOADING:
        _load(turn, number)
        return True
    if phase is LoadPhase.SPAWNED:
        turn.trace(loader(number), "vfio_load_bufs_thread_start", number)
    if phase is LoadPhase.WRITING:
        _write(turn, number)
        if turn.devices[number].phase is LoadPhase.FAILED:
            return True
    turn.set_device(number, cancelled=True)
    _end(turn, number, "operation cancelled", cause=LoadCause.CLEANUP)
    return True


def _look(turn: Turn, number: int) -> None:
    """Do what there is to do at the next idx, with the mutex held."""
    device = turn.devices[number]
    actor = loader(number)
    if device.phase is LoadPhase.SPAWNED:
        turn.trace(actor, "vfio_load_bufs_thread_start", number)
    if device.cur > device.last:
        turn.violate(
            "config-lowered", f"the config is at idx {device.last}, next is {device.cur}", number
        )
        turn.move_device(number, LoadCause.STEP, LoadPhase.CRASHED)
        turn.fail_assertion(
            f"{_FILE}:vfio_load_bufs_thread",
            "multifd->load_buf_idx <= multifd->load_buf_idx_last",
            _LOAD_THREAD_LINES.get(turn.profile.name),
        )
        return
    blob = device.slots.get(device.cur)
    if blob is None:
        turn.trace(actor, "vfio_load_state_device_buffer_starved", number, device.cur)
        turn.move_device(number, LoadCause.STEP, LoadPhase.STARVED)
    elif device.cur == device.last:
        if turn.destination.config_after_iter and not device.iter_done:
            turn.move_device(number, LoadCause.STEP, LoadPhase.AWAITING)
        else:
            _begin_config(turn, number)
    else:
        _begin_buffer(turn, number, blob)


def _begin_buffer(turn: Turn, number: int, blob: Blob) -> None:
    device = turn.devices[number]
    actor = loader(number)
    if not device.cur:
        turn.trace(actor, "vfio_load_state_device_buffer_start", number)
    if blob.length:
        turn.trace(actor, "vfio_load_state_device_buffer_load_start", number, device.cur)
        turn.move_device(number, LoadCause.STEP, LoadPhase.WRITING)
    else:
        turn.move_device(number, LoadCause.STEP, LoadPhase.LOOKING)
        _advance(turn, number)


def _write(turn: Turn, number: int) -> None:
    """Finish the write of the buffer at ``cur``."""
    device = turn.devices[number]
    blob = device.slots.get(device.cur)
    assert blob is not None
    # The buffer is handed over once; a thread that is started again finds none (write(fd, NULL)).
    errno, message = EFAULT, f"the device refuses buffer {device.cur}"
    if not device.taken:
        errno, message = turn.write(number, device.cur, blob)
        device = turn.set_device(number, taken=True)
    if errno:
        turn.violate("device-write", message, number, blob.key)
        error = f"NAME: writing state buffer {device.cur} failed: {errno}"
        _end(turn, number, error, cause=LoadCause.STEP)
        return
    turn.do(WriteBuffer(number, device.cur, blob))
    turn.trace(loader(number), "vfio_load_state_device_buffer_load_end", number, device.cur)
    turn.set_device(
        number,
        queued=device.queued - blob.length,
        waiting=device.waiting - blob.length,
        buffers=device.buffers + 1,
        taken=False,
    )
    turn.move_device(number, LoadCause.STEP, LoadPhase.LOOKING)
    _advance(turn, number)


def _advance(turn: Turn, number: int) -> None:
    """Go on to the next idx."""
    device = turn.devices[number]
    if device.cur == device.last - 1:
        turn.trace(loader(number), "vfio_load_state_device_buffer_end", number)
    turn.set_device(number, cur=device.cur + 1, slots=device.slots.without(device.cur))


def _ready(turn: Turn, number: int) -> None:
    """Go on after DEV_CONFIG_LOAD_READY, if nothing changed while waiting."""
    device = turn.devices[number]
    if device.cur == device.last:
        _begin_config(turn, number)
        return
    turn.violate(
        "config-changed-while-waiting",
        f"the config was at idx {device.cur}, now it is at {device.last}",
        number,
    )
    turn.move_device(number, LoadCause.STEP, LoadPhase.CRASHED)
    turn.fail_assertion(
        f"{_FILE}:vfio_load_bufs_thread_load_config",
        "multifd->load_buf_idx == multifd->load_buf_idx_last",
    )


def _begin_config(turn: Turn, number: int) -> None:
    """Look at the config's first marker (vfio_load_bufs_thread_load_config)."""
    device = turn.devices[number]
    blob = device.slots.get(device.cur)
    assert blob is not None
    word = first_marker(blob.head(8))
    if not blob.missing and word != VFIOMarker.DEV_CONFIG_STATE:
        message = f"the config at idx {device.cur} begins with {word:#x}"
        turn.violate("config-marker", message, number, blob.key)
        error = f"NAME: expected FLAG_DEV_CONFIG_STATE but got {word:x}"
        _end(turn, number, error, cause=LoadCause.STEP)
        return
    turn.move_device(number, LoadCause.STEP, LoadPhase.LOADING)


def _load(turn: Turn, number: int) -> None:
    """Load the config, with both locks held."""
    device = turn.devices[number]
    blob = device.slots.get(device.cur)
    assert blob is not None
    errno = load_device_config(turn, number, blob)
    if errno:
        error = f"NAME: vfio_load_device_config_state() failed: -{errno}"
        _end(turn, number, error, cause=LoadCause.STEP)
    else:
        _end(turn, number, "", cause=LoadCause.STEP)


def load_device_config(turn: Turn, number: int, blob: Blob) -> int:
    """Load a config on whatever thread; give the errno (vfio_load_device_config_state)."""
    actor = loader(number)
    turn.trace(actor, "vfio_load_device_config_state_start", number)
    if not blob.missing:
        data = b"".join(blob.pieces())
        result = load_config(turn.profile, turn.destination.devices[number], data)
        for line in result.printed:
            turn.print(line)
        if result.errno:
            turn.violate(result.rule, result.printed[0], number, blob.key)
            return result.errno
        if result.trailing:
            message = f"{result.trailing} bytes follow the config"
            turn.violate("config-trailing", message, number, blob.key)
    turn.do(LoadConfig(number, blob))
    turn.trace(actor, "vfio_load_device_config_state_end", number)
    turn.set_device(number, config_loaded=True)
    return 0


def _end(turn: Turn, number: int, error: str, *, cause: LoadCause) -> None:
    """End a load thread; without an error it has done its work."""
    turn.move_device(number, cause, LoadPhase.FAILED if error else LoadPhase.LOADED)
    turn.trace(loader(number), "vfio_load_bufs_thread_end", number)
    if error:
        turn.record(error)


def _note_lowered(turn: Turn, number: int, idx: int) -> None:
    """Say that a config packet is not the first."""
    last = turn.devices[number].last
    if last not in {UNKNOWN_LAST, idx}:
        turn.violate("config-twice", f"the config was at idx {last}, now it is at {idx}", number)


def _grow(turn: Turn, number: int, length: int) -> bool:
    """Make the array longer; False if that kills the destination."""
    turn.set_device(number, length=length)
    size = array_size(length)
    if size <= turn.destination.memory:
        return True
    turn.violate("idx-allocation", f"idx {length - 1} takes an array of {size} bytes", number)
    turn.fail_allocation(size, line=_REALLOC_LINE)
    return False


_STEPS: Final = {
    LoadPhase.SPAWNED: _look,
    LoadPhase.LOOKING: _look,
    LoadPhase.WRITING: _write,
    LoadPhase.READY: _ready,
    LoadPhase.LOADING: _load,
}

_IDLE: Final = {
    phase: f"the load thread is {phase.value}" for phase in LoadPhase if phase not in _STEPS
}
"""What a load thread is said to be where it cannot take a step by itself."""
