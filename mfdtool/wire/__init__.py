# SPDX-License-Identifier: GPL-2.0-or-later
"""What the bytes of a migration mean: schemas, values, numbers. No I/O, no streams."""

from __future__ import annotations
