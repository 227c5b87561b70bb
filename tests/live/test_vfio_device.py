# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening VFIO devices, and what they say of themselves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.vfio.device import VfioDevice, open_device
from mfdtool.live.vfio.kernel import LinuxKernel
from mfdtool.live.vfio.uapi import DeviceState, Feature, Ioctl, MigrationFlag
from tests.live.lab.device_checks import CHECKS, Check, saved
from tests.support.fake_vfio import FakeDevice, FakeKernel, state_bytes

UUID = "83b8f4f2-509f-382f-3c1e-000000000001"
OTHER = "83b8f4f2-509f-382f-3c1e-000000000002"


def refusal(action: Callable[[], object]) -> str:
    """Give the message of the SinkError that something raises."""
    with pytest.raises(SinkError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_by_group(check: Check) -> None:
    kernel = FakeKernel([FakeDevice(name=UUID), FakeDevice(name=OTHER, group=1)])
    check(kernel, UUID, OTHER)
    assert kernel.open_files == []


# A node can be opened twice, but bound once: see test_cdev_in_use.
@pytest.mark.parametrize("name", sorted(set(CHECKS) - {"is_opened_once"}))
def test_by_cdev(name: str) -> None:
    devices = [
        FakeDevice(name=UUID, group=None, cdev=0),
        FakeDevice(name=OTHER, group=None, cdev=1),
    ]
    kernel = FakeKernel(devices)
    CHECKS[name](kernel, UUID, OTHER)
    assert kernel.open_files == []
    assert [device.opened for device in devices] == [0, 0]


def test_cdev_in_use() -> None:
    kernel = FakeKernel([FakeDevice(name=UUID, group=None, cdev=0)])
    with open_device(UUID, kernel) as device:
        assert device.way == "/dev/vfio/devices/vfio0 and an iommufd"
        assert "in use" in refusal(lambda: open_device(UUID, kernel))
    assert kernel.open_files == []


@pytest.mark.parametrize(
    "name",
    [
        "0000:03:00.1",
        "03:00.1",
        "/sys/bus/pci/devices/0000:03:00.1",
        "/sys/bus/pci/devices/0000:03:00.1/",
        "/sys/devices/fake/0000:03:00.1",
        "/dev/vfio/7",
    ],
)
def test_names_of_a_group(name: str) -> None:
    kernel = FakeKernel([FakeDevice(name="0000:03:00.1", group=7, cdev=3, driver="vfio-pci")])
    with open_device(name, kernel) as device:
        assert device.location is not None
        assert device.location.name == "0000:03:00.1"
        assert device.location.driver == "vfio-pci"
        assert device.way == "/dev/vfio/7 and a container"
        assert kernel.open_files == ["/dev/vfio/7", "/dev/vfio/vfio", "device"]


def test_name_of_a_cdev() -> None:
    kernel = FakeKernel([FakeDevice(name="0000:03:00.1", group=7, cdev=3, driver="vfio-pci")])
    with open_device("/dev/vfio/devices/vfio3", kernel) as device:
        assert device.name == "0000:03:00.1"
        assert kernel.open_files == ["/dev/iommu", "device"]


@pytest.mark.parametrize("name", ["eth0", "/dev/null", "fd:3", "", "0000:03:00.9", "../x"])
def test_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a PCI address"):
        open_device(name, FakeKernel([]))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (FakeDevice(name="0000:03:00.1", driver="", group=7), "no driver has it"),
        (FakeDevice(name="0000:03:00.1", driver="mlx5_core", group=7), "which is no VFIO driver"),
        (FakeDevice(name="0000:03:00.1", driver="mlx5_core", group=None), "in no IOMMU group"),
    ],
)
def test_not_bound(device: FakeDevice, message: str) -> None:
    assert message in refusal(lambda: open_device("03:00.1", FakeKernel([device])))


def test_no_vfio_at_all() -> None:
    kernel = FakeKernel([FakeDevice(name=UUID)])
    kernel.no_vfio = True
    assert "there is no /dev/vfio: load" in refusal(lambda: open_device(UUID, kernel))


@pytest.mark.parametrize("name", ["0000:03:00.2", OTHER, "/sys/nothing", "/dev/vfio/devices/vfio9"])
def test_not_there(name: str) -> None:
    kernel = FakeKernel([FakeDevice(name=UUID)])
    assert "there is no such device" in refusal(lambda: open_device(name, kernel))


def test_group_without_and_with_several_devices() -> None:
    kernel = FakeKernel([FakeDevice(name=UUID, group=4), FakeDevice(name=OTHER, group=4)])
    assert f"the group has {UUID}, {OTHER}: name one" in refusal(
        lambda: open_device("/dev/vfio/4", kernel)
    )
    assert "no such group" in refusal(lambda: open_device("/dev/vfio/5", kernel))


