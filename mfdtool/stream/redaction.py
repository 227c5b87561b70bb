# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bytes of a frame may be shown to somebody who must see neither guest RAM nor device state.

Headers, lengths, names, commands, the configuration and the vmdescription may. Pages, device
bytes and the bodies of all devices may not, nor may anything that was not understood.
"""

from __future__ import annotations

from typing import Final

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.span import Span
from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE

_DESCRIBES: Final = frozenset(
    {Kind.MAIN_COMMAND, Kind.MAIN_VMDESCRIPTION, Kind.RETURN_PATH_MESSAGE, Kind.MULTIFD_SYNC}
)
"""What is behind these kinds' headers tells of the migration, not of the guest."""


def hidden_span(frame: Frame) -> Span | None:
    """Give the bytes of a frame that may not be shown, as stream positions; None if all may.

    They always reach to the frame's end.
    """
    payload = frame.payload
    if frame.kind in _DESCRIBES or payload is None or not payload.size:
        return None
    if frame.kind is Kind.MULTIFD_DEVICE_STATE and payload.size >= VFIO_PACKET_HEADER_SIZE:
        payload = Span(payload.start + VFIO_PACKET_HEADER_SIZE, payload.stop)
        return payload if payload.size else None
    return payload
