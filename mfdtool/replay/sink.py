# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands behind the model's devices: a sink carries out what the model decides."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mfdtool.loader.blob import Blob
    from mfdtool.loader.state import Outcome


class Order(StrEnum):
    """Whether a schedule's order is the one in which things happen."""

    EXACT = "exact"
    ADVISORY = "advisory"
    """It is the order of sending; the destination may process it in another one."""


class Sink(Protocol):
    """Real devices, or what takes their place.

    Attributes:
        name: as ``--to`` names it.
        order: whether it keeps a schedule's order.
        failure: what went wrong first, in words; empty if nothing did.
        notes: what else is to be known, a sentence each.
    """

    @property
    def name(self) -> str: ...

    @property
    def order(self) -> Order: ...

    @property
    def failure(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def write(self, device: int, idx: int | None, data: Blob) -> int | None:
        """Write a buffer to a device; ``idx`` is None for data of the main stream.

        Gives the errno, 0 if the device took all of it, None if the sink does not have this
        device, so that the model answers.

        Raises:
            SinkError: it cannot be written at all, or its bytes were not captured.
        """

    def finish(self, outcome: Outcome | None) -> Mapping[int, bool]:
        """End, when the model has come to its outcome; None if the replay was stopped.

        Gives, by number of device, whether it runs with its state; what is not in there was not
        tried.
        """
