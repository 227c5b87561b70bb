# SPDX-License-Identifier: GPL-2.0-or-later
"""What a destination does about an event, as values: whoever drives the loader carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mfdtool.loader.blob import Blob, Key
    from mfdtool.loader.events import Actor


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace event of QEMU is reached; ``args`` are its arguments, a device's number for NAME."""

    actor: Actor
    name: str
    args: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteBuffer:
    """Bytes are written to a device's data fd; ``idx`` is None for those of the main stream."""

    device: int
    idx: int | None
    data: Blob


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """A device's config is loaded."""

    device: int
    data: Blob


@dataclass(frozen=True, slots=True)
class SetState:
    """A device is asked for a migration state (linux/vfio.h:vfio_device_mig_state)."""

    device: int
    state: str


@dataclass(frozen=True, slots=True)
class Reset:
    """A device is reset: what it got is lost."""

    device: int


@dataclass(frozen=True, slots=True)
class Print:
    """A line is written to stderr."""

    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """The first error of the migration is recorded (migration.c:migrate_set_error)."""

    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A message is sent on the return path."""

    name: str
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Violate:
    """A rule is broken: by the event, or by what arrived earlier as ``origin``."""

    rule: str
    message: str
    device: int | None = None
    origin: Key | None = None


@dataclass(frozen=True, slots=True)
class Complete:
    """The migration is loaded and the guest runs."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The destination gives up in order; ``text`` is the error that it prints last."""

    text: str


@dataclass(frozen=True, slots=True)
class Abort:
    """The destination is killed by a signal; ``text`` is what it prints, None if nothing."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """The event cannot happen now, and nothing changed."""

    actor: Actor
    why: str


Command: TypeAlias = (
    Trace
    | WriteBuffer
    | LoadConfig
    | SetState
    | Reset
    | Print
    | Record
    | Reply
    | Violate
    | Complete
    | Fail
    | Abort
    | Blocked
)
