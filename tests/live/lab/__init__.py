# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: one virtual machine in which all live tests run; docs/lab.md tells how."""

from __future__ import annotations
