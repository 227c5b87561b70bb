# SPDX-License-Identifier: GPL-2.0-or-later
"""What the destination is like: its release, devices and settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mfdtool.wire.constants import X86_PAGE_SIZE, MultiFDFlag
from mfdtool.wire.multifd import page_count_for
from mfdtool.wire.profile import DEFAULT_PROFILE, Profile

DEFAULT_MEMORY: Final = 16 << 30
"""Bytes that a destination can allocate, unless something else is said."""

NO_LIMIT: Final = (1 << 64) - 1
"""Default of x-migration-max-queued-buffers-size."""

RAM: Final = "ram"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A VFIO device of the destination.

    Attributes:
        idstr: the guest's path to it, and ``/vfio``.
        instance_id: as SaveVM has it; 0 finds any instance.
        transfer: whether x-migration-multifd-transfer is in effect.
        mtty_ports: number of ports if it is the kernel's sample device mtty, None for a device
            that takes any data.
        has_p2p: whether it has the state RUNNING_P2P.
        can_reset: whether VFIO_DEVICE_RESET works.
        write_hangs: whether write() on its data fd never returns.
    """

    idstr: str
    instance_id: int = 0
    transfer: bool = True
    mtty_ports: int | None = None
    has_p2p: bool = True
    can_reset: bool = True
    write_hangs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RamBlock:
    """A RAM block: its name and length in bytes."""

    idstr: str
    used_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A destination before its migration.

    Attributes:
        profile: its release.
        devices: its VFIO devices in handler order.
        entries: its other SaveVM entries by idstr and instance id, and their versions.
        channels: how many multifd channels it expects; 0 if it does without multifd.
        machine: its machine type; None if it has whatever the source says.
        uuid: its VM's UUID; None if it has whatever the source says.
        compression: the flag of its multifd-compression, 0 for none.
        page_size: target page size in bytes.
        blocks: its RAM blocks; None if it has whatever the source says.
        memory: bytes that it can allocate.
        max_queued: x-migration-max-queued-buffers-size.
        config_after_iter: x-migration-load-config-after-iter.
        switchover_ack: capability switchover-ack.
        send_switchover_start: property send-switchover-start.
        has_configuration: property send-configuration.
        has_footers: property send-section-footer.
        flushes_each_section: property multifd-flush-after-each-section.
    """

    profile: Profile = DEFAULT_PROFILE
    devices: tuple[DeviceSpec, ...] = ()
    entries: frozenset[tuple[str, int, int]] = frozenset({(RAM, 0, 4)})
    channels: int = 0
    machine: str | None = None
    uuid: bytes | None = None
    compression: int = 0
    page_size: int = X86_PAGE_SIZE
    blocks: tuple[RamBlock, ...] | None = None
    memory: int = DEFAULT_MEMORY
    max_queued: int = NO_LIMIT
    config_after_iter: bool = False
    switchover_ack: bool = False
    send_switchover_start: bool = True
    has_configuration: bool = True
    has_footers: bool = True
    flushes_each_section: bool = False

    @property
    def page_count(self) -> int:
        """Pages that a RAM packet can hold."""
        return page_count_for(self.page_size)

    @property
    def supports_transfer(self) -> bool:
        """Whether device state over multifd can work (vfio_multifd_transfer_supported)."""
        return bool(self.channels) and not self.compression and self.send_switchover_start

    @property
    def has_fixed_buffer(self) -> bool:
        """Whether its compression method works on a buffer of fixed size."""
        return self.compression in {MultiFDFlag.ZLIB, MultiFDFlag.ZSTD}

    def device_named(self, idstr: str, instance_id: int) -> int | None:
        """Find a device as savevm.c:find_se does: live entries also answer to instance 0."""
        for number, device in enumerate(self.devices):
            if device.idstr == idstr and instance_id in {device.instance_id, 0}:
                return number
        return None

    def entry_version(self, idstr: str, instance_id: int) -> int | None:
        """Give the version of another entry, None if there is none."""
        versions = [
            version
            for name, instance, version in self.entries
            if name == idstr and instance_id == instance
        ]
        return max(versions, default=None)
