# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts a device's data into a VFIO device, as QEMU's destination does with its own.

The device goes to RESUMING before the first byte and leaves it behind the last one: only then does
the driver judge the whole state (vfio/migration.c:vfio_load_setup, vfio_vmstate_change). If the
replay did not complete, or the driver refuses, the device is reset and RUNNING.

The config state is not applied. QEMU puts it into its own model of the device, which sets up the
guest's view of it (vfio/pci.c:vfio_pci_load_config); there is none here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from mfdtool.errors import SinkError
from mfdtool.live.fd_sink import check_captured, joined, what_of
from mfdtool.live.vfio.session import RefusedError, ResumingDevice
from mfdtool.live.vfio.uapi import DeviceFlag
from mfdtool.loader.state import Outcome
from mfdtool.replay.sink import Order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from mfdtool.live.vfio.device import VfioDevice
    from mfdtool.loader.blob import Blob

_SPACE_AT: Final = 12
"""Where the config space begins in a config: behind the marker and PCIDevice's version."""

_COMPARED: Final = (
    ("vendor", 0x00, 2),
    ("device", 0x02, 2),
    ("revision", 0x08, 1),
    ("class", 0x09, 3),
    ("header type", 0x0E, 1),
)
"""What says that it is the same kind of device: name, offset in config space, and length."""

_NOT_APPLIED: Final = "config state: decoded, but not applied, which only QEMU's own device can do"


class DeviceSink:
    """One device's data goes into an open VFIO device; a context manager.

    Attributes:
        name: as ``--to`` names it.
        failure: what the device refused first, in words; empty if nothing.
        notes: what else is to be known.
    """

    def __init__(self, device: VfioDevice, number: int, *, name: str, config: bytes | None) -> None:
        """Set up; nothing happens to the device yet.

        ``number`` is the device's in the model, ``config`` its recorded config state, from the
        marker on; None if there is none.
        """
        self.name = name
        self.failure = ""
        self.notes: tuple[str, ...] = ()
        self._device = device
        self._number = number
        self._config = config
        self._resuming = ResumingDevice(device)

    def __enter__(self) -> Self:
        """Bring the device into RESUMING.

        Raises:
            SinkError: it cannot be migrated, is not RUNNING, or refuses.
        """
        self.notes = (config_note(self._device, self._config),)
        self._resuming.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the device RUNNING: with its state if it was finished, reset otherwise."""
        self._resuming.__exit__(kind, error, traceback)

    @property
    def order(self) -> Order:
        """Bytes are written in the order in which the model writes them."""
        return Order.EXACT

    def write(self, device: int, idx: int | None, data: Blob) -> int | None:
        """Write a buffer; give the errno, 0 if all of it was taken, None for another device.

        Raises:
            SinkError: some of its bytes were not captured, or the device takes none for a minute.
        """
        if device != self._number:
            return None
        what = what_of(idx)
        before = self._resuming.position
        check_captured(data, f"{self.name}: {what}", before)
        try:
            self._resuming.write(joined(data))
        except RefusedError as error:
            self.failure = self.failure or f"{what}: {error}"
            return error.number
        return 0

    def finish(self, outcome: Outcome | None) -> Mapping[int, bool]:
        """Leave RESUMING if the replay completed; give whether the device runs with the state.

        Otherwise there is nothing to give: the device is reset when the sink is closed.
        """
        if outcome is not Outcome.COMPLETED:
            self.notes += ("the replay did not complete: the device is reset",)
            return {}
        try:
            self._resuming.leave()
        except SinkError as error:
            self.failure = self.failure or f"leaving RESUMING: {error}; the device is reset"
            return {self._number: False}
        self.notes += (f"the device runs with its state, {self._resuming.position} bytes",)
        return {self._number: True}


def config_note(device: VfioDevice, config: bytes | None) -> str:
    """Compare a recorded config state with a device's own config space; say what came of it.

    Raises:
        SinkError: the device does not answer.
    """
    if config is None:
        return "config state: there is none in the recording"
    if DeviceFlag.PCI not in device.flags():
        return f"{_NOT_APPLIED}; no PCI device, nothing to compare"
    space = device.config_space()
    recorded = config[_SPACE_AT:]
    if min(len(space), len(recorded)) < max(at + size for _, at, size in _COMPARED):
        return f"{_NOT_APPLIED}; it is too short to be compared"
    differing = [
        f"{name} {_word(recorded, at, size)}, the device has {_word(space, at, size)}"
        for name, at, size in _COMPARED
        if recorded[at : at + size] != space[at : at + size]
    ]
    if differing:
        return f"{_NOT_APPLIED}; it is another device's: {'; '.join(differing)}"
    ids = ":".join(_word(space, at, size) for _, at, size in _COMPARED[:2])
    return f"{_NOT_APPLIED}; it is of the same kind of device, {ids}"


def _word(space: bytes, at: int, size: int) -> str:
    """Give a little-endian field in hex."""
    return f"{int.from_bytes(space[at : at + size], 'little'):0{2 * size}x}"
