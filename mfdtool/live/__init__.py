# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets, VFIO devices and QEMU processes."""

from __future__ import annotations
