# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as text."""

from __future__ import annotations

import pytest
from scapy.packet import Raw

from dissectors.multifd import MultiFDPacketDeviceState
from dissectors.show import Layers
from dissectors.vfio import VFIODeviceStatePacket
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.reader import Extent
from mfdtool.stream.span import Span


def shown(data: bytes, *, hole: slice = slice(0, 0)) -> str:
    """Show a device state packet with ``data``, without some of its bytes."""
    whole = bytes(MultiFDPacketDeviceState() / VFIODeviceStatePacket() / Raw(data))
    start, stop = 288 + hole.start, 288 + hole.stop
    pieces = [Extent(0, memoryview(whole)[:start]), Extent(stop, memoryview(whole)[stop:])]
    frame = Frame(
        Kind.MULTIFD_DEVICE_STATE,
        ChannelId(0, "multifd-0"),
        1,
        0,
        len(whole),
        5,
        6,
        7,
        missing=stop - start,
        payload=Span(276, len(whole)),
        reason="not captured",
        extents=tuple(pieces),
    )
    layers = Layers()
    layers.begin(frame)
    assert layers.header == ""
    return layers.write(frame)


def test_short_data_is_shown() -> None:
    text = shown(b"x" * 64)
    assert text.startswith("###[ ChannelFrame ]###\n  migration = 0\n  channel   = multifd-0\n")
    assert f"load      = b'{'x' * 64}'\n" in text
    assert "Missing" not in text


def test_long_data_is_cut() -> None:
    text = shown(b"x" * 64 + b"y" * 1000)
    assert f"load      = b'{'x' * 64}'\n" in text
    assert "length    = 1000\n" in text
    assert "reason    = not shown\n" in text


@pytest.mark.parametrize("length", [100, 64])
def test_what_is_behind_long_data_stays(length: int) -> None:
    text = shown(b"x" * length + b"." * 7 + b"z" * 5, hole=slice(length, length + 7))
    assert text.count("Missing") == (2 if length > 64 else 1)
    assert "length    = 7\n" in text
    assert "reason    = not captured\n" in text
    assert "load      = b'zzzzz'\n" in text
    assert text.index("zzzzz") > text.index("not captured")
