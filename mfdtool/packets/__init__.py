# SPDX-License-Identifier: GPL-2.0-or-later
"""Captured records, link and IP layers: bytes to segments and back, without I/O."""

from __future__ import annotations
