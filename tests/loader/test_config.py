# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading configs: where they end, and what is printed if they are wrong."""

from __future__ import annotations

import pytest

from mfdtool.loader.config import ConfigResult, load_config
from mfdtool.loader.destination import DeviceSpec
from mfdtool.wire.profile import PROFILES
from mfdtool.wire.vfio import wrap_config
from tests.support.playbook import CONFIG, DEVICE, MTTY_CONFIG

OLD, NEW = PROFILES["10.0"], PROFILES["11.1"]
PLAIN = DeviceSpec(idstr=DEVICE)
MTTY = DeviceSpec(idstr=DEVICE, mtty_ports=2)
SPACE = "NAME: Failed to load device config space"
STREAM = "Failed to load {} state: stream error: -5"


def cut(length: int) -> tuple[str, ...]:
    """What an old destination prints of a config of that length."""
    result = load_config(OLD, MTTY, MTTY_CONFIG[:length])
    assert result.printed[-1].startswith("NAME: ")
    return (str(result.errno), *result.printed[:-1])


def test_good_configs() -> None:
    assert load_config(OLD, PLAIN, CONFIG) == ConfigResult()
    assert load_config(OLD, MTTY, MTTY_CONFIG) == ConfigResult()
    assert load_config(OLD, PLAIN, MTTY_CONFIG) == ConfigResult()


def test_trailing_bytes_are_ignored() -> None:
    assert load_config(OLD, MTTY, MTTY_CONFIG + bytes(64)) == ConfigResult(trailing=64)


def test_cut_at_every_field() -> None:
    pdev = "Failed to load VFIOPCIDevice:pdev"
    assert cut(8) == ("5", "Failed to load PCIDevice:version_id", pdev)
    assert cut(11) == cut(8)
    assert cut(12 + 4095) == ("5", "Failed to load PCIDevice:config", pdev)
    assert cut(12 + 4096) == ("5", "Failed to load PCIDevice:irq_state", pdev)
    assert cut(12 + 4096 + 15) == cut(12 + 4096)
    assert cut(12 + 4096 + 16) == ("5", pdev)
    assert cut(len(MTTY_CONFIG) - 1) == ("22",)


def test_cut_everywhere_is_refused() -> None:
    for length in range(8, len(CONFIG)):
        assert load_config(OLD, PLAIN, CONFIG[:length]).errno
        assert load_config(NEW, PLAIN, CONFIG[:length]).errno == 22


@pytest.mark.parametrize(("length", "vmsd"), [(8, "PCIDevice"), (12 + 4096 + 16, "VFIOPCIDevice")])
def test_later_releases_say_it_in_other_words(length: int, vmsd: str) -> None:
    result = load_config(NEW, MTTY, MTTY_CONFIG[:length])
    assert result == ConfigResult(22, (STREAM.format(vmsd), SPACE), "config-refused")


def test_wrong_end_flag() -> None:
    wrong = CONFIG[:-8] + bytes.fromhex("ffffffffef100003")
    text = "NAME: Failed loading device config space, end flag incorrect 0xffffffffef100003"
    assert load_config(OLD, PLAIN, wrong) == ConfigResult(22, (text,), "config-end")


def test_wrong_version() -> None:
    wrong = CONFIG[:8] + (3).to_bytes(4) + CONFIG[12:]
    assert load_config(OLD, PLAIN, wrong).printed == (
        "Invalid value 3 expecting positive value <= 2",
        "Failed to load PCIDevice:version_id",
        "Failed to load VFIOPCIDevice:pdev",
        SPACE,
    )
    assert load_config(OLD, PLAIN, CONFIG[:8] + b"\xff" * 4 + CONFIG[12:]).errno == 22
    assert load_config(OLD, PLAIN, CONFIG[:8] + bytes(4) + CONFIG[12:]).errno == 0


def test_config_of_another_device() -> None:
    wrong = MTTY_CONFIG[:12] + b"\x86\x80" + MTTY_CONFIG[14:]
    bad = (
        "get_pci_config_device: Bad config data: i=0x0 read: 86 device: 48 cmask: ff wmask: 0"
        " w1cmask:0"
    )
    assert load_config(OLD, MTTY, wrong).printed[0] == bad
    assert load_config(NEW, MTTY, wrong).printed == (
        bad,
        "Failed to load element of type pci config for config: -22",
        SPACE,
    )


def test_pin_that_is_no_bool() -> None:
    wrong = CONFIG[: 12 + 256] + (2).to_bytes(4) + CONFIG[12 + 260 :]
    assert load_config(OLD, PLAIN, wrong).printed[0] == "irq state 2: must be 0 or 1."


def test_msix_is_found_in_the_config_space() -> None:
    space = bytearray(256)
    space[0x06], space[0x34] = 0x10, 0x40
    space[0x40:0x42] = bytes((0x01, 0x50))
    space[0x50:0x54] = bytes((0x11, 0x00, 0x02, 0x00))
    body = (2).to_bytes(4) + bytes(space) + bytes(16) + bytes(3 * 16 + 1)
    good = wrap_config(body)
    assert load_config(OLD, PLAIN, good) == ConfigResult()
    assert load_config(OLD, PLAIN, good[:-10]).printed[0] == "Failed to load VFIOPCIDevice:pdev"


def test_capability_lists_that_lead_nowhere() -> None:
    for first, entry in ((0x20, b""), (0x40, b"\x01\x40"), (0xFC, b"")):
        space = bytearray(256)
        space[0x06], space[0x34] = 0x10, first
        space[0x40 : 0x40 + len(entry)] = entry
        good = wrap_config((2).to_bytes(4) + bytes(space) + bytes(16))
        assert load_config(OLD, PLAIN, good) == ConfigResult()


def test_display_subsection_is_passed() -> None:
    name = b"VFIOPCIDevice/VFIODisplay"
    display = bytes((5, len(name))) + name + (1).to_bytes(4) + bytes(28)
    assert load_config(OLD, PLAIN, CONFIG[:-8] + display + CONFIG[-8:]) == ConfigResult()


def test_devices_of_other_buses_have_no_config() -> None:
    assert load_config(OLD, DeviceSpec(idstr="fe.0.1234/vfio"), wrap_config(b"")) == ConfigResult()
    assert load_config(OLD, PLAIN, wrap_config(b"")).errno == 22
