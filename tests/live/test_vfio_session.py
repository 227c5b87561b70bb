# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking a device's state out of it, and putting it in: what can go wrong on the way."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event, Thread

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.vfio.device import VfioDevice, open_device
from mfdtool.live.vfio.session import RefusedError, ResumingDevice, SavingDevice
from mfdtool.live.vfio.uapi import DeviceState, Ioctl, MigrationFlag
from tests.support.fake_vfio import FakeDevice, FakeKernel, state_bytes

STATE = state_bytes(fill=7)


def one(device: FakeDevice | None = None) -> tuple[FakeKernel, VfioDevice]:
    """Open the one device of a kernel."""
    kernel = FakeKernel([device or FakeDevice()])
    return kernel, open_device(kernel.devices[0].name, kernel)


def interrupt(data: bytes) -> None:
    """Do as if the user interrupted the work on ``data``."""
    assert data
    raise KeyboardInterrupt


def refusal(action: Callable[[], object]) -> str:
    """Give the message of the SinkError that something raises."""
    with pytest.raises(SinkError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 7, 16, 24, 96, 97, 4096])
@pytest.mark.parametrize("before", [b"", state_bytes()[:24]], ids=["stop-copy", "precopy"])
def test_every_read_size(size: int, before: bytes) -> None:
    _, device = one()
    with SavingDevice(device, size=size, precopy=bool(before)) as saving:
        pieces = list(saving.precopy()) if before else []
        assert b"".join(pieces) == before
        pieces += saving.stop_copy()
    assert b"".join(pieces) == state_bytes()
    assert all(len(piece) <= size for piece in pieces)


@pytest.mark.parametrize("split", range(97))
def test_every_split(split: int) -> None:
    kernel, device = one()
    with ResumingDevice(device) as resuming:
        resuming.write(STATE[:split])
        resuming.write(memoryview(STATE)[split:])
        resuming.leave()
    assert kernel.devices[0].fill == 7
    assert kernel.devices[0].state is DeviceState.RUNNING


@pytest.mark.parametrize("short", [1, 5, 24, 95])
def test_short_reads_and_writes(short: int) -> None:
    kernel, device = one(FakeDevice(short=short))
    with ResumingDevice(device) as resuming:
        resuming.write(STATE)
        assert resuming.position == 96
        resuming.leave()
    with SavingDevice(device, size=4096) as saving:
        assert b"".join(saving.stop_copy()) == STATE
    assert kernel.devices[0].session is None


def test_not_now() -> None:
    kernel, device = one(FakeDevice(busy=3))
    with ResumingDevice(device) as resuming:
        resuming.write(STATE)
        resuming.leave()
    assert kernel.waited == [60.0] * 3
    kernel.devices[0].busy = 2
    with SavingDevice(device, size=96) as saving:
        assert list(saving.stop_copy()) == [STATE]
    assert kernel.waited == [60.0] * 5


def test_never() -> None:
    kernel, device = one(FakeDevice(busy=1))
    kernel.ready = False
    wanted = "takes nothing for 60 s, after 0 bytes"
    with pytest.raises(SinkError, match=wanted), ResumingDevice(device) as resuming:
        resuming.write(STATE)
    kernel.devices[0].busy = 1
    wanted = "reading its state: nothing for 60 s"
    with pytest.raises(SinkError, match=wanted), SavingDevice(device, size=96) as saving:
        list(saving.stop_copy())
    assert kernel.devices[0].state is DeviceState.RUNNING


def test_driver_takes_nothing() -> None:
    _, device = one(FakeDevice(short=0))

    def resume() -> None:
        with ResumingDevice(device) as resuming:
            resuming.write(STATE)

    with pytest.raises(RefusedError) as caught:
        resume()
    assert caught.value.number == errno.EIO


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ENOMSG])
def test_read_fails(number: int) -> None:
    kernel, device = one()
    kernel.fails["read"] = number

    def save() -> None:
        with SavingDevice(device, size=96) as saving:
            list(saving.stop_copy())

    assert "reading its state" in refusal(save)
    assert kernel.devices[0].state is DeviceState.RUNNING
    assert kernel.open_files == ["/dev/vfio/0", "/dev/vfio/vfio", "device"]


