# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders in which a recording's items reach a destination, and faults on the way."""

from __future__ import annotations
