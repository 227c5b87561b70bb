# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture files: opens, maps, decompresses, writes."""

from __future__ import annotations
