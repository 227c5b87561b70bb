# SPDX-License-Identifier: GPL-2.0-or-later
"""Searches the schedules of a recording: for all outcomes, and for the cause of one."""

from __future__ import annotations
