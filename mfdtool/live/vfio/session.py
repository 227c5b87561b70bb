# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions that move a device's state: one takes it out, one puts it in.

Both are context managers that leave the device RUNNING, whatever happens: an error between
resets it, so that it is never left half saved or half resumed. Neither closes the device.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from mfdtool.errors import SinkError
from mfdtool.live.interrupts import interrupts_held
from mfdtool.live.vfio import uapi
from mfdtool.live.vfio.device import PrecopyInfo, failing
from mfdtool.live.vfio.kernel import text_of
from mfdtool.live.vfio.uapi import DeviceState, Ioctl, MigrationFlag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from mfdtool.live.vfio.device import VfioDevice

PATIENCE: Final = 60.0
"""Seconds to wait for a driver that says "not now"."""


class RefusedError(SinkError):
    """A device refused bytes of its state.

    Attributes:
        position: how many bytes of the whole state it had taken before.
        number: the errno.
    """

    def __init__(self, name: str, position: int, error: OSError) -> None:
        """Make the error that ``error`` is the cause of."""
        super().__init__(
            f"{name}: the device refused its state after {position} bytes: {text_of(error)}"
        )
        self.position = position
        self.number = error.errno or 0


class _Session(ABC):
    """A data descriptor, from the state that opens it back to RUNNING."""

    def __init__(self, device: VfioDevice) -> None:
        self.device = device
        self._fd = uapi.NO_FD

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # Whoever interrupts again waits until the device is as it shall be left.
            with interrupts_held():
                self._restore()
        except SinkError as problem:
            if not isinstance(error, SinkError):
                raise
            raise SinkError(f"{error}; {problem}") from error
        finally:
            self._close()

    @abstractmethod
    def _restore(self) -> None:
        """Bring the device back to RUNNING."""

    def _start(self, state: DeviceState) -> None:
        """Open the session."""
        present = self.device.state()
        if present is not DeviceState.RUNNING:
            raise SinkError(f"{self.device.name}: it is in {present.name}, not RUNNING: in use?")
        try:
            self._fd = self.device.change(state)
            if self._fd == uapi.NO_FD:
                raise SinkError(f"{self.device.name}: {state.name} opened no data descriptor")
        except BaseException:
            # Also an interrupt: nobody else knows of the session yet.
            with interrupts_held(), suppress(SinkError):
                self.device.make_running()
            raise

    def _close(self) -> None:
        fd, self._fd = self._fd, uapi.NO_FD
        if fd != uapi.NO_FD:
            self.device.kernel.close(fd)


class SavingDevice(_Session):
    """Takes a device's state out of it; a context manager.

    ::

        with SavingDevice(device, size=1 << 20, precopy=True) as saving:
            before = list(saving.precopy())
            after = list(saving.stop_copy())

    The guest, if there is one, is not stopped: its device is.
    """

    def __init__(self, device: VfioDevice, *, size: int, precopy: bool = False) -> None:
        """Set up; ``size`` is how many bytes a read asks for."""
        super().__init__(device)
        self._size = size
        self._precopy = precopy

    def __enter__(self) -> Self:
        flags = self.device.migration()
        if self._precopy and MigrationFlag.PRE_COPY not in flags:
            raise SinkError(f"{self.device.name}: its driver has no PRE_COPY")
        self._start(DeviceState.PRE_COPY if self._precopy else DeviceState.STOP_COPY)
        return self

    def info(self) -> PrecopyInfo:
        """Ask what is left in PRE_COPY.

        Raises:
            SinkError: it does not answer; another state than PRE_COPY.
        """
        data = uapi.precopy_info()
        with failing(f"{self.device.name}: VFIO_MIG_GET_PRECOPY_INFO"):
            self.device.kernel.ioctl(self._fd, Ioctl.MIG_GET_PRECOPY_INFO, data)
        return PrecopyInfo(*uapi.precopy_bytes(data))

    def precopy(self) -> Iterator[bytes]:
        """Give what the device has while it runs: until its initial bytes are read.

        What changes afterwards comes with STOP_COPY, so this ends however busy the device is.

        Raises:
            SinkError: a read fails.
        """
        while data := self._read():
            yield data
            if not self.info().initial_bytes:
                return

    def stop_copy(self) -> Iterator[bytes]:
        """Stop the device and give the rest of its state, to the end.

        Raises:
            SinkError: the driver refuses, or a read fails.
        """
        if self._precopy:
            fd = self.device.change(DeviceState.STOP_COPY)
            if fd != uapi.NO_FD:
                self.device.kernel.close(fd)
                raise SinkError(f"{self.device.name}: STOP_COPY opened a second session")
        while data := self._read(is_stopped=True):
            yield data

    def _read(self, *, is_stopped: bool = False) -> bytes:
        """Read once; nothing is an end, of this state or for the time being."""
        kernel = self.device.kernel
        while True:
            try:
                return kernel.read(self._fd, self._size)
            except OSError as error:
                if error.errno == errno.ENOMSG and not is_stopped:
                    return b""
                what = f"{self.device.name}: reading its state"
                if error.errno != errno.EAGAIN:
                    raise SinkError(f"{what}: {text_of(error)}") from error
                if not kernel.wait(self._fd, seconds=PATIENCE, writing=False):
                    raise SinkError(f"{what}: nothing for {PATIENCE:.0f} s") from error

    def _restore(self) -> None:
        self.device.make_running()


class ResumingDevice(_Session):
    """Puts a state into a device; a context manager.

    ::

        with ResumingDevice(device) as resuming:
            for data in state:
                resuming.write(data)
            resuming.leave()

    The driver judges the state when RESUMING is left, so nothing is certain before `leave`.
    Whoever goes without it, or by an exception, finds the device reset and RUNNING: what it was
    given is gone.

    Attributes:
        position: bytes that the device has taken.
    """

    def __init__(self, device: VfioDevice) -> None:
        """Set up; nothing happens to the device yet."""
        super().__init__(device)
        self.position = 0
        self._left = False

    def __enter__(self) -> Self:
        self.device.migration()
        self._start(DeviceState.RESUMING)
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes, all of them (vfio/migration.c:vfio_load_buffer).

        Raises:
            RefusedError: the driver refused them.
            SinkError: it does not take any for a minute.
        """
        view = memoryview(data).cast("B")
        while view:
            taken = self._write_some(view)
            self.position += taken
            view = view[taken:]

    def leave(self) -> None:
        """End the session: the driver takes over the state, and the device runs with it.

        Raises:
            SinkError: the driver refused the state, or cannot run.
        """
        self.device.change(DeviceState.STOP)
        self.device.change(DeviceState.RUNNING)
        self._left = True

    def _write_some(self, view: memoryview) -> int:
        kernel = self.device.kernel
        while True:
            try:
                if taken := kernel.write(self._fd, view):
                    return taken
                # As QEMU takes it.
                raise OSError(errno.EIO, "the driver took nothing")
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise RefusedError(self.device.name, self.position, error) from error
                if not kernel.wait(self._fd, seconds=PATIENCE, writing=True):
                    raise SinkError(
                        f"{self.device.name}: the device takes nothing for {PATIENCE:.0f} s,"
                        f" after {self.position} bytes"
                    ) from error

    def _restore(self) -> None:
        if not self._left:
            # Leaving RESUMING would have the driver take over what it was given.
            self.device.reset()
            self.device.make_running()
