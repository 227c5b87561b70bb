# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as scapy shows packets, for ``mfdtool decode -T scapy``."""

from __future__ import annotations

from typing import Final

from scapy.packet import Packet, Raw

from dissectors import DEFAULT_LIMIT
from dissectors.captured import Missing, packet_of
from mfdtool.stream.frames import Frame

_SHOWN: Final = 64


class Layers:
    """Writes each frame as its layers and their fields; of raw bytes only the first ones."""

    header = ""

    def begin(self, first: Frame) -> None:
        """Take the input's first frame, which nothing here depends on."""

    def write(self, frame: Frame) -> str:
        """Give the text for a frame."""
        packet = packet_of(frame, limit=DEFAULT_LIMIT)
        for layer in list(packet.iterpayloads()):
            if isinstance(layer, Raw) and len(layer.load) > _SHOWN:
                _shorten(layer)
        return f"{packet.show(dump=True)}\n"


def _shorten(layer: Raw) -> None:
    """Replace all but the first bytes by a note."""
    note: Packet = Missing(length=len(layer.load) - _SHOWN, reason="not shown")
    if layer.payload:
        note = note / layer.payload
    layer.load = layer.load[:_SHOWN]
    layer.remove_payload()
    layer.add_payload(note)
