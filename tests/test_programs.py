# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that lack a program are skipped, except where everything must be there."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support.programs import REQUIRE, need_program

MISSING = "mfdtool-there-is-no-such-program"


def test_a_program_that_is_there() -> None:
    assert need_program("sh") == shutil.which("sh")


def test_a_program_that_only_root_has_in_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    path = need_program("ldconfig")
    assert path in {"/usr/sbin/ldconfig", "/sbin/ldconfig"}
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("value", ["", "0"])
def test_without_it_a_test_is_skipped(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, value)
    with pytest.raises(pytest.skip.Exception, match=f"{MISSING} is not installed"):
        need_program(MISSING)


def test_where_the_lab_is_required_a_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match=f"{REQUIRE}=1, but {MISSING} is not installed"):
        need_program(MISSING)