@pytest.mark.parametrize(
    ("where", "number", "message"),
    [
        ("/dev/vfio/0", errno.EACCES, "no permission"),
        ("/dev/vfio/0", errno.EBUSY, "in use"),
        ("/dev/vfio/0", errno.ENXIO, "/dev/vfio/0: No such device or address (ENXIO)"),
        ("/dev/vfio/vfio", errno.EACCES, "no permission"),
        (Ioctl.GROUP_SET_CONTAINER, errno.EBUSY, "in use"),
        (Ioctl.GROUP_GET_DEVICE_FD, errno.EBUSY, "in use"),
        (Ioctl.SET_IOMMU, errno.EPERM, "Operation not permitted"),
        (Ioctl.GET_API_VERSION, errno.EIO, "(EIO)"),
        (Ioctl.CHECK_EXTENSION, errno.EIO, "(EIO)"),
    ],
)
def test_cannot_open(where: str | int, number: int, message: str) -> None:
    kernel = FakeKernel([FakeDevice(name=UUID)])
    kernel.fails[where] = number
    assert message in refusal(lambda: open_device(UUID, kernel))
    assert kernel.open_files == []


@pytest.mark.parametrize("request_number", [Ioctl.IOAS_ALLOC, Ioctl.DEVICE_ATTACH_IOMMUFD_PT])
def test_cannot_attach(request_number: int) -> None:
    kernel = FakeKernel([FakeDevice(name=UUID, group=None, cdev=0)])
    kernel.fails[request_number] = errno.ENOMEM
    assert "Cannot allocate memory (ENOMEM)" in refusal(lambda: open_device(UUID, kernel))
    assert kernel.open_files == []


def test_not_viable() -> None:
    kernel = FakeKernel([FakeDevice(name=UUID)], viable=False)
    assert "not viable" in refusal(lambda: open_device(UUID, kernel))


def test_strange_container() -> None:
    kernel = FakeKernel([FakeDevice(name=UUID)])
    kernel.version = 1
    assert "version 1 of the interface" in refusal(lambda: open_device(UUID, kernel))
    kernel.version = 0
    kernel.iommus = frozenset()
    assert "modprobe vfio_iommu_type1" in refusal(lambda: open_device(UUID, kernel))


def test_inherited() -> None:
    device = FakeDevice(name=UUID)
    kernel = FakeKernel([device])
    fd = kernel.inherit(device)
    with open_device(f"device-fd:{fd}", kernel) as opened:
        assert opened.way == "an inherited descriptor"
        assert opened.location is None
        assert saved(opened) == state_bytes()
    assert kernel.open_files == ["inherited"]
    assert "no such descriptor" in refusal(lambda: open_device("device-fd:99", kernel))


def opened(**changes: Any) -> tuple[FakeKernel, VfioDevice]:
    """Open a device that is unlike an mtty in some way."""
    kernel = FakeKernel([FakeDevice(name=UUID, **changes)])
    return kernel, open_device(UUID, kernel)


def test_no_migration() -> None:
    _, device = opened(flags=MigrationFlag(0))
    assert "does not support migration (Inappropriate ioctl for device (ENOTTY))" in refusal(
        device.migration
    )
    assert device.data_size() is None
    assert device.logs_dma() is False
    _, device = opened(flags=MigrationFlag.P2P)
    assert "without STOP_COPY" in refusal(device.migration)


def test_strange_answers() -> None:
    kernel, device = opened()
    kernel.fails[Feature.MIG_DATA_SIZE | 0x10000] = errno.EIO
    assert "size of its state: Input/output error (EIO)" in refusal(device.data_size)
    kernel.fails[Feature.MIG_DEVICE_STATE | 0x10000] = errno.EIO
    assert "its state: Input/output error" in refusal(device.state)
    kernel.fails["config"] = errno.EIO
    assert "its config space: Input/output error" in refusal(device.config_space)
    kernel.fails[Ioctl.DEVICE_GET_INFO] = errno.EIO
    assert "VFIO_DEVICE_GET_INFO" in refusal(device.flags)


def test_nothing_is_known_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, device = opened()
    states = iter([DeviceState.RUNNING])

    def state() -> DeviceState:
        for known in states:
            return known
        raise SinkError("no answer")

    monkeypatch.setattr(device, "state", state)
    kernel.refused[DeviceState.STOP] = errno.EIO
    assert "(EIO); it is in an unknown state" in refusal(lambda: device.change(DeviceState.STOP))


def test_state_of_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, device = opened()
    monkeypatch.setattr(kernel.devices[0], "state", 9)
    assert "a state 9 of no known name" in refusal(device.state)


def test_stays_in_its_state() -> None:
    kernel, device = opened()
    assert device.change(DeviceState.STOP) == -1
    kernel.refused[DeviceState.RUNNING] = errno.EIO
    kernel.fails[Ioctl.DEVICE_RESET] = errno.ENOTTY
    assert "reset: Inappropriate ioctl" in refusal(device.make_running)


def test_real_kernel_refuses_what_is_no_device() -> None:
    """The seam itself, as far as it goes without a device."""
    kernel = LinuxKernel()
    assert kernel.resolve("/proc/self") == f"/proc/{os.getpid()}"
    assert "maps" in kernel.names("/proc/self")
    assert not kernel.exists("/dev/vfio/nothing")
    fd = kernel.open("/dev/null")
    try:
        assert kernel.write(fd, memoryview(b"abc")) == 3
        assert kernel.read(fd, 10) == b""
        assert kernel.wait(fd, seconds=0, writing=True)
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            kernel.ioctl(fd, Ioctl.DEVICE_RESET)
        with open_device(f"device-fd:{fd}", kernel) as device:
            assert "Inappropriate ioctl for device (ENOTTY)" in refusal(device.flags)
    finally:
        kernel.close(fd)
