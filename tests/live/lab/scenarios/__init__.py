# SPDX-License-Identifier: GPL-2.0-or-later
"""All scenarios, in the order in which they run. A new module is named here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.live.lab.scenario import Scenario
from tests.live.lab.scenarios import (
    bisect_qemu,
    device,
    migration,
    proxy,
    record,
    replay_device,
    replay_qemu,
    vectors,
)

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for module in (
        device,
        record,
        replay_device,
        replay_qemu,
        bisect_qemu,
        migration,
        proxy,
        vectors,
    )
    for scenario in module.SCENARIOS
}
