# SPDX-License-Identifier: GPL-2.0-or-later
"""Legal moves of the three kinds of thread, as data.

1. A phase is where a thread can be found between two events. What it does in one go, without
   letting others in, has no phase.
2. A cause is why it moves. A pair of phase and cause that is not in the table cannot happen:
   the loader then reports the event as blocked.
3. Where a pair has several outcomes, they depend on what was received so far.

The same tables are followed by the code, drawn in ``docs/loader-model.md``, and walked through by
a test that tries every cause in every phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias


class ReceivePhase(Enum):
    """Where a multifd receive thread is (multifd.c:multifd_recv_thread)."""

    READING = "reading"
    """Waits for its channel's next packet."""
    SYNCING = "syncing"
    """Has processed a SYNC packet and waits for the main thread."""
    LOCKED = "locked"
    """Has a device packet and waits for the mutex that the load thread holds."""
    ENDED = "ended"
    """The channel ended, or an error did it in."""


class ReceiveCause(Enum):
    """Why a receive thread moves."""

    PACKET = "packet"
    """A packet that is processed."""
    SYNC = "SYNC"
    BAD = "bad packet"
    """A packet that is refused."""
    CONTENDED = "device packet while the config is loaded"
    UNLOCKED = "config loaded"
    """The mutex is free again."""
    RELEASED = "flush complete"
    """The main thread has collected a SYNC from every channel."""
    CLOSED = "end of channel"
    TERMINATED = "terminated"
    """Another thread failed, or the migration is over."""


class LoadPhase(Enum):
    """Where a device's load thread is (vfio/migration-multifd.c:vfio_load_bufs_thread)."""

    IDLE = "idle"
    """There is no thread yet."""
    SPAWNED = "spawned"
    """SWITCHOVER_START was seen, the thread has not run yet."""
    LOOKING = "looking"
    """About to look whether the next buffer is there."""
    STARVED = "starved"
    """Waits for the next buffer."""
    WRITING = "writing"
    """Writes a buffer to the device; the mutex is free."""
    AWAITING = "awaiting"
    """Waits for DEV_CONFIG_LOAD_READY."""
    READY = "ready"
    """Has been told to load the config."""
    LOADING = "loading"
    """Loads the config: holds the mutex and wants the big lock."""
    LOADED = "loaded"
    FAILED = "failed"
    CRASHED = "crashed"
    """An assertion killed the destination."""


class LoadCause(Enum):
    """Why a device's loader moves."""

    SWITCHOVER = "SWITCHOVER_START"
    BUFFER = "buffer"
    """A packet was stored."""
    STEP = "step"
    """The thread goes on."""
    LOAD_READY = "LOAD_READY"
    CLEANUP = "cleanup"
    """The destination gives up."""


class MainPhase(Enum):
    """Where the main thread is (savevm.c:qemu_loadvm_state)."""

    CONNECTING = "connecting"
    """Waits until the main channel and all multifd channels are there."""
    HEADER = "header"
    CONFIGURATION = "configuration"
    SETUP = "setup"
    """Puts the devices in RESUMING, one half-step after the other."""
    ELEMENT = "element"
    """Wants a section, a command or the end."""
    SECTION = "section"
    """Reads a section's body."""
    FOOTER = "footer"
    """Wants a section's footer."""
    SYNCING = "syncing"
    """Collects a SYNC from every channel, with the big lock held."""
    JOINING = "joining"
    """Has seen the end and waits for the load threads."""
    DESCRIPTION = "description"
    """Reads the vmdescription."""
    DONE = "done"
    """The guest runs."""
    FAILED = "failed"
    CRASHED = "crashed"
    STUCK = "stuck"
    """Holds the big lock in the cleanup and waits for a thread that wants it."""


class MainCause(Enum):
    """Why the main thread moves."""

    CONNECTED = "all channels connected"
    HEADER = "file header"
    CONFIGURATION = "configuration"
    STEP = "step"
    START = "section header"
    BODY = "record"
    """A record, a marker, an opaque body or the vmdescription."""
    FOOTER = "footer"
    COMMAND = "command"
    FLUSH = "flush"
    """MULTIFD_FLUSH, or what stands for it."""
    SYNCED = "last SYNC"
    EOF = "EOF"
    """The byte that ends the stream."""
    THREADS = "load threads done"
    ERROR = "error"
    """What was read is wrong, or the stream ended."""
    ASSERTION = "assertion"
    """Of whatever thread: it ends all of them."""
    LOST = "bytes not captured"


Phase: TypeAlias = ReceivePhase | LoadPhase | MainPhase
Cause: TypeAlias = ReceiveCause | LoadCause | MainCause

_R: Final = ReceivePhase
_RC: Final = ReceiveCause
_L: Final = LoadPhase
_LC: Final = LoadCause
_M: Final = MainPhase
_MC: Final = MainCause

