# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames by migration, channel and device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.selection import DevicesMet, Selection, device_of, is_device
from mfdtool.wire.multifd import MultiFDPacketDeviceState
from tests.support.captures import decoded


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("0000:00:05.0/vfio", True),
        ("0000:00:05.0", True),
        ("00:05.0", True),
        ("00:05.0/vfio", True),
        ("0000:00:05", False),
        ("05.0", False),
        ("0001:00:05.0", False),
    ],
)
def test_device_names(name: str, *, matches: bool) -> None:
    assert is_device("0000:00:05.0/vfio", [name]) is matches


def test_everything() -> None:
    assert Selection().is_everything
    assert not Selection(migration=0).is_everything
    _, frames = decoded("mtty-2dev-2ch-holes")
    assert all(frame in Selection() for frame in frames)


def test_by_device() -> None:
    _, frames = decoded("mtty-2dev-2ch-holes")
    chosen = [frame for frame in frames if frame in Selection(devices=frozenset({"00:06.0"}))]
    assert Counter(device_of(frame) for frame in chosen) == {"0000:00:06.0/vfio": len(chosen)}
    kinds = Counter(frame.kind for frame in chosen)
    assert kinds[Kind.MULTIFD_DEVICE_STATE] == 4
    assert kinds[Kind.MAIN_SECTION_FULL] == 1


def test_by_channel_and_migration() -> None:
    _, frames = decoded("mtty-2dev-2ch-holes")
    selection = Selection(migration=0, channels=frozenset({"multifd-1"}))
    chosen = [frame for frame in frames if frame in selection]
    assert {frame.channel.name for frame in chosen} == {"multifd-1"}
    assert not [frame for frame in frames if frame in Selection(migration=1)]


def test_what_a_frame_is_about() -> None:
    def frame(kind: Kind, **more: Any) -> Frame:
        return Frame(kind, ChannelId(0, "x"), 0, 0, 0, -1, -1, 0, **more)

    packet = MultiFDPacketDeviceState(idstr=b"a/vfio".ljust(256, b"\0"), next_packet_size=1)
    assert device_of(frame(Kind.MULTIFD_DEVICE_STATE, value=packet)) == "a/vfio"
    assert device_of(frame(Kind.MAIN_OPAQUE, section=Section(1, "cpu", 0, 1))) == "cpu"
    assert device_of(frame(Kind.GAP)) is None


def test_devices_that_were_met() -> None:
    _, frames = decoded("mtty-2dev-2ch-holes")
    met = DevicesMet()
    for frame in frames:
        met.add(frame)
    assert met.devices == ["0000:00:05.0/vfio", "0000:00:06.0/vfio"]
    assert met.unmatched(["ram", "00:06.0", "06.0", "00:07.0"]) == ["00:07.0", "06.0"]
