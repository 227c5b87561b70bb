# SPDX-License-Identifier: GPL-2.0-or-later
"""What a destination knows between two events: frozen, hashable, equal after equal histories.

Payloads are here by reference only, and what was written to a device as a count and the few bytes
that its driver looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from mfdtool.loader.events import DevicePacket
from mfdtool.loader.models import Intake
from mfdtool.loader.moves import LoadPhase, MainPhase, ReceivePhase
from mfdtool.loader.slots import NO_SLOTS, Slots

UNKNOWN_LAST: Final = 0xFFFFFFFF
"""No config packet was seen yet (load_buf_idx_last)."""


class Outcome(StrEnum):
    """How a migration ends for the destination."""

    COMPLETED = "completed"
    """Everything is loaded, the guest runs."""
    FAILED = "failed"
    """An error is reported, the destination exits in order."""
    ABORTED = "aborted"
    """An assertion or allocation kills the process."""
    STALLED = "stalled"
    """It waits for something that nothing can bring about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One multifd channel (multifd.h:MultiFDRecvParams).

    Attributes:
        id: the handshake's channel id.
        packets: packets read so far, of any kind.
        packet_num: that of the last RAM or SYNC packet.
        credit: times that it may pass a SYNC without waiting (its own sem_sync).
        held: the device packet that waits for the device's mutex.
    """

    id: int
    phase: ReceivePhase = ReceivePhase.READING
    packets: int = 0
    packet_num: int = 0
    credit: int = 0
    held: DevicePacket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One VFIO device (vfio/migration-multifd.c:VFIOMultifd).

    Attributes:
        transfer: whether vfio_multifd_setup switched the transfer on.
        loader: whether the loader object is there.
        slots: buffers that wait, by idx; those below ``cur`` were there too.
        length: length of the buffer array.
        cur: idx to be loaded next (load_buf_idx).
        last: idx of the config packet (load_buf_idx_last).
        queued: bytes inserted and not yet written (load_buf_queued_pending_buffers_size).
        waiting: bytes of data that are in memory.
        iter_done: whether DEV_CONFIG_LOAD_READY was seen.
        taken: whether the buffer at ``cur`` was handed to write().
        buffers: multifd buffers written.
        intake: what the device has got.
        config_loaded: whether its config was loaded.
        cancelled: whether its load thread was told to give up.
        reset: whether it was reset, because it did not run with what it got.
    """

    phase: LoadPhase = LoadPhase.IDLE
    transfer: bool = False
    loader: bool = False
    slots: Slots = NO_SLOTS
    length: int = 0
    cur: int = 0
    last: int = UNKNOWN_LAST
    queued: int = 0
    waiting: int = 0
    iter_done: bool = False
    taken: bool = False
    buffers: int = 0
    intake: Intake = field(default_factory=Intake)
    config_loaded: bool = False
    cancelled: bool = False
    reset: bool = False

    def is_filled(self, idx: int) -> bool:
        """Whether the slot is marked present, also if its buffer was loaded long ago."""
        return idx < self.cur or idx in self.slots


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionState:
    """The section that the main thread is in; ``device`` is set if it is a VFIO device's."""

    section_id: int
    idstr: str
    instance_id: int
    version_id: int
    is_start: bool
    device: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Main:
    """The main thread and its stream.

    Attributes:
        after_sync: the phase to go on with when all SYNCs are there.
        setup: half-steps of the setup that are done.
        section: the section it is in.
        sections: sections known by id, from START and FULL.
        collected: SYNCs that the flush in progress has collected.
        posted: SYNCs that no flush has collected yet (sem_sync).
        packet_num: highest packet number seen at a flush.
        flushes: flushes completed.
        return_path: whether OPEN_RETURN_PATH was seen.
        acks_pending: devices that still have to report their initial data as loaded.
        switchovers: how often SWITCHOVER_START was seen.
        has_channel: whether the main channel is connected.
        packaged: whether what it reads is in a package.
        postcopy: whether another thread was started that reads what is behind the package
            (savevm.c:postcopy_ram_listen_thread); here it is the main thread all the same.
    """

    phase: MainPhase = MainPhase.CONNECTING
    after_sync: MainPhase = MainPhase.SECTION
    setup: int = 0
    section: SectionState | None = None
    sections: tuple[SectionState, ...] = ()
    collected: int = 0
    posted: int = 0
    packet_num: int = 0
    flushes: int = 0
    return_path: bool = False
    acks_pending: int = 0
    switchovers: int = 0
    has_channel: bool = False
    packaged: bool = False
    postcopy: bool = False

    @property
    def holds_big_lock(self) -> bool:
        """Whether it keeps the big lock while it waits."""
        return self.phase in {MainPhase.SYNCING, MainPhase.STUCK}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A destination.

    Attributes:
        receivers: one per accepted multifd channel, by number of connection; None for a
            connection that is no channel.
        exiting: whether the receive threads were told to end.
        outcome: how it ended; None while it lives. A destination that merely cannot go on has
            none: nothing here can know that nothing more will come.
        error: the first recorded error (migration.c:migrate_set_error).
        printed: the error that it printed last, or died with.
    """

    main: Main
    devices: tuple[Device, ...]
    receivers: tuple[Receiver | None, ...] = ()
    exiting: bool = False
    outcome: Outcome | None = None
    error: str | None = None
    printed: str | None = None
