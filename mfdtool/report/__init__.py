# SPDX-License-Identifier: GPL-2.0-or-later
"""Results to text. Returns strings, prints nothing."""

from __future__ import annotations
