# SPDX-License-Identifier: GPL-2.0-or-later
"""What kept a migration from switching over, and what happened while the guest stood.

With capability switchover-ack, the source goes on with precopy until the destination has got the
initial data of every device that has such data: each device's INIT_DATA_SENT says that, and the
last one makes the destination send SWITCHOVER_ACK (savevm.c:qemu_loadvm_approve_switchover,
migration.c:migration_can_switchover). The guest stands from SWITCHOVER_START until the destination
has loaded everything; what the wire shows of that ends with the last byte towards it.

No byte on the wire says that the capability is on: INIT_DATA_SENT and SWITCHOVER_ACK show it. A
source that waits for the first of these may do so for a device that has sent nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mfdtool.stream.devices import DeviceKey, section_key
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.phases import BEFORE_SWITCHOVER, Phase
from mfdtool.stream.values import CommandRecord, MarkerRecord, ReturnPathRecord
from mfdtool.wire.constants import Command, ReturnPathType, VFIOMarker
from mfdtool.wire.vfio import DeviceStateHeader

_DEVICES_KEPT: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From the first to the last byte of something; -1 where no time is known."""

    start_ns: int
    stop_ns: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """A VFIO device before the switchover.

    Attributes:
        key: which one.
        sent_ns: when its INIT_DATA_SENT came; None if it did not.
        has_data: whether it sent precopy data.
    """

    key: DeviceKey
    sent_ns: int | None
    has_data: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchoverSummary:
    """What is known of the switchover.

    Attributes:
        standstill: the part of the downtime that the wire shows; None if there was no switchover.
        configs: the devices' configs; None if there were none.
        ack_ns: when the destination sent SWITCHOVER_ACK; None if it did not, -1 without times.
        with_ack: whether anything shows that the capability switchover-ack is on.
        has_return_path: whether the return path was opened, without which it cannot be on.
        is_open: whether the guest ran at the source to the end of what was seen.
        devices: VFIO devices that were set up, or sent something, before the switchover.
    """

    standstill: Interval | None = None
    configs: Interval | None = None
    ack_ns: int | None = None
    with_ack: bool = False
    has_return_path: bool = False
    is_open: bool = True
    devices: tuple[Readiness, ...] = ()

    @property
    def lacking(self) -> tuple[DeviceKey, ...]:
        """Devices whose INIT_DATA_SENT the destination waits for, or waited for in vain.

        One that never had precopy data may be unable to have any: it is among them only as long
        as there was no switchover.
        """
        return tuple(device.key for device in self._silent) if self.with_ack else ()

    @property
    def suspects(self) -> tuple[Readiness, ...]:
        """What the destination waits for if switchover-ack is on, which nothing shows."""
        is_possible = self.has_return_path and self.is_open and not self.with_ack
        return self._silent if is_possible else ()

    @property
    def _silent(self) -> tuple[Readiness, ...]:
        if self.ack_ns is not None:
            return ()
        return tuple(
            device
            for device in self.devices
            if device.sent_ns is None and (device.has_data or self.is_open)
        )

    @property
    def last_ready(self) -> Readiness | None:
        """The device that kept all others waiting longest; None if none sent INIT_DATA_SENT."""
        ready = [device for device in self.devices if device.sent_ns is not None]
        return max(ready, key=lambda device: device.sent_ns or 0, default=None)


class _Stretch:
    __slots__ = ("bytes", "start", "stop")

    def __init__(self, start: int) -> None:
        self.start = self.stop = start
        self.bytes = 0

    def add(self, frame: Frame) -> None:
        self.stop = max(self.stop, frame.time_last)
        self.bytes += frame.length - frame.missing

    def interval(self) -> Interval:
        return Interval(start_ns=self.start, stop_ns=self.stop, bytes=self.bytes)