RECEIVE_MOVES: Final[Mapping[tuple[ReceivePhase, ReceiveCause], frozenset[ReceivePhase]]] = {
    (_R.READING, _RC.PACKET): frozenset({_R.READING}),
    (_R.READING, _RC.SYNC): frozenset({_R.SYNCING}),
    (_R.READING, _RC.BAD): frozenset({_R.ENDED}),
    (_R.READING, _RC.CONTENDED): frozenset({_R.LOCKED}),
    (_R.READING, _RC.CLOSED): frozenset({_R.ENDED}),
    (_R.READING, _RC.TERMINATED): frozenset({_R.ENDED}),
    (_R.SYNCING, _RC.RELEASED): frozenset({_R.READING}),
    (_R.SYNCING, _RC.TERMINATED): frozenset({_R.ENDED}),
    (_R.LOCKED, _RC.UNLOCKED): frozenset({_R.READING, _R.ENDED}),
    (_R.LOCKED, _RC.TERMINATED): frozenset({_R.ENDED}),
}

_LOOK_OUTCOMES: Final = frozenset(
    {_L.STARVED, _L.WRITING, _L.AWAITING, _L.LOADING, _L.CRASHED, _L.FAILED, _L.LOOKING}
)
_RUNNING: Final = (
    _L.SPAWNED,
    _L.LOOKING,
    _L.STARVED,
    _L.WRITING,
    _L.AWAITING,
    _L.READY,
    _L.LOADING,
)

LOAD_MOVES: Final[Mapping[tuple[LoadPhase, LoadCause], frozenset[LoadPhase]]] = {
    (_L.IDLE, _LC.SWITCHOVER): frozenset({_L.SPAWNED}),
    (_L.LOADED, _LC.SWITCHOVER): frozenset({_L.SPAWNED}),
    (_L.FAILED, _LC.SWITCHOVER): frozenset({_L.SPAWNED}),
    **{(phase, _LC.SWITCHOVER): frozenset({_L.CRASHED}) for phase in _RUNNING},
    (_L.STARVED, _LC.BUFFER): frozenset({_L.LOOKING}),
    (_L.SPAWNED, _LC.STEP): _LOOK_OUTCOMES,
    (_L.LOOKING, _LC.STEP): _LOOK_OUTCOMES,
    (_L.WRITING, _LC.STEP): frozenset({_L.LOOKING, _L.FAILED}),
    (_L.READY, _LC.STEP): frozenset({_L.LOADING, _L.FAILED, _L.CRASHED}),
    (_L.LOADING, _LC.STEP): frozenset({_L.LOADED, _L.FAILED}),
    (_L.AWAITING, _LC.LOAD_READY): frozenset({_L.READY}),
    **{
        (phase, _LC.CLEANUP): frozenset({_L.FAILED})
        for phase in _RUNNING
        if phase is not _L.LOADING
    },
    (_L.LOADING, _LC.CLEANUP): frozenset({_L.LOADED, _L.FAILED}),
}

_READING: Final = (
    _M.HEADER,
    _M.CONFIGURATION,
    _M.ELEMENT,
    _M.SECTION,
    _M.FOOTER,
)
_LIVE: Final = (_M.CONNECTING, *_READING, _M.SETUP, _M.SYNCING, _M.JOINING, _M.DESCRIPTION)

MAIN_MOVES: Final[Mapping[tuple[MainPhase, MainCause], frozenset[MainPhase]]] = {
    (_M.CONNECTING, _MC.CONNECTED): frozenset({_M.HEADER}),
    (_M.HEADER, _MC.HEADER): frozenset({_M.CONFIGURATION, _M.SETUP, _M.ELEMENT}),
    (_M.CONFIGURATION, _MC.CONFIGURATION): frozenset({_M.SETUP, _M.ELEMENT}),
    (_M.SETUP, _MC.STEP): frozenset({_M.SETUP, _M.ELEMENT, _M.FAILED}),
    (_M.ELEMENT, _MC.START): frozenset({_M.SECTION}),
    (_M.ELEMENT, _MC.COMMAND): frozenset({_M.ELEMENT}),
    (_M.ELEMENT, _MC.EOF): frozenset({_M.JOINING}),
    (_M.SECTION, _MC.BODY): frozenset({_M.SECTION, _M.FOOTER, _M.ELEMENT}),
    (_M.SECTION, _MC.FLUSH): frozenset({_M.SYNCING}),
    (_M.SYNCING, _MC.SYNCED): frozenset({_M.SECTION, _M.FOOTER, _M.ELEMENT}),
    (_M.FOOTER, _MC.FOOTER): frozenset({_M.ELEMENT}),
    (_M.JOINING, _MC.THREADS): frozenset({_M.DESCRIPTION, _M.DONE}),
    (_M.DESCRIPTION, _MC.BODY): frozenset({_M.DONE}),
    (_M.HEADER, _MC.LOST): frozenset({_M.SETUP, _M.ELEMENT}),
    (_M.CONFIGURATION, _MC.LOST): frozenset({_M.SETUP, _M.ELEMENT}),
    **{(phase, _MC.LOST): frozenset({_M.ELEMENT}) for phase in _READING[2:]},
    **{(phase, _MC.ERROR): frozenset({_M.FAILED, _M.STUCK}) for phase in _LIVE},
    **{(phase, _MC.ASSERTION): frozenset({_M.CRASHED}) for phase in _LIVE},
}
