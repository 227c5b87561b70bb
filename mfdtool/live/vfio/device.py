# SPDX-License-Identifier: GPL-2.0-or-later
"""An open VFIO device: what it can do, its state, and its way from state to state.

A device is opened by its group and a type 1 container, or by its own node and an iommufd, as QEMU
does (vfio/container.c:vfio_attach_device, vfio/iommufd.c:iommufd_cdev_attach). Its memory stays
unmapped: moving state does not take that.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from mfdtool.errors import SinkError
from mfdtool.live.vfio import uapi
from mfdtool.live.vfio.kernel import text_of
from mfdtool.live.vfio.locate import GROUPS, INHERITED, locate
from mfdtool.live.vfio.uapi import (
    DeviceFlag,
    DeviceState,
    Feature,
    FeatureFlag,
    GroupFlag,
    Ioctl,
    Iommu,
    MigrationFlag,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from mfdtool.live.vfio.kernel import Kernel
    from mfdtool.live.vfio.locate import Location

_IOMMUFD: Final = "/dev/iommu"
_CONTAINER: Final = f"{GROUPS}/vfio"
_MAX_CONFIG: Final = 4096

_IN_USE: Final = "in use: another process, perhaps a virtual machine, has it open"
_NO_PERMISSION: Final = "no permission: be root, or give yourself the node"
_OPENING: Final[Mapping[int, str]] = {
    errno.EBUSY: _IN_USE,
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
}
_BINDING: Final[Mapping[int, str]] = {**_OPENING, errno.EINVAL: _IN_USE}
"""A node that is open twice binds once (the kernel's drivers/vfio/vfio_main.c:vfio_df_open)."""


@dataclass(frozen=True, slots=True)
class PrecopyInfo:
    """What the driver still has to give in PRE_COPY, estimated."""

    initial_bytes: int
    dirty_bytes: int


class VfioDevice:
    """An open device; a context manager that closes it, in whatever state it is.

    Attributes:
        name: how messages call it.
        location: where it was found; None for an inherited descriptor.
        way: how it was opened: by which nodes.
        kernel: the kernel that it belongs to.
    """

    def __init__(
        self,
        fd: int,
        *,
        name: str,
        way: str,
        kernel: Kernel,
        held: ExitStack,
        location: Location | None = None,
    ) -> None:
        """Take over an open device; ``held`` is what closes it."""
        self.name = name
        self.way = way
        self.location = location
        self.kernel = kernel
        self._fd = fd
        self._held = held

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the device and what it was opened by."""
        self._held.close()

    # What it is

    def flags(self) -> DeviceFlag:
        """Ask what the device is.

        Raises:
            SinkError: it does not answer.
        """
        info = uapi.device_info()
        with failing(f"{self.name}: VFIO_DEVICE_GET_INFO"):
            self.kernel.ioctl(self._fd, Ioctl.DEVICE_GET_INFO, info)
        return uapi.device_flags(info)

    def migration(self) -> MigrationFlag:
        """Ask which migration states there are (vfio/migration.c:vfio_migration_query_flags).

        Raises:
            SinkError: the driver does not support migration, or does not answer.
        """
        data = uapi.feature_get(Feature.MIGRATION)
        lacks = "its driver does not support migration"
        with failing(self.name, {errno.ENOTTY: lacks}):
            self._feature(data)
        flags = MigrationFlag(uapi.feature_value(data))
        if MigrationFlag.STOP_COPY not in flags:
            raise SinkError(f"{self.name}: {lacks} (flags {flags:#x}, without STOP_COPY)")
        return flags

    def data_size(self) -> int | None:
        """Ask how much state there is, about; None if the driver does not tell.

        Raises:
            SinkError: it does not answer.
        """
        data = uapi.feature_get(Feature.MIG_DATA_SIZE)
        try:
            self._feature(data)
        except OSError as error:
            if error.errno == errno.ENOTTY:
                return None
            raise SinkError(f"{self.name}: size of its state: {text_of(error)}") from error
        return uapi.feature_value(data)

    def logs_dma(self) -> bool:
        """Ask whether it can log which pages it writes (DMA_LOGGING_START)."""
        try:
            self._feature(uapi.feature_probe(Feature.DMA_LOGGING_START, FeatureFlag.SET))
        except OSError:
            return False
        return True

    def config_space(self) -> bytes:
        """Read its PCI config space, of 256 or 4096 bytes.

        Raises:
            SinkError: it cannot be read.
        """
        info = uapi.region_info(uapi.PCI_CONFIG_REGION)
        with failing(f"{self.name}: its config space"):
            self.kernel.ioctl(self._fd, Ioctl.DEVICE_GET_REGION_INFO, info)
            size, offset = uapi.region_place(info)
            return self.kernel.read_at(self._fd, min(size, _MAX_CONFIG), offset)

    # Its state

    def state(self) -> DeviceState:
        """Ask for its state.

        Raises:
            SinkError: it does not answer, or with a state that is not known.
        """
        data = uapi.state_get()
        with failing(f"{self.name}: its state"):
            self._feature(data)
        number = uapi.state_of(data)[0]
        try:
            return DeviceState(number)
        except ValueError:
            raise SinkError(f"{self.name}: it is in a state {number} of no known name") from None

    def change(self, state: DeviceState) -> int:
        """Bring it into another state; give the data descriptor that this opens, or -1.

        The kernel goes there step by step, so that it may have got stuck in between.

        Raises:
            SinkError: there is no way to it, or the driver refuses; the message tells in which
                state the device is.
        """
        present = self.state()
        if (present, state) in uapi.REFUSED:
            raise SinkError(f"{self.name}: there is no way from {present.name} to {state.name}")
        data = uapi.state_set(state)
        try:
            self._feature(data)
        except OSError as error:
            raise SinkError(
                f"{self.name}: cannot go to {state.name}: {text_of(error)};"
                f" it is in {self._state_name()}"
            ) from error
        return uapi.state_of(data)[1]

    def reset(self) -> None:
        """Reset it, which loses its state and leaves it RUNNING.

        Raises:
            SinkError: the driver cannot.
        """
        with failing(f"{self.name}: reset"):
            self.kernel.ioctl(self._fd, Ioctl.DEVICE_RESET)

    def make_running(self) -> None:
        """Bring it back to RUNNING, by a reset if need be.

        Raises:
            SinkError: it did not get there.
        """
        try:
            self.change(DeviceState.RUNNING)
        except SinkError:
            self.reset()
        if self.state() is not DeviceState.RUNNING:
            raise SinkError(f"{self.name}: it stays in {self._state_name()}, even when reset")

    def _feature(self, data: bytearray) -> None:
        self.kernel.ioctl(self._fd, Ioctl.DEVICE_FEATURE, data)

    def _state_name(self) -> str:
        try:
            return self.state().name
        except SinkError:
            return "an unknown state"


def open_device(text: str, kernel: Kernel) -> VfioDevice:
    """Open a device by any of its names, or an inherited descriptor (``device-fd:N``).

    Where a device has both nodes, the group's is taken.

    Raises:
        ValueError: this is no name of a device.
        SinkError: there is none, it is in use, or cannot be opened.
    """
    if match := INHERITED.fullmatch(text):
        with failing(text, {errno.EBADF: "no such descriptor was inherited"}):
            fd = kernel.duplicate(int(match[1]))
        held = ExitStack()
        held.callback(kernel.close, fd)
        return VfioDevice(fd, name=text, way="an inherited descriptor", kernel=kernel, held=held)
    return open_at(locate(text, kernel), kernel)


def open_at(location: Location, kernel: Kernel) -> VfioDevice:
    """Open a device that was found.

    Raises:
        SinkError: it is in use, or cannot be opened.
    """
    with ExitStack() as stack:
        if location.group:
            fd = _open_by_group(location, kernel, stack)
            way = f"{location.group} and a container"
        else:
            fd = _open_by_cdev(location, kernel, stack)
            way = f"{location.cdev} and an iommufd"
        # The stack closes the device before what it was opened by.
        return VfioDevice(
            fd,
            name=location.name,
            way=way,
            kernel=kernel,
            held=stack.pop_all(),
            location=location,
        )


@contextmanager
def failing(what: str, reasons: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn an OSError into a SinkError, with words of our own for some numbers."""
    try:
        yield
    except OSError as error:
        reason = (reasons or {}).get(error.errno or 0, "")
        told = f"{reason} ({text_of(error)})" if reason else text_of(error)
        raise SinkError(f"{what}: {told}") from error


def _open_node(path: str, kernel: Kernel, stack: ExitStack) -> int:
    with failing(path, _OPENING):
        fd = kernel.open(path)
    stack.callback(kernel.close, fd)
    return fd


def _open_by_group(location: Location, kernel: Kernel, stack: ExitStack) -> int:
    """Follow vfio/container.c:vfio_get_group, vfio_connect_container, vfio_get_device."""
    group = _open_node(location.group, kernel, stack)
    status = uapi.group_status()
    with failing(location.group):
        kernel.ioctl(group, Ioctl.GROUP_GET_STATUS, status)
    if GroupFlag.VIABLE not in uapi.group_flags(status):
        raise SinkError(
            f"{location.group}: the group is not viable: bind all of its devices to VFIO drivers"
        )
    container = _open_node(_CONTAINER, kernel, stack)
    with failing(_CONTAINER):
        version = kernel.ioctl(container, Ioctl.GET_API_VERSION)
    if version != uapi.API_VERSION:
        raise SinkError(f"{_CONTAINER}: version {version} of the interface is not known")
    with failing(location.group, _OPENING):
        kernel.ioctl(group, Ioctl.GROUP_SET_CONTAINER, uapi.fd_pointer(container))
    with failing(_CONTAINER):
        kernel.ioctl(container, Ioctl.SET_IOMMU, _iommu(container, kernel))
    with failing(location.name, _OPENING):
        fd = kernel.ioctl(group, Ioctl.GROUP_GET_DEVICE_FD, uapi.device_name(location.name))
    stack.callback(kernel.close, fd)
    return fd


def _iommu(container: int, kernel: Kernel) -> Iommu:
    for kind in Iommu:
        if kernel.ioctl(container, Ioctl.CHECK_EXTENSION, kind) > 0:
            return kind
    raise SinkError(f"{_CONTAINER}: no kind of IOMMU is supported: modprobe vfio_iommu_type1")


def _open_by_cdev(location: Location, kernel: Kernel, stack: ExitStack) -> int:
    """Follow vfio/iommufd.c:iommufd_cdev_connect_and_bind, iommufd_cdev_attach_ioas_hwpt."""
    iommufd = _open_node(_IOMMUFD, kernel, stack)
    fd = _open_node(location.cdev, kernel, stack)
    with failing(location.cdev, _BINDING):
        kernel.ioctl(fd, Ioctl.DEVICE_BIND_IOMMUFD, uapi.bind_iommufd(iommufd))
    ioas = uapi.ioas_alloc()
    with failing(_IOMMUFD):
        kernel.ioctl(iommufd, Ioctl.IOAS_ALLOC, ioas)
    with failing(location.cdev):
        attach = uapi.attach_iommufd(uapi.ioas_id(ioas))
        kernel.ioctl(fd, Ioctl.DEVICE_ATTACH_IOMMUFD_PT, attach)
    return fd
