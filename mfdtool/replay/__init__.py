# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a schedule of a recording on a sink."""

from __future__ import annotations
