# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination in words: what is said of it makes the same one again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mfdtool.loader.assume import assume
from mfdtool.loader.destination import DeviceSpec
from mfdtool.loader.options import DestinationOptions, parse_options, texts_for
from mfdtool.wire.constants import MultiFDFlag
from tests.support.vectors import observation

NAME = "mtty-4ch-clean"
DEVICE = DeviceSpec(idstr="0000:00:05.0/vfio", mtty_ports=2)


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({}, []),
        ({"devices": ()}, ["device=none"]),
        ({"channels": 0}, ["channels=0"]),
        ({"machine": "pc-q35-9.2"}, ["machine=pc-q35-9.2"]),
        ({"memory": 5 << 30}, ["memory=5368709120"]),
        ({"max_queued": 4096}, ["max-queued=4096"]),
        ({"compression": MultiFDFlag.ZSTD.value}, ["compression=zstd"]),
        ({"switchover_ack": True, "config_after_iter": True}, None),
        (
            {"devices": (replace(DEVICE, transfer=False),)},
            ["device=0000:00:05.0/vfio,mtty-ports=2,transfer=off"],
        ),
        (
            {
                "devices": (
                    DEVICE,
                    DeviceSpec(
                        idstr="pci/vfio",
                        instance_id=3,
                        has_p2p=False,
                        can_reset=False,
                        write_hangs=True,
                    ),
                )
            },
            [
                "device=0000:00:05.0/vfio,mtty-ports=2,transfer=on",
                "device=pci/vfio,transfer=on,instance=3,p2p=off,reset=fails,write=hangs",
            ],
        ),
    ],
)
def test_what_is_said_makes_it_again(changes: dict[str, Any], texts: list[str] | None) -> None:
    recording = observation(NAME).recording
    shown, _ = assume(recording, DestinationOptions(), "10.1")
    wanted = replace(shown, **changes)
    said = texts_for(wanted, shown)
    assert texts is None or said == texts
    assert assume(recording, parse_options(said), "10.1")[0] == wanted


def test_what_cannot_be_said_is_left_out() -> None:
    shown, _ = assume(observation(NAME).recording, DestinationOptions())
    assert texts_for(replace(shown, machine=None, uuid=None, has_footers=False), shown) == []
