# SPDX-License-Identifier: GPL-2.0-or-later
"""Structures of linux/vfio.h and linux/iommufd.h, byte by byte."""

from __future__ import annotations

import sys

import pytest

from mfdtool.live.vfio import uapi
from mfdtool.live.vfio.uapi import DeviceState, Feature, FeatureFlag

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="bytes of little-endian machines")


@pytest.mark.parametrize(
    ("structure", "wanted"),
    [
        (uapi.state_set(DeviceState.RESUMING), "10000000 02000200 04000000 00000000"),
        (uapi.state_get(), "10000000 02000100 00000000 ffffffff"),
        (uapi.feature_get(Feature.MIGRATION), "10000000 01000100 00000000 00000000"),
        (uapi.feature_get(Feature.MIG_DATA_SIZE), "10000000 09000100 00000000 00000000"),
        (
            uapi.feature_probe(Feature.DMA_LOGGING_START, FeatureFlag.SET),
            "08000000 06000600",
        ),
        (uapi.group_status(), "08000000 00000000"),
        (uapi.fd_pointer(-1), "ffffffff"),
        (uapi.device_name("ab"), "616200"),
        (uapi.device_info(), "18000000" + "00" * 20),
        (uapi.region_info(7), "20000000 00000000 07000000" + "00" * 20),
        (uapi.precopy_info(), "18000000" + "00" * 20),
        (uapi.bind_iommufd(5), "10000000 00000000 05000000 00000000"),
        (uapi.attach_iommufd(9), "0c000000 00000000 09000000"),
        (uapi.ioas_alloc(), "0c000000 00000000 00000000"),
    ],
)
def test_layout(structure: bytearray, wanted: str) -> None:
    assert structure == bytes.fromhex(wanted)


def test_answers() -> None:
    assert uapi.state_of(bytearray.fromhex("10000000020002000300000007000000")) == (3, 7)
    assert uapi.feature_value(bytearray.fromhex("10000000010001000700000000000000")) == 7
    info = bytearray.fromhex("18000000 00000000 1800000000000000 0500000000000000")
    assert uapi.precopy_bytes(info) == (24, 5)
    region = bytearray.fromhex(
        "20000000 07000000 07000000 00000000 ff00000000000000 0000000000070000"
    )
    assert uapi.region_place(region) == (255, 7 << 40)
    assert uapi.ioas_id(bytearray.fromhex("0c000000 00000000 03000000")) == 3
