# SPDX-License-Identifier: GPL-2.0-or-later
"""``--destination`` as text."""

from __future__ import annotations

import pytest

from mfdtool.loader.options import DestinationOptions, DeviceOption, full_idstr, parse_options
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import DEVICE


def test_everything_that_can_be_said() -> None:
    options = parse_options(
        [
            "transfer=off",
            "multifd=on",
            "channels=4",
            "config-after-iter=on",
            "max-queued=1048576",
            "memory=8G",
            "machine=pc-q35-10.0",
            "compression=zlib",
            "switchover-ack=on",
        ]
    )
    assert options == DestinationOptions(
        transfer=False,
        multifd=True,
        channels=4,
        config_after_iter=True,
        max_queued=1 << 20,
        memory=8 << 30,
        machine="pc-q35-10.0",
        compression=2,
        switchover_ack=True,
    )


def test_devices() -> None:
    text = "device=00:05.0,mtty-ports=2,transfer=off,instance=1,p2p=off,reset=fails,write=hangs"
    options = parse_options([text, "device=0000:00:06.0/vfio"])
    assert options.devices == (
        DeviceOption(
            idstr=DEVICE,
            instance=1,
            transfer=False,
            mtty_ports=2,
            p2p=False,
            resets=False,
            hangs=True,
        ),
        DeviceOption(idstr="0000:00:06.0/vfio"),
    )
    assert parse_options([text, "device=none"]).devices == ()
    assert parse_options(["transfer=auto"]) == DestinationOptions()


def test_options_that_a_release_does_not_know() -> None:
    options = parse_options(["max-queued=4K", "config-after-iter=on", "channels=2"])
    assert options.unknown_to(PROFILES["10.0"]) == ("max-queued", "config-after-iter")
    assert options.unknown_to(PROFILES["10.1"]) == ()
    assert parse_options(["config-after-iter=off"]).unknown_to(PROFILES["10.0"]) == ()


def test_sizes() -> None:
    for text, size in (
        ("7", 7),
        ("2K", 2048),
        ("3m", 3 << 20),
        ("1GiB", 1 << 30),
        ("1TB", 1 << 40),
    ):
        assert parse_options([f"memory={text}"]).memory == size


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "transfer=",
        "transfer=maybe",
        "colour=red",
        "channels=256",
        "channels=-1",
        "memory=8X",
        "memory=-1",
        "compression=rar",
        "device=,mtty-ports=2",
        "device=a/vfio,colour=red",
        "device=a/vfio,mtty-ports=two",
        "device=a/vfio,reset=maybe",
    ],
)
def test_what_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("=")[0]):
        parse_options([text])


def test_short_names_of_devices() -> None:
    assert full_idstr("05:00.1") == "0000:05:00.1/vfio"
    assert full_idstr("0000:00:05.0") == DEVICE
    assert full_idstr("vfio/x") == "vfio/x"
