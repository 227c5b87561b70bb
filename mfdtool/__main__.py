# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the command line as ``python -m mfdtool``."""

from __future__ import annotations

from mfdtool.cli import main

main()
