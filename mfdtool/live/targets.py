# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``--to`` names: where a replay goes.

::

    model                   nowhere: only the reference destination runs
    fd:N                    an inherited data descriptor; bytes are written, nothing else
    device:PATH             a VFIO device, by its path
    device-fd:N             a VFIO device that was opened already
    qemu:tcp:HOST:PORT      a QEMU that waits for an incoming migration
    qemu:unix:PATH          the same at a UNIX socket
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from mfdtool.live.device_sink import DeviceSink
from mfdtool.live.fd_sink import FdSink
from mfdtool.live.qemu.source import Dial, tcp, unix

if TYPE_CHECKING:
    from mfdtool.live.vfio.device import VfioDevice
    from mfdtool.loader.destination import Destination
    from mfdtool.replay.sink import Sink


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """The reference destination alone."""

    KIND: ClassVar[str] = "model"

    def __str__(self) -> str:
        return self.KIND


@dataclass(frozen=True, slots=True)
class FdTarget:
    """A descriptor that takes one device's data."""

    KIND: ClassVar[str] = "fd"
    number: int

    def __str__(self) -> str:
        return f"{self.KIND}:{self.number}"


@dataclass(frozen=True, slots=True)
class DeviceTarget:
    """A VFIO device by its path, or by what else names it."""

    KIND: ClassVar[str] = "device"
    path: str

    def __str__(self) -> str:
        return f"{self.KIND}:{self.path}"


@dataclass(frozen=True, slots=True)
class DeviceFdTarget:
    """A VFIO device by an open descriptor."""

    KIND: ClassVar[str] = "device-fd"
    number: int

    def __str__(self) -> str:
        return f"{self.KIND}:{self.number}"


@dataclass(frozen=True, slots=True)
class QemuTcpTarget:
    """A QEMU that listens on TCP; ``host`` is without the brackets of an IPv6 address."""

    KIND: ClassVar[str] = "qemu:tcp"
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.KIND}:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class QemuUnixTarget:
    """A QEMU that listens at a UNIX socket."""

    KIND: ClassVar[str] = "qemu:unix"
    path: str

    def __str__(self) -> str:
        return f"{self.KIND}:{self.path}"


Target: TypeAlias = (
    ModelTarget | FdTarget | DeviceTarget | DeviceFdTarget | QemuTcpTarget | QemuUnixTarget
)

MODEL_TARGET: Final = ModelTarget()

_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_TCP: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):([0-9]{1,5})")
_MAX_PORT: Final = 65535


def parse_target(text: str) -> Target:
    """Read the value of ``--to``.

    Raises:
        ValueError: it is none; the message says what there is.
    """
    if text == ModelTarget.KIND:
        return MODEL_TARGET
    for kind, make in _PARSERS.items():
        if text.startswith(f"{kind}:"):
            return make(text.removeprefix(f"{kind}:"))
    raise ValueError(
        f"{text!r} is none of model, fd:N, device:PATH, device-fd:N, qemu:tcp:HOST:PORT,"
        " qemu:unix:PATH"
    )


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not the number of a descriptor")
    return int(text)


def _path(text: str) -> str:
    if not text:
        raise ValueError("the path is missing")
    return text


def _tcp(text: str) -> QemuTcpTarget:
    match = _TCP.fullmatch(text)
    if match is None or not 0 < int(match[3]) <= _MAX_PORT:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return QemuTcpTarget(match[1] or match[2], int(match[3]))


_PARSERS: Final[Mapping[str, Callable[[str], Target]]] = {
    FdTarget.KIND: lambda text: FdTarget(_number(text)),
    DeviceTarget.KIND: lambda text: DeviceTarget(_path(text)),
    DeviceFdTarget.KIND: lambda text: DeviceFdTarget(_number(text)),
    QemuTcpTarget.KIND: _tcp,
    QemuUnixTarget.KIND: lambda text: QemuUnixTarget(_path(text)),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sink is opened for.

    Attributes:
        target: where the replay goes.
        destination: the model of it.
        device: the number of the only device that it is about; None for all.
        opened: the open device, if the target is one.
        config: the recorded config state of that device; None if there is none.
    """

    target: Any
    destination: Destination
    device: int | None
    opened: VfioDevice | None = None
    config: bytes | None = None


def _open_fd(wanted: Wanted) -> AbstractContextManager[Sink]:
    assert wanted.device is not None
    return FdSink(wanted.target.number, wanted.device)


def _open_device(wanted: Wanted) -> AbstractContextManager[Sink]:
    assert wanted.device is not None
    assert wanted.opened is not None
    name = str(wanted.target)
    return DeviceSink(wanted.opened, wanted.device, name=name, config=wanted.config)


_SINKS: Final[Mapping[type, Callable[[Wanted], AbstractContextManager[Sink]]]] = {
    FdTarget: _open_fd,
    DeviceTarget: _open_device,
    DeviceFdTarget: _open_device,
}
"""How each kind of target is opened; the model needs nothing."""

ONE_DEVICE: Final = frozenset({FdTarget, DeviceTarget, DeviceFdTarget})
"""Targets that are one device."""

VFIO: Final = frozenset({DeviceTarget, DeviceFdTarget})
"""Targets that are VFIO devices: somebody must have opened them."""


def dial_of(target: QemuTcpTarget | QemuUnixTarget) -> Dial:
    """Give what makes connections to a QEMU."""
    if isinstance(target, QemuTcpTarget):
        return tcp(target.host, target.port)
    return unix(target.path)


def uri_of(target: QemuTcpTarget | QemuUnixTarget) -> str:
    """Give the address as ``migrate-incoming`` takes it."""
    return str(target).removeprefix("qemu:")


def open_sink(wanted: Wanted) -> AbstractContextManager[Sink]:
    """Open a target that is not the model.

    Raises:
        SinkError: it cannot be opened, when the context is entered.
    """
    return _SINKS[type(wanted.target)](wanted)
