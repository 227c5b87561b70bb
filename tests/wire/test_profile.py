# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences between QEMU releases."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mfdtool.wire.profile import DEFAULT_PROFILE, PROFILES, MainStreamErrors, Profile, profile


def test_names() -> None:
    assert list(PROFILES) == ["10.0", "10.1", "10.2", "11.1"]
    for name, found in PROFILES.items():
        assert found.name == name
        assert profile(name) is found
    assert profile("10.0.2") is DEFAULT_PROFILE is PROFILES["10.0"]
    assert profile("11.1.3") is PROFILES["11.1"]


@pytest.mark.parametrize("name", ["", "10", "9.2", "10.3", "auto", "11.10"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"only 10\.0, 10\.1, 10\.2, 11\.1"):
        profile(name)


def test_load_ready_and_queue_limit_came_with_10_1() -> None:
    assert [found.has_load_ready for found in PROFILES.values()] == [False, True, True, True]
    assert [found.has_queue_limit for found in PROFILES.values()] == [False, True, True, True]


def test_errors_are_recorded_since_10_2() -> None:
    assert [found.main_stream_errors for found in PROFILES.values()] == [
        MainStreamErrors.PRINTED,
        MainStreamErrors.PRINTED,
        MainStreamErrors.RECORDED,
        MainStreamErrors.RECORDED,
    ]
    assert PROFILES["10.0"].short_config_errno == 5
    assert PROFILES["11.1"].short_config_errno == 22


def test_every_switch_is_explained() -> None:
    assert Profile.__doc__
    for field in fields(Profile):
        assert f"{field.name}: " in Profile.__doc__
