# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes to frames: TCP streams, channels, packets and sections, whole migrations."""

from __future__ import annotations
