# SPDX-License-Identifier: GPL-2.0-or-later
"""One function per subcommand: opens doors, calls the core, gives a result. Prints nothing."""

from __future__ import annotations
