# SPDX-License-Identifier: GPL-2.0-or-later
"""A real mtty does what the fake one does."""

from __future__ import annotations

from typing import Final

from tests.live.lab.device_checks import CHECKS, Check
from tests.live.lab.scenario import Inside, Scenario


def _checking(name: str, check: Check) -> Scenario:
    def run(inside: Inside) -> None:
        check(inside.kernel, inside.device(), inside.device())

    return Scenario(name=f"device-{name.replace('_', '-')}", run=run)


SCENARIOS: Final = tuple(_checking(name, check) for name, check in CHECKS.items())
