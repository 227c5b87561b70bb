# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations on TCP ports: which layer a segment's first bytes are."""

from __future__ import annotations

from typing import Any, Final

from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw, bind_bottom_up

from dissectors.main_stream import MainStream
from dissectors.multifd import MultiFDChannel
from dissectors.return_path import ReturnPath
from mfdtool.wire.constants import MULTIFD_MAGIC, QEMU_VM_FILE_MAGIC

_MAGIC_SIZE: Final = 4
_LAST_PORT: Final = 0xFFFF
_LAYERS: Final[dict[int, type[Packet]]] = {
    QEMU_VM_FILE_MAGIC: MainStream,
    MULTIFD_MAGIC: MultiFDChannel,
}


class MigrationSegment(Packet):
    """What a source sends in one segment: dissecting gives the layer that its magic names."""

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_args: Any, **_kargs: Any) -> type[Packet]:
        """Choose the class by the magic, as a destination does (channel.c)."""
        return _LAYERS.get(int.from_bytes(_pkt[:_MAGIC_SIZE]), Raw) if _pkt else cls


def bind_ports(*ports: int) -> None:
    """Dissect segments to these ports as a source's, and those from them as a destination's.

    Raises:
        ValueError: one is no TCP port; then none is bound.
    """
    for port in ports:
        if not 1 <= port <= _LAST_PORT:
            raise ValueError(f"not a TCP port: {port}")
    for port in ports:
        bind_bottom_up(TCP, MigrationSegment, dport=port)
        bind_bottom_up(TCP, ReturnPath, sport=port)
