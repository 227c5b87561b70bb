# SPDX-License-Identifier: GPL-2.0-or-later
"""What is true of an mtty: checked of the fake one everywhere, and of the real one in the lab.

Each check gets a kernel and two fresh devices of two ports that it knows by name, and asserts.
There is no pytest in here: it takes too long to import in the virtual machine.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from mfdtool.errors import SinkError
from mfdtool.live.vfio.device import PrecopyInfo, VfioDevice, open_device
from mfdtool.live.vfio.kernel import Kernel
from mfdtool.live.vfio.session import RefusedError, ResumingDevice, SavingDevice
from mfdtool.live.vfio.uapi import NO_FD, DeviceFlag, DeviceState, MigrationFlag

Check: TypeAlias = Callable[[Kernel, str, str], None]

SIZE: Final = 96
HEADER: Final = 24


def saved(device: VfioDevice, *, size: int = 16) -> bytes:
    """Take a device's state."""
    with SavingDevice(device, size=size) as saving:
        return b"".join(saving.stop_copy())


def error_of(action: Callable[[], object]) -> SinkError:
    """Do what must fail, and give its error."""
    try:
        action()
    except SinkError as error:
        return error
    raise AssertionError("it did not fail")


def tells_what_it_can(kernel: Kernel, source: str, target: str) -> None:
    """All questions have answers."""
    with open_device(source, kernel) as device:
        assert device.flags() & DeviceFlag.PCI
        assert device.migration() == (
            MigrationFlag.STOP_COPY | MigrationFlag.P2P | MigrationFlag.PRE_COPY
        )
        assert device.state() is DeviceState.RUNNING
        assert device.data_size() == SIZE
        assert len(device.config_space()) == 255


def is_saved(kernel: Kernel, source: str, target: str) -> None:
    """STOP_COPY gives the state in pieces of the size asked for."""
    with open_device(source, kernel) as device:
        with SavingDevice(device, size=16) as saving:
            assert device.state() is DeviceState.STOP_COPY
            pieces = list(saving.stop_copy())
        assert [len(piece) for piece in pieces] == [16] * 6
        assert b"".join(pieces)[:8] == bytes.fromhex("4e2c3e8c89099d7e")
        assert device.state() is DeviceState.RUNNING


def is_saved_with_precopy(kernel: Kernel, source: str, target: str) -> None:
    """PRE_COPY gives the header, STOP_COPY in the same session the rest."""
    with open_device(source, kernel) as device:
        with SavingDevice(device, size=16, precopy=True) as saving:
            assert device.state() is DeviceState.PRE_COPY
            assert saving.info() == PrecopyInfo(initial_bytes=HEADER, dirty_bytes=0)
            assert [len(piece) for piece in saving.precopy()] == [16, 8]
            assert list(saving.precopy()) == []
            assert sum(map(len, saving.stop_copy())) == SIZE - HEADER
        assert device.state() is DeviceState.RUNNING


def is_resumed(kernel: Kernel, source: str, target: str) -> None:
    """A second device takes the state, and then gives the same one."""
    with open_device(source, kernel) as device:
        state = saved(device)
    with open_device(target, kernel) as device:
        with ResumingDevice(device) as resuming:
            for start in range(0, SIZE, 16):
                resuming.write(state[start : start + 16])
            assert resuming.position == SIZE
            assert device.state() is DeviceState.RESUMING
            resuming.leave()
        assert device.state() is DeviceState.RUNNING
        assert saved(device) == state


def refuses_wrong_header(kernel: Kernel, source: str, target: str) -> None:
    """A wrong header is EFAULT, and the device runs again afterwards."""
    with open_device(source, kernel) as device:
        state = bytearray(saved(device))
    state[0] ^= 0xFF
    with open_device(target, kernel) as device:

        def resume() -> None:
            with ResumingDevice(device) as resuming:
                resuming.write(bytes(state[:16]))
                resuming.write(bytes(state[16:]))

        error = error_of(resume)
        assert isinstance(error, RefusedError)
        assert (error.position, error.number) == (16, errno.EFAULT)
        assert isinstance(error.__cause__, OSError)
        assert device.state() is DeviceState.RUNNING
        assert len(saved(device)) == SIZE


def refuses_short_state(kernel: Kernel, source: str, target: str) -> None:
    """A short state is EINVAL when RESUMING is left, and the device runs again afterwards."""
    with open_device(source, kernel) as device:
        state = saved(device)
    with open_device(target, kernel) as device:

        def resume() -> None:
            with ResumingDevice(device) as resuming:
                resuming.write(state[:HEADER])
                resuming.leave()

        error = error_of(resume)
        assert "cannot go to STOP: Invalid argument (EINVAL); it is in RESUMING" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EINVAL
        assert device.state() is DeviceState.RUNNING


def refuses_long_state(kernel: Kernel, source: str, target: str) -> None:
    """More than the state is ENOMEM."""
    with open_device(source, kernel) as device:
        state = saved(device)
    with open_device(target, kernel) as device:

        def resume() -> None:
            with ResumingDevice(device) as resuming:
                resuming.write(state)
                resuming.write(b"x")

        error = error_of(resume)
        assert isinstance(error, RefusedError)
        assert (error.position, error.number) == (SIZE, errno.ENOMEM)
        assert device.state() is DeviceState.RUNNING


def forgets_abandoned_state(kernel: Kernel, source: str, target: str) -> None:
    """Without `leave` the device is reset, also if the state was whole."""
    with open_device(source, kernel) as device:
        state = saved(device)
    with open_device(target, kernel) as device:
        with ResumingDevice(device) as resuming:
            resuming.write(state)
        assert device.state() is DeviceState.RUNNING


def is_opened_once(kernel: Kernel, source: str, target: str) -> None:
    """A device that is open cannot be opened."""
    with open_device(source, kernel):
        error = error_of(lambda: open_device(source, kernel))
        assert "in use" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EBUSY
    with open_device(source, kernel) as device:
        assert device.state() is DeviceState.RUNNING


def refuses_wrong_arcs(kernel: Kernel, source: str, target: str) -> None:
    """There is no way to ERROR, and none from STOP_COPY back to PRE_COPY.

    The real kernel is not asked: it would never answer.
    """
    with open_device(source, kernel) as device:
        error = error_of(lambda: device.change(DeviceState.ERROR))
        assert "there is no way from RUNNING to ERROR" in str(error)
        with SavingDevice(device, size=16):
            error = error_of(lambda: device.change(DeviceState.PRE_COPY))
            assert "there is no way from STOP_COPY to PRE_COPY" in str(error)
        assert device.change(DeviceState.RUNNING_P2P) == NO_FD
        assert device.state() is DeviceState.RUNNING_P2P
        device.make_running()
        assert device.state() is DeviceState.RUNNING


CHECKS: Final[Mapping[str, Check]] = {
    check.__name__: check
    for check in (
        tells_what_it_can,
        is_saved,
        is_saved_with_precopy,
        is_resumed,
        refuses_wrong_header,
        refuses_short_state,
        refuses_long_state,
        forgets_abandoned_state,
        is_opened_once,
        refuses_wrong_arcs,
    )
}
