# SPDX-License-Identifier: GPL-2.0-or-later
"""What is assumed of a destination, by what a recording shows and by what is said."""

from __future__ import annotations

import pytest

from mfdtool.loader.assume import assume, is_vfio
from mfdtool.loader.blob import blob_of
from mfdtool.loader.destination import RAM, Destination
from mfdtool.loader.events import (
    Command,
    Configuration,
    Connect,
    Deliver,
    FileHeader,
    Footer,
    Handshake,
    MainItem,
    Marker,
    MultiFDItem,
    RamPacket,
    SectionPart,
    SectionStart,
    Unknown,
)
from mfdtool.loader.models import mtty_header
from mfdtool.loader.options import parse_options
from mfdtool.loader.recording import Entry, Recording
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.constants import MultiFDFlag, SectionType, VFIOMarker
from tests.support.playbook import CONFIG, DEVICE, FLUSH, MTTY_CONFIG, SWITCHOVER, SYNC, packet

START = SectionStart(2, DEVICE)
READY = Marker(VFIOMarker.DEV_CONFIG_LOAD_READY)


def data(content: bytes) -> Marker:
    return Marker(VFIOMarker.DEV_DATA_STATE, blob_of(content))


def recording(
    *main: MainItem,
    multifd: tuple[MultiFDItem, ...] = (),
    machine: str | None = "pc-q35-10.0",
    channels: int = 2,
    acks: int = 0,
) -> Recording:
    head: list[MainItem] = [FileHeader()]
    head += [Configuration(machine)] if machine is not None else []
    entries = [Entry(Connect(FileHeader()), "main")]
    entries += [
        Entry(Connect(Handshake(number)), f"multifd-{number}") for number in range(channels)
    ]
    entries += [Entry(Deliver(None, item), "main") for item in (*head, *main)]
    entries += [Entry(Deliver(0, item), "multifd-0") for item in multifd]
    return Recording(entries=tuple(entries), acks=acks)


def assumed(shown: Recording, *said: str, profile: str = "auto") -> Destination:
    return assume(shown, parse_options(said), profile)[0]


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (None, "10.0"),
        ("none", "10.0"),
        ("pc-i440fx-9.2", "10.0"),
        ("pc-q35-10.0", "10.0"),
        ("pc-q35-10.1", "10.1"),
        ("virt-10.2", "10.2"),
        ("pc-q35-11.0", "11.1"),
        ("pc-q35-42.0", "11.1"),
    ],
)
def test_profile_by_machine_type(machine: str | None, name: str) -> None:
    destination, guesses = assume(recording(machine=machine), parse_options([]))
    assert destination.profile.name == name
    assert guesses[0].rule.name == "profile-guessed"


def test_profile_by_what_only_later_releases_send() -> None:
    ping = Command(CommandNumber.PING, 4, 0x42)
    assert assumed(recording(START, READY)).profile.name == "10.1"
    assert assumed(recording(ping)).profile.name == "10.2"
    assert assumed(recording(ping), profile="10.0").profile.name == "10.0"
    with pytest.raises(ValueError, match=r"9\.0"):
        assumed(recording(), profile="9.0")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("max-queued=4K", "10.1"),
        ("config-after-iter=on", "10.1"),
        ("config-after-iter=off", "10.0"),
    ],
)
def test_profile_by_what_only_later_releases_can_be_told(said: str, name: str) -> None:
    destination, guesses = assume(recording(), parse_options([said]))
    assert destination.profile.name == name
    option = said.partition("=")[0]
    assert guesses[0].message.endswith(f"the option {option}") == (name == "10.1")
    newer = assumed(recording(machine="pc-q35-11.1"), said)
    assert newer.profile.name == "11.1"


def test_machine_type_that_cannot_be() -> None:
    newer, guesses = assume(recording(SWITCHOVER, machine="pc-q35-11.1"), parse_options([]), "10.0")
    assert newer.machine == "pc-q35-10.0"
    assert [found.rule.name for found in guesses] == ["machine-guessed"]
    assert assumed(recording(machine="pc-i440fx-9.99")).machine == "pc-i440fx-9.2"
    assert assumed(recording(machine="pc-i440fx-2.12")).machine == "pc-i440fx-2.12"
    assert assumed(recording(machine="isapc")).machine == "isapc"
    assert assumed(recording(), "machine=microvm").machine == "microvm"