def test_nothing_now_ends_precopy() -> None:
    kernel, device = one()
    with SavingDevice(device, size=96, precopy=True) as saving:
        kernel.fails["read"] = errno.ENOMSG
        assert list(saving.precopy()) == []
        kernel.fails.clear()
        assert b"".join(saving.stop_copy()) == state_bytes()


def test_no_precopy() -> None:
    _, device = one(FakeDevice(flags=MigrationFlag.STOP_COPY))

    def save() -> None:
        with SavingDevice(device, size=96, precopy=True):
            pass

    assert "has no PRE_COPY" in refusal(save)


@pytest.mark.parametrize("kind", [ResumingDevice, lambda device: SavingDevice(device, size=96)])
def test_busy_device(kind: Callable[[VfioDevice], ResumingDevice | SavingDevice]) -> None:
    _, device = one()
    device.change(DeviceState.STOP)

    def enter() -> None:
        with kind(device):
            pass

    assert "it is in STOP, not RUNNING: in use?" in refusal(enter)
    assert device.state() is DeviceState.STOP


def test_refused_state_is_left() -> None:
    kernel, device = one()
    kernel.refused[DeviceState.RESUMING] = errno.EIO

    def resume() -> None:
        with ResumingDevice(device):
            pass

    assert "cannot go to RESUMING: Input/output error (EIO); it is in RUNNING" in refusal(resume)


@pytest.mark.parametrize("state", [DeviceState.STOP, DeviceState.RUNNING])
def test_leaving_fails(state: DeviceState) -> None:
    kernel, device = one()

    def resume() -> None:
        with ResumingDevice(device) as resuming:
            resuming.write(STATE)
            kernel.refused[state] = errno.EIO
            resuming.leave()

    assert f"cannot go to {state.name}" in refusal(resume)
    assert device.state() is DeviceState.RUNNING


def test_reset_fails_too() -> None:
    kernel, device = one()
    kernel.fails[Ioctl.DEVICE_RESET] = errno.EIO

    def resume() -> None:
        with ResumingDevice(device) as resuming:
            resuming.write(bytes(96))

    message = refusal(resume)
    assert "refused its state after 0 bytes: Bad address (EFAULT); " in message
    assert "reset: Input/output error (EIO)" in message


def test_reset_fails_after_another_error() -> None:
    kernel, device = one()
    kernel.fails[Ioctl.DEVICE_RESET] = errno.EIO
    with pytest.raises(SinkError, match="reset"), ResumingDevice(device):
        raise KeyboardInterrupt


def test_interrupted() -> None:
    kernel, device = one()
    saving = SavingDevice(device, size=1, precopy=True)
    with pytest.raises(KeyboardInterrupt), saving:
        interrupt(next(saving.precopy()))
    assert kernel.devices[0].state is DeviceState.RUNNING
    assert "data" not in kernel.open_files


def test_interrupted_while_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has gone to RESUMING, and nobody has heard of it yet."""
    kernel, device = one()
    change = VfioDevice.change

    def interrupted(self: VfioDevice, state: DeviceState) -> int:
        fd = change(self, state)
        if state is DeviceState.RESUMING:
            raise KeyboardInterrupt
        return fd

    monkeypatch.setattr(VfioDevice, "change", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ResumingDevice(device).__enter__()
    assert kernel.devices[0].state is DeviceState.RUNNING


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("kind", [SavingDevice, ResumingDevice])
def test_interrupted_while_it_ends(
    kind: type[SavingDevice | ResumingDevice], monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """Whoever is in a hurry interrupts more than once: each time that the device is asked.

    The system may give a signal to any thread.
    """
    done = Event()
    other = Thread(target=done.wait)
    other.start()
    stack.callback(other.join)
    stack.callback(done.set)
    kernel, device = one()
    ioctl = kernel.ioctl

    def interrupted(fd: int, request: Ioctl, argument: int | bytearray = 0) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return ioctl(fd, request, argument)

    def begin_to() -> None:
        monkeypatch.setattr(kernel, "ioctl", interrupted)
        raise KeyboardInterrupt

    session = SavingDevice(device, size=1) if kind is SavingDevice else ResumingDevice(device)
    with pytest.raises(KeyboardInterrupt), session:
        begin_to()
    assert kernel.devices[0].state is DeviceState.RUNNING
    assert "data" not in kernel.open_files
