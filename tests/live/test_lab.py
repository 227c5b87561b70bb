# SPDX-License-Identifier: GPL-2.0-or-later
"""Every scenario of the lab passes inside the machine."""

from __future__ import annotations

import pytest

from tests.live.conftest import Played
from tests.live.lab.scenarios import SCENARIOS


@pytest.mark.live
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.scenario(name)) for name in SCENARIOS]
)
def test_scenario(name: str, played: Played) -> None:
    assert played.folder.name == name
    assert played.result.seconds <= SCENARIOS[name].seconds