class SwitchoverTracker:
    """Follows one migration; frames must come in the order of arrival, each with its phase."""

    __slots__ = (
        "_ack",
        "_configs",
        "_is_open",
        "_ready",
        "_return_path",
        "_running",
        "_standstill",
        "_with_ack",
        "_with_data",
    )

    def __init__(self) -> None:
        self._ready: dict[DeviceKey, int | None] = {}
        self._with_data: set[DeviceKey] = set()
        self._return_path = False
        self._is_open = True
        self._ack: int | None = None
        self._with_ack = False
        self._standstill: _Stretch | None = None
        self._running = False
        self._configs: _Stretch | None = None

    def add(self, frame: Frame, phase: Phase) -> None:
        """Take the next frame, which belongs to ``phase``."""
        kind = frame.kind
        if self._is_open:
            self._is_open = phase in BEFORE_SWITCHOVER
        if kind is Kind.RETURN_PATH_MESSAGE:
            self._return_path = True
            value = frame.value
            if isinstance(value, ReturnPathRecord):
                self._message(frame, value)
            return
        if kind is Kind.VFIO_MARKER:
            self._marker(frame, phase)
        elif kind is Kind.MAIN_COMMAND:
            self._return_path |= _is_command(frame, Command.OPEN_RETURN_PATH)
        elif kind is Kind.MULTIFD_DEVICE_STATE:
            value = frame.value
            if isinstance(value, DeviceStateHeader) and value.is_config:
                self._config(frame)
        self._follow_standstill(frame, phase)

    def summary(self) -> SwitchoverSummary:
        """Give what is known."""
        return SwitchoverSummary(
            standstill=self._standstill.interval() if self._standstill is not None else None,
            configs=self._configs.interval() if self._configs is not None else None,
            ack_ns=self._ack,
            with_ack=self._with_ack,
            has_return_path=self._return_path,
            is_open=self._is_open,
            devices=tuple(
                Readiness(key=key, sent_ns=at, has_data=key in self._with_data)
                for key, at in self._ready.items()
            ),
        )

    def _follow_standstill(self, frame: Frame, phase: Phase) -> None:
        """Count what comes while the guest stands: from the switchover on, not of a snapshot."""
        if self._running:
            return
        if phase is Phase.SWITCHOVER and self._standstill is None:
            self._standstill = _Stretch(frame.time_first)
        if self._standstill is None:
            return
        self._standstill.add(frame)
        if frame.kind is Kind.MAIN_COMMAND and _is_command(frame, Command.POSTCOPY_RUN):
            self._running = True

    def _message(self, frame: Frame, value: ReturnPathRecord) -> None:
        if value.header.type == ReturnPathType.SWITCHOVER_ACK:
            self._with_ack = True
            if self._ack is None:
                self._ack = frame.time_last

    def _marker(self, frame: Frame, phase: Phase) -> None:
        value, section = frame.value, frame.section
        if not isinstance(value, MarkerRecord) or section is None:
            return
        if value.marker == VFIOMarker.DEV_CONFIG_STATE:
            self._config(frame)
            return
        if phase not in BEFORE_SWITCHOVER:
            return
        key = section_key(frame.channel.migration, section)
        if key not in self._ready and len(self._ready) == _DEVICES_KEPT:
            return
        if value.marker == VFIOMarker.DEV_INIT_DATA_SENT:
            self._with_ack = True
            self._with_data.add(key)
            if self._ready.get(key) is None:
                self._ready[key] = frame.time_last
        elif value.marker == VFIOMarker.DEV_DATA_STATE:
            self._ready.setdefault(key, None)
            self._with_data.add(key)
        elif section.idstr:
            self._ready.setdefault(key, None)

    def _config(self, frame: Frame) -> None:
        if self._configs is None:
            self._configs = _Stretch(frame.time_first)
        self._configs.add(frame)


def _is_command(frame: Frame, command: Command) -> bool:
    value = frame.value
    return isinstance(value, CommandRecord) and value.header.cmd == command
