# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings: rules that a migration breaks, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfdtool.rules import RULES_BY_NAME, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfdtool.loader.recording import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule broken once.

    Attributes:
        rule: which one.
        message: what is wrong, in one clause.
        migration: number of the migration.
        channel: name of the channel, empty if it is about no single one.
        number: number of the frame in the channel.
        offset: where the frame begins in the channel.
        device: idstr of the device that it is about.
    """

    rule: Rule
    message: str
    migration: int = 0
    channel: str = ""
    number: int | None = None
    offset: int | None = None
    device: str | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.rule.severity


def finding(
    rule: str,
    message: str,
    *,
    migration: int = 0,
    entry: Entry | None = None,
    device: str | None = None,
) -> Finding:
    """Make a finding about a rule by its name, at an entry of the recording if at any."""
    return Finding(
        rule=RULES_BY_NAME[rule],
        message=message,
        migration=migration,
        channel=entry.channel if entry is not None else "",
        number=entry.number if entry is not None else None,
        offset=entry.offset if entry is not None else None,
        device=device,
    )


def merged(*groups: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put findings together, each rule once per place; of two at one place the first stays.

    What is said of a device as a whole is left out if it was said of a frame of it before.
    """
    seen: dict[tuple[str, str, int | None, str | None], Finding] = {}
    devices: set[tuple[str, str | None]] = set()
    for group in groups:
        said = frozenset(devices)
        for found in group:
            if not found.channel and found.device and (found.rule.id, found.device) in said:
                continue
            device = None if found.channel else found.device
            seen.setdefault((found.rule.id, found.channel, found.number, device), found)
            devices.add((found.rule.id, found.device))
    return tuple(seen.values())
