# SPDX-License-Identifier: GPL-2.0-or-later
"""VFIO devices: finding, opening and migrating them, without a virtual machine."""

from __future__ import annotations
