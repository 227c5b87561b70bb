# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to know of a driver's format, as a value.

A decoder is a generator over a :class:`~mfdtool.wire.vendors.cursor.Cursor`. It reads like
blocking code, gives a :class:`Record` whenever one has ended, and None while it waits. It may
raise WireError, behind which nothing is decoded; so it is where it fails in any other way::

    def decode(cursor: Cursor) -> Records:
        while (yield from cursor.more()):
            start = cursor.position
            size, kind = HEADER.unpack((yield from cursor.read(HEADER.size)))
            missing = yield from cursor.skip(size)
            yield Record(offset=start, length=HEADER.size + size, name=str(kind), missing=missing)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mfdtool.wire.vendors.cursor import Cursor

FieldValue: TypeAlias = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A stretch of a device's state that belongs together.

    Attributes:
        offset: where it begins, in bytes from the start of the device's state.
        length: its bytes, header and payload; what it claims if the state ends inside it.
        header: how many of them are header; the payload is behind it, and is not copied.
        name: what the driver's source calls it.
        fields: values of its header by the names of the driver's source, in order.
        missing: how many of its bytes the capture lacks.
        problem: what is wrong with it, empty if nothing is.
    """

    offset: int
    length: int
    header: int = 0
    name: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    missing: int = 0
    problem: str = ""


Records: TypeAlias = Generator[Record | None, None, None]
"""What a decoder gives: records, and None whenever it needs more bytes."""


class Confidence(IntEnum):
    """How sure it is that a driver wrote some state."""

    POSSIBLE = 1
    """Nothing speaks against it. Not enough to decode by."""
    LIKELY = 2
    """The device is one of the driver's, or the bytes have its shape and hardly another's."""
    CERTAIN = 3
    """A number is there that has no other meaning, or device and bytes agree."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a driver can be told by.

    Attributes:
        head: the first bytes of the state, `HEAD_SIZE` of them if there are so many.
        pci: vendor and device id of the config; None if no config was captured.
    """

    head: bytes = b""
    pci: tuple[int, int] | None = None


HEAD_SIZE = 64
"""Bytes of a state that may be looked at to tell whose it is."""


@dataclass(frozen=True, slots=True)
class Guess:
    """How sure it is that a driver wrote some state, and by what, in one clause."""

    confidence: Confidence
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A driver whose format is known.

    Attributes:
        name: the driver's name, as Linux has it.
        text: what its devices are.
        source: where the format is defined, as ``path/file.c:symbol``.
        recognise: weighs evidence; None if this cannot be the driver.
        decode: cuts a state into records.
    """

    name: str
    text: str
    source: str
    recognise: Callable[[Evidence], Guess | None]
    decode: Callable[[Cursor], Records]


def by_ids(evidence: Evidence, devices: Collection[tuple[int, int]]) -> Guess | None:
    """Weigh the device's ids alone; data that is there does not look like the driver's."""
    if evidence.pci is None or evidence.pci not in devices:
        return None
    why = f"PCI ids {pci_text(evidence.pci)}"
    if evidence.head:
        return Guess(Confidence.POSSIBLE, f"{why}, but its data does not begin as the driver's")
    return Guess(Confidence.LIKELY, why)


def pci_text(pci: tuple[int, int]) -> str:
    """Write PCI ids as ``lspci`` does."""
    return f"{pci[0]:04x}:{pci[1]:04x}"


def failure_text(error: BaseException) -> str:
    """Say how a driver's code failed, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
