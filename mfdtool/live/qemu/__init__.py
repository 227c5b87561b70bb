# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays the source of a migration to a real QEMU."""

from __future__ import annotations
