# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel with VFIO devices that behave as the real sample device mtty was seen to.

The same tests run against this one and, in the lab, against the real one.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from mfdtool.live.vfio.uapi import (
    NO_FD,
    REFUSED,
    DeviceState,
    Feature,
    FeatureFlag,
    GroupFlag,
    Ioctl,
    Iommu,
    MigrationFlag,
)

_MAGIC: Final = 0x7E9D09898C3E2C4E
_HEADER: Final = Struct("<QIIIxxxx")
"""Magic, major version, minor version, number of ports."""
_PORT_SIZE: Final = 36
_ALL_FLAGS: Final = MigrationFlag.STOP_COPY | MigrationFlag.P2P | MigrationFlag.PRE_COPY
_U64: Final = Struct("=IIQ")
_STATE: Final = Struct("=IIIi")
_PRECOPY: Final = Struct("=IIQQ")
_REGION: Final = Struct("=IIIIQQ")
_CONFIG_OFFSET: Final = 7 << 40

MTTY_CONFIG: Final = bytes.fromhex(
    "4843533201000002100200070000000001000000010000000000000000000000"
    "0000000000000000000000004843533200000000000000000000000000010000"
    "2300008023000000230000002300000000000000000000000000000000000000"
    "5043492053657269616c2f55415254"
).ljust(255, b"\0")
"""Config space of the real mtty of two ports."""

_S = DeviceState
_SAVING: Final = frozenset({_S.PRE_COPY, _S.PRE_COPY_P2P, _S.STOP_COPY})
_ARCS: Final = {
    _S.RUNNING: (_S.RUNNING_P2P, _S.PRE_COPY),
    _S.RUNNING_P2P: (_S.RUNNING, _S.STOP, _S.PRE_COPY_P2P),
    _S.STOP: (_S.RUNNING_P2P, _S.STOP_COPY, _S.RESUMING),
    _S.PRE_COPY: (_S.RUNNING, _S.PRE_COPY_P2P),
    _S.PRE_COPY_P2P: (_S.RUNNING_P2P, _S.PRE_COPY, _S.STOP_COPY),
    _S.STOP_COPY: (_S.STOP,),
    _S.RESUMING: (_S.STOP,),
    _S.ERROR: (),
}


def state_bytes(*, ports: int = 2, fill: int = 0x5A) -> bytes:
    """Give the state of an mtty whose ports hold one byte over and over."""
    return _HEADER.pack(_MAGIC, 1, 0, ports) + bytes([fill]) * (_PORT_SIZE * ports)


@dataclass(slots=True)
class FakeDevice:
    """One device.

    Attributes:
        name: PCI address or UUID.
        ports: serial ports: what its state's size comes from.
        driver: driver in sysfs; empty for none.
        group: number of its IOMMU group; None if it has no node.
        cdev: number of its own node; None if there is none.
        flags: migration states; 0 for a driver without migration.
        config: PCI config space; empty for a device that is not PCI.
        short: most bytes that a read or write takes.
        busy: how many reads and writes say EAGAIN first.
    """

    name: str = "83b8f4f2-509f-382f-3c1e-000000000001"
    ports: int = 2
    driver: str = "mtty"
    group: int | None = 0
    cdev: int | None = None
    flags: MigrationFlag = _ALL_FLAGS
    config: bytes = MTTY_CONFIG
    short: int = 1 << 30
    busy: int = 0
    fill: int = 0x5A
    state: DeviceState = DeviceState.RUNNING
    opened: int = 0
    session: _Data | None = None

    @property
    def data(self) -> bytes:
        """Its state."""
        return state_bytes(ports=self.ports, fill=self.fill)

    def reset(self) -> None:
        """Go back to RUNNING without a session."""
        self.state, self.session = DeviceState.RUNNING, None

    def go(self, target: DeviceState) -> _Data | None:
        """Walk to a state; give the session that the last step opened."""
        opened = None
        for step in self._route(target):
            opened = self._step(step)
            self.state = step
        return opened

    def _route(self, target: DeviceState) -> list[DeviceState]:
        assert (self.state, target) not in REFUSED, "the real kernel hangs"
        waiting = deque([[self.state]])
        while waiting:
            way = waiting.popleft()
            if way[-1] is target:
                return way[1:]
            if len(way) > 1 and way[-1] in _SAVING and self.state not in _SAVING:
                continue
            waiting += [[*way, each] for each in _ARCS[way[-1]] if each not in way]
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _step(self, step: DeviceState) -> _Data | None:
        if self.state is DeviceState.RESUMING and self.session is not None:
            if len(self.session.data) < len(self.data):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self.fill = self.session.data[-1]
        if step is DeviceState.STOP_COPY and self.session is not None:
            self.session.data = bytearray(self.data)
            return None
        if step in {DeviceState.RUNNING, DeviceState.STOP, DeviceState.RUNNING_P2P}:
            self.session = None
            return None
        if self.session is None:
            self.session = _Data(self)
            if step is DeviceState.PRE_COPY:
                self.session.data = bytearray(self.data[: _HEADER.size])
            elif step is DeviceState.STOP_COPY:
                self.session.data = bytearray(self.data)
            return self.session
        return None


