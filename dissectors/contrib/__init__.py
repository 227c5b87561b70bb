# SPDX-License-Identifier: GPL-2.0-or-later
"""What scapy loads as ``scapy.contrib``."""

from __future__ import annotations
