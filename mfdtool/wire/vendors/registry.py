# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers whose formats are known, and the choice among them by evidence.

Nothing is decoded by a guess that is no better than another: a choice says what speaks for it, or
why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from mfdtool.wire.vendors import hisi_acc, mlx5, mtty, virtio_vfio
from mfdtool.wire.vendors.vendor import (
    Confidence,
    Evidence,
    Guess,
    Vendor,
    failure_text,
    pci_text,
)


class Registry:
    """Drivers by name; of two with one name the first stays."""

    def __init__(self, vendors: Iterable[Vendor] = ()) -> None:
        self._vendors: dict[str, Vendor] = {}
        for vendor in vendors:
            self._vendors.setdefault(vendor.name, vendor)

    def __iter__(self) -> Iterator[Vendor]:
        return iter(self._vendors.values())

    @property
    def by_name(self) -> Mapping[str, Vendor]:
        """The drivers by their names."""
        return self._vendors

    def choose(self, evidence: Evidence) -> Choice:
        """Choose the driver that the most speaks for; one that fails is left out, and told."""
        guesses: list[tuple[Guess, Vendor]] = []
        failed: list[str] = []
        for vendor in self:
            try:
                guess = vendor.recognise(evidence)
            except Exception as error:
                # Anybody's plug-in: what it may raise is not known.
                failed.append(f"; driver {vendor.name} is left out: {failure_text(error)}")
            else:
                if guess is not None:
                    guesses.append((guess, vendor))
        choice = _best(guesses) if guesses else Choice(None, None, _nothing_known(evidence))
        return replace(choice, why=choice.why + "".join(failed))


@dataclass(frozen=True, slots=True)
class Choice:
    """A driver, how sure it is, and why; or no driver, and why not."""

    vendor: Vendor | None
    guess: Guess | None
    why: str


def _best(guesses: list[tuple[Guess, Vendor]]) -> Choice:
    """Choose among drivers that may be the one."""
    best = max(guess.confidence for guess, _ in guesses)
    first = [(guess, vendor) for guess, vendor in guesses if guess.confidence == best]
    guess, vendor = first[0]
    if best == Confidence.POSSIBLE or len(first) > 1:
        names = " or ".join(vendor.name for _, vendor in first)
        return Choice(None, None, f"could be {names}: {guess.why}")
    return Choice(vendor, guess, guess.why)


def _nothing_known(evidence: Evidence) -> str:
    """Say what was looked at in vain."""
    parts = []
    if evidence.head:
        parts.append(f"its data begins with {evidence.head[:8].hex(' ')}")
    if evidence.pci is not None:
        parts.append(f"PCI ids {pci_text(evidence.pci)}")
    return f"no driver that is known: {', '.join(parts) or 'neither data nor config'}"


BUILT_IN: Final = Registry((mtty.VENDOR, mlx5.VENDOR, virtio_vfio.VENDOR, hisi_acc.VENDOR))
"""The drivers that come with mfdtool."""
