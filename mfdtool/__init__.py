# SPDX-License-Identifier: GPL-2.0-or-later
"""See, record, replay and explain QEMU multifd VFIO migrations."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"


def scapy_ext(ext: object) -> None:
    """Tell scapy, which calls this in every package of a plugin, that nothing is here.

    The layers live in the ``dissectors`` package of the same distribution.
    """
