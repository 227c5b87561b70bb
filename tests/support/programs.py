# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that some tests compare with, and that a machine may lack.

A test that needs one is skipped without it. With ``MFDTOOL_REQUIRE_LAB=1``, as in continuous
integration, it fails: there, a test that nobody runs would pass for good.
"""

from __future__ import annotations

import os
import shutil
from typing import Final, NoReturn

import pytest

REQUIRE: Final = "MFDTOOL_REQUIRE_LAB"

_ADMINISTRATORS: Final = "/usr/sbin:/sbin"
"""Where programs are that a user's PATH may leave out."""


def lack(reason: str) -> NoReturn:
    """End a test that lacks something: skip it, or fail it if everything must be there."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE}=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def find_program(name: str) -> str | None:
    """Give a program's path, if it is installed."""
    return shutil.which(name) or shutil.which(name, path=_ADMINISTRATORS)


def need_program(name: str) -> str:
    """Give a program's path; end the test if it is not installed."""
    return find_program(name) or lack(f"{name} is not installed")