@dataclass(slots=True)
class _Data:
    """An open session's data file."""

    device: FakeDevice
    data: bytearray = field(default_factory=bytearray)
    position: int = 0


@dataclass(slots=True)
class _File:
    """An open file: a node, a device, or a session."""

    path: str
    device: FakeDevice | None = None
    session: _Data | None = None
    container: int = NO_FD


class FakeKernel:
    """A kernel; ``fails`` tells which calls fail, by path opened or request, and with what."""

    def __init__(self, devices: Iterable[FakeDevice], *, viable: bool = True) -> None:
        self.devices = list(devices)
        self.viable = viable
        self.version = 0
        self.iommus = frozenset({Iommu.TYPE1V2, Iommu.TYPE1})
        self.fails: dict[str | int, int] = {}
        self.refused: dict[DeviceState, int] = {}
        self.waited: list[float] = []
        self.ready = True
        self.no_vfio = False
        self._files: dict[int, _File] = {}
        self._next = 10

    @property
    def open_files(self) -> list[str]:
        """What is open."""
        return [file.path for file in self._files.values()]

    def inherit(self, device: FakeDevice) -> int:
        """Open a device as a parent process would have."""
        device.opened += 1
        return self._add(_File("inherited", device=device))

    # System calls

    def open(self, path: str) -> int:
        """Open a node."""
        self._fail(path)
        device = next((each for each in self.devices if path in self._nodes(each)), None)
        if device is None and path not in {"/dev/vfio/vfio", "/dev/iommu"}:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if path == f"/dev/vfio/{device.group if device else None}" and path in self.open_files:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return self._add(_File(path, device=device))

    def duplicate(self, fd: int) -> int:
        """Give another descriptor."""
        return self._add(self._file(fd))

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        file = self._file(fd)
        del self._files[fd]
        if file.path == "device" and file.device is not None:
            file.device.opened -= 1

    def ioctl(self, fd: int, request: int, argument: bytearray | int = 0) -> int:
        """Do a request."""
        self._fail(request)
        file = self._file(fd)
        if isinstance(argument, bytearray):
            return self._structured(file, Ioctl(request), argument)
        if request == Ioctl.GET_API_VERSION:
            return self.version
        if request == Ioctl.CHECK_EXTENSION:
            return int(argument in self.iommus)
        if request == Ioctl.DEVICE_RESET and file.device is not None:
            file.device.reset()
        return 0

    def read(self, fd: int, size: int) -> bytes:
        """Read a session's data."""
        session = self._session(fd, "read")
        start = session.position
        data = bytes(session.data[start : start + min(size, session.device.short)])
        session.position += len(data)
        return data

    def write(self, fd: int, data: memoryview) -> int:
        """Write a session's data: judged when the header is there."""
        session = self._session(fd, "write")
        taken = bytes(data[: session.device.short])
        before = len(session.data)
        if before + len(data) > len(session.device.data):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        session.data += taken
        if before < _HEADER.size <= len(session.data):
            wanted = session.device.data[: _HEADER.size]
            if session.data[: _HEADER.size] != wanted:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return len(taken)

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read the config space."""
        self._fail("config")
        device = self._file(fd).device
        assert device is not None
        assert offset == _CONFIG_OFFSET
        return device.config[:size]

    def wait(self, fd: int, *, seconds: float, writing: bool) -> bool:
        """Note that somebody would wait."""
        self._file(fd)
        self.waited.append(seconds)
        return self.ready

    # Sysfs

    def resolve(self, path: str) -> str:
        """Follow the links that there are."""
        for device in self.devices:
            folder = f"/sys/devices/fake/{device.name}"
            places = {
                f"/sys/bus/pci/devices/{device.name}": folder,
                f"/sys/bus/mdev/devices/{device.name}": folder,
                f"/sys/kernel/iommu_groups/{device.group}/devices/{device.name}": folder,
                f"/sys/class/vfio-dev/vfio{device.cdev}/device": folder,
                folder: folder,
            }
            if device.driver:
                places[f"{folder}/driver"] = f"/sys/bus/pci/drivers/{device.driver}"
            if device.group is not None:
                places[f"{folder}/iommu_group"] = f"/sys/kernel/iommu_groups/{device.group}"
            if path in places:
                return places[path]
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def names(self, path: str) -> list[str]:
        """List a folder."""
        for device in self.devices:
            if path == f"/sys/devices/fake/{device.name}/vfio-dev" and device.cdev is not None:
                return [f"vfio{device.cdev}"]
        found = [
            device.name
            for device in self.devices
            if path == f"/sys/kernel/iommu_groups/{device.group}/devices"
        ]
        if not found:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return found

    def exists(self, path: str) -> bool:
        """Tell whether there is a node."""
        nodes = {node for device in self.devices for node in self._nodes(device)}
        return not self.no_vfio and (path == "/dev/vfio" or path in nodes)

    # Inside

    def _nodes(self, device: FakeDevice) -> set[str]:
        is_ours = device.driver in {"mtty", "vfio-pci"}
        nodes = {f"/dev/vfio/{device.group}"} if device.group is not None and is_ours else set()
        return nodes | (
            {f"/dev/vfio/devices/vfio{device.cdev}"} if device.cdev is not None else nodes
        )

    def _add(self, file: _File) -> int:
        self._next += 1
        self._files[self._next] = file
        return self._next

    def _file(self, fd: int) -> _File:
        if fd not in self._files:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._files[fd]

    def _fail(self, what: str | int) -> None:
        if what in self.fails:
            number = self.fails[what]
            raise OSError(number, os.strerror(number))

    def _session(self, fd: int, what: str) -> _Data:
        session = self._file(fd).session
        assert session is not None
        if session.device.busy:
            session.device.busy -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._fail(what)
        return session

    def _structured(self, file: _File, request: Ioctl, data: bytearray) -> int:
        device = file.device
        match request:
            case Ioctl.GROUP_GET_STATUS:
                data[4:8] = int(GroupFlag.VIABLE if self.viable else 0).to_bytes(4, "little")
            case Ioctl.GROUP_GET_DEVICE_FD:
                name = bytes(data).rstrip(b"\0").decode()
                named = [each for each in self.devices if each.name == name]
                if not named:
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
                named[0].opened += 1
                return self._add(_File("device", device=named[0]))
            case Ioctl.DEVICE_GET_INFO:
                assert device is not None
                data[4:8] = (3 if device.config else 1).to_bytes(4, "little")
            case Ioctl.DEVICE_GET_REGION_INFO:
                assert device is not None
                _REGION.pack_into(data, 0, 32, 0, 7, 0, len(device.config), _CONFIG_OFFSET)
            case Ioctl.DEVICE_BIND_IOMMUFD:
                assert device is not None
                if device.opened:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                device.opened += 1
                file.path = "device"
            case Ioctl.MIG_GET_PRECOPY_INFO:
                assert file.session is not None
                _PRECOPY.pack_into(
                    data, 0, 24, 0, len(file.session.data) - file.session.position, 0
                )
            case Ioctl.DEVICE_FEATURE:
                assert device is not None
                self._feature(device, data)
            case _:
                pass
        return 0

    def _feature(self, device: FakeDevice, data: bytearray) -> None:
        flags = int.from_bytes(data[4:8], "little")
        feature = Feature(flags & 0xFFFF)
        self._fail(feature | 0x10000)
        if not device.flags:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        if feature is Feature.MIGRATION:
            _U64.pack_into(data, 0, 16, flags, device.flags)
        elif feature is Feature.MIG_DATA_SIZE:
            _U64.pack_into(data, 0, 16, flags, len(device.data))
        elif feature is Feature.MIG_DEVICE_STATE and flags & FeatureFlag.SET:
            target = DeviceState(_STATE.unpack(data)[2])
            if target in self.refused:
                raise OSError(self.refused[target], os.strerror(self.refused[target]))
            session = device.go(target)
            fd = NO_FD if session is None else self._add(_File("data", session=session))
            _STATE.pack_into(data, 0, 16, flags, target, fd)
        elif feature is Feature.MIG_DEVICE_STATE:
            _STATE.pack_into(data, 0, 16, flags, device.state, NO_FD)
