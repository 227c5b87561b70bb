# SPDX-License-Identifier: GPL-2.0-or-later
"""``--destination``: what the user says of the destination, as text.

::

    transfer=off   channels=4   config-after-iter=on   max-queued=1048576   memory=8G
    machine=pc-q35-10.0   compression=zlib   switchover-ack=on   multifd=off
    device=none
    device=0000:00:05.0/vfio
    device=0000:00:05.0/vfio,mtty-ports=2,transfer=off,instance=1,p2p=off,reset=fails,write=hangs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mfdtool.wire.constants import MultiFDFlag

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination, DeviceSpec
    from mfdtool.wire.profile import Profile

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,20})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SWITCHES: Final = {"on": True, "off": False}
_COMPRESSIONS: Final = {
    "none": 0,
    **{flag.name.lower(): flag.value for flag in MultiFDFlag if flag.name is not None},
}
_NO_DEVICE: Final = "none"
_SHORT_PATH: Final = re.compile(r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOption:
    """One ``device=``; what is None is taken from the recording."""

    idstr: str
    instance: int = 0
    transfer: bool | None = None
    mtty_ports: int | None = None
    p2p: bool = True
    resets: bool = True
    hangs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationOptions:
    """All that was said; what is None is taken from the recording.

    ``devices`` is None if none was named, and empty if ``device=none`` was.
    """

    devices: tuple[DeviceOption, ...] | None = None
    transfer: bool | None = None
    multifd: bool | None = None
    channels: int | None = None
    config_after_iter: bool | None = None
    max_queued: int | None = None
    memory: int | None = None
    machine: str | None = None
    compression: int | None = None
    switchover_ack: bool | None = None

    def unknown_to(self, profile: Profile) -> tuple[str, ...]:
        """Name the options whose properties a release does not have."""
        is_limited, is_late = self.max_queued is not None, bool(self.config_after_iter)
        known = {
            "max-queued": profile.has_queue_limit or not is_limited,
            "config-after-iter": profile.has_load_ready or not is_late,
        }
        return tuple(name for name, is_known in known.items() if not is_known)


def parse_options(texts: Iterable[str]) -> DestinationOptions:
    """Read the values of ``--destination``; later ones replace earlier ones, devices add up.

    Raises:
        ValueError: one of them is not understood; the text says which and why.
    """
    options = DestinationOptions()
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise ValueError(f"{text!r} is not NAME=VALUE")
        if name == "device":
            devices = options.devices or ()
            if value == _NO_DEVICE:
                options = replace(options, devices=())
            else:
                options = replace(options, devices=(*devices, parse_device(value)))
            continue
        known = _OPTIONS.get(name)
        if known is None:
            names = ", ".join(["device", *_OPTIONS])
            raise ValueError(f"{text!r}: there is no {name!r}, only {names}")
        field, convert = known
        options = replace(options, **_converted(text, field, convert, value))
    return options


def texts_for(wanted: Destination, shown: Destination) -> list[str]:
    """Give values that make of ``shown``, which a recording alone suggests, what is ``wanted``.

    What cannot be said is left out, so :func:`parse_options` may not make all of it.
    """
    texts = []
    if wanted.devices != shown.devices:
        texts += [_device_text(spec) for spec in wanted.devices] or [f"device={_NO_DEVICE}"]
    for name, (field, _) in _OPTIONS.items():
        value = getattr(wanted, field, None)
        if value is not None and value != getattr(shown, field, None):
            texts.append(f"{name}={_value_text(name, value)}")
    return texts


def _value_text(name: str, value: object) -> str:
    if name == "compression":
        return next(text for text, flag in _COMPRESSIONS.items() if flag == value)
    return _switch_text(value) if isinstance(value, bool) else str(value)


def _device_text(spec: DeviceSpec) -> str:
    return f"device={spec.idstr}," + ",".join(_details(spec))


def _details(spec: DeviceSpec) -> Iterator[str]:
    if spec.mtty_ports is not None:
        yield f"mtty-ports={spec.mtty_ports}"
    yield f"transfer={_switch_text(spec.transfer)}"
    if spec.instance_id:
        yield f"instance={spec.instance_id}"
    if not spec.has_p2p:
        yield "p2p=off"
    if not spec.can_reset:
        yield "reset=fails"
    if spec.write_hangs:
        yield "write=hangs"


def _switch_text(value: object) -> str:
    return "on" if value else "off"


def parse_device(text: str) -> DeviceOption:
    """Read what follows ``device=``.

    Raises:
        ValueError: it is not understood.
    """
    path, *details = text.split(",")
    if not path:
        raise ValueError(f"device={text}: a device has a name")
    option = DeviceOption(idstr=full_idstr(path))
    for detail in details:
        name, _, value = detail.partition("=")
        known = _DEVICE_OPTIONS.get(name)
        if known is None:
            raise ValueError(
                f"device={text}: there is no {name!r}, only {', '.join(_DEVICE_OPTIONS)}"
            )
        field, convert = known
        option = replace(option, **_converted(f"device={text}", field, convert, value))
    return option


def full_idstr(path: str) -> str:
    """Complete a device's name: of ``00:05.0`` the domain, of a PCI path ``/vfio``."""
    if _SHORT_PATH.match(path):
        path = f"0000:{path}"
    return path if "/" in path else f"{path}/vfio"


def _converted(text: str, field: str, convert: Callable[[str], Any], value: str) -> dict[str, Any]:
    try:
        return {field: convert(value)}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{text!r}: {value!r} is no such value") from error


def _switch(text: str) -> bool:
    return _SWITCHES[text]


def _maybe_switch(text: str) -> bool | None:
    return None if text == "auto" else _SWITCHES[text]


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2].upper()]


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 255:
        raise ValueError(text)
    return number


_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "transfer": ("transfer", _maybe_switch),
    "multifd": ("multifd", _switch),
    "channels": ("channels", _count),
    "config-after-iter": ("config_after_iter", _maybe_switch),
    "max-queued": ("max_queued", _size),
    "memory": ("memory", _size),
    "machine": ("machine", str),
    "compression": ("compression", _COMPRESSIONS.__getitem__),
    "switchover-ack": ("switchover_ack", _switch),
}

_DEVICE_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "mtty-ports": ("mtty_ports", _count),
    "transfer": ("transfer", _maybe_switch),
    "instance": ("instance", _count),
    "p2p": ("p2p", _switch),
    "reset": ("resets", {"works": True, "fails": False}.__getitem__),
    "write": ("hangs", {"works": False, "hangs": True}.__getitem__),
}