def test_devices_are_those_that_start() -> None:
    other = SectionStart(3, "0000:00:06.0/vfio", 1)
    full = SectionStart(4, "0000:00:07.0/vfio", type=SectionType.FULL)
    shown = recording(SectionStart(1, RAM, 0, 4), START, other, full)
    devices = assumed(shown).devices
    assert [(device.idstr, device.instance_id) for device in devices] == [
        (DEVICE, 0),
        ("0000:00:06.0/vfio", 1),
    ]
    assert assumed(shown, "device=none").devices == ()
    (named,) = assumed(shown, "device=00:09.0,mtty-ports=1,reset=fails").devices
    assert (named.idstr, named.mtty_ports, named.can_reset) == ("0000:00:09.0/vfio", 1, False)


def test_other_entries_are_taken_over() -> None:
    timer = SectionStart(3, "timer", 0, 2, SectionType.FULL)
    destination = assumed(recording(SectionStart(1, RAM, 0, 9), timer))
    assert destination.entries == {(RAM, 0, 4), ("timer", 0, 2)}
    assert destination.entry_version("timer", 0) == 2
    assert destination.entry_version("timer", 1) is None


def test_transfer_is_off_if_the_config_is_in_the_main_stream() -> None:
    config = Marker(VFIOMarker.DEV_CONFIG_STATE, blob_of(CONFIG))
    assert not assumed(recording(START, config)).devices[0].transfer
    assert assumed(recording(START, config, multifd=(packet(0),))).devices[0].transfer
    assert assumed(recording(START)).devices[0].transfer
    assert not assumed(recording(START, channels=0)).devices[0].transfer
    assert not assumed(recording(START), "transfer=off").devices[0].transfer
    (named,) = assumed(recording(START), "transfer=off", f"device={DEVICE},transfer=on").devices
    assert named.transfer


def test_mtty_is_recognised() -> None:
    header = mtty_header(2)
    split = recording(START, data(header[:16]), data(header[16:] + bytes(72)))
    late = recording(START, multifd=(packet(1, header[9:]), packet(0, header[:9])))
    by_ids = recording(START, data(bytes(60)), multifd=(packet(0, MTTY_CONFIG, config=True),))
    plain = recording(START, data(bytes(60)), multifd=(packet(0, config=True),))
    ports = [assumed(shown).devices[0].mtty_ports for shown in (split, late, by_ids, plain)]
    assert ports == [2, 2, 1, None]


def test_channels_and_compression() -> None:
    pages = RamPacket(flags=MultiFDFlag.ZSTD, normal_pages=1)
    shown = recording(START, multifd=(SYNC, pages), channels=3)
    destination = assumed(shown)
    assert (destination.channels, destination.compression) == (3, MultiFDFlag.ZSTD)
    assert not destination.devices[0].transfer
    assert assumed(shown, "channels=2", "compression=none").channels == 2
    assert assumed(shown, "multifd=off").channels == 0
    strange = Recording(entries=(Entry(Connect(Unknown(b"what")), "unknown-0"),))
    assert assumed(strange).channels == 1


def test_flushes_and_footers_by_their_absence() -> None:
    old = assumed(recording(START, multifd=(SYNC,)))
    assert (old.flushes_each_section, old.has_footers) == (True, False)
    new = assumed(recording(START, FLUSH, Footer(2), multifd=(SYNC,)))
    assert (new.flushes_each_section, new.has_footers) == (False, True)


def test_load_ready_counts_only_with_a_machine_that_can() -> None:
    assert assumed(recording(START, READY, machine="virt-10.1")).config_after_iter
    assert not assumed(recording(START, READY)).config_after_iter
    assert assumed(recording(START), "config-after-iter=on").config_after_iter


def test_switchover_ack_by_either_direction() -> None:
    sent = Marker(VFIOMarker.DEV_INIT_DATA_SENT)
    back = Command(CommandNumber.OPEN_RETURN_PATH)
    assert assumed(recording(back, START, SectionPart(2), sent)).switchover_ack
    assert not assumed(recording(back, START, SectionPart(2, SectionType.END), sent)).switchover_ack
    assert not assumed(recording(START, SectionPart(2), sent)).switchover_ack
    assert assumed(recording(acks=1)).switchover_ack
    assert not assumed(recording(acks=1), "switchover-ack=off").switchover_ack


def test_names_of_vfio_devices() -> None:
    assert [is_vfio(name) for name in ("vfio", DEVICE, RAM, "vfio2")] == [True, True, False, False]
