# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies of sections: RAM records, VFIO markers, and those that are not looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.loader.blob import blob_of
from mfdtool.loader.commands import LoadConfig, Reply, WriteBuffer
from mfdtool.loader.destination import RamBlock
from mfdtool.loader.events import (
    Body,
    End,
    Footer,
    MainItem,
    Marker,
    RamRecord,
    SectionPart,
    SectionStart,
    Unknown,
)
from mfdtool.loader.moves import MainPhase
from mfdtool.loader.state import Outcome
from mfdtool.wire.constants import RamFlag, SectionType, VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import (
    CONFIG,
    DESTINATION,
    DEVICE,
    END_OF_STATE,
    EOS,
    FLUSH,
    SWITCHOVER,
    SYNC,
    Playbook,
    with_device,
)

IN_FULL = f"error while loading state for instance 0x0 of device '{DEVICE}'"
IN_PART = f"error while loading state section id 2({DEVICE})"
INVALID = "load of migration failed: Invalid argument"
RAM = SectionStart(1, "ram", 0, 4)
FULL = SectionStart(2, DEVICE, type=SectionType.FULL)
PART = SectionPart(2)
LATE = replace(DESTINATION, profile=PROFILES["10.1"], config_after_iter=True)
ACKING = replace(DESTINATION, switchover_ack=True)


def data(content: bytes, *, is_cut: bool = False) -> Marker:
    return Marker(VFIOMarker.DEV_DATA_STATE, blob_of(content), is_cut=is_cut)


# RAM.


@pytest.mark.parametrize(
    ("item", "printed"),
    [
        (RamRecord(0x0A), ["Unknown combination of migration flags: 0xa"]),
        (RamRecord(RamFlag.COMPRESS_PAGE), ["Unknown combination of migration flags: 0x100"]),
        (Body((0x3003).to_bytes(8)), ["Unknown combination of migration flags: 0x3"]),
        (Unknown(b""), ["Unknown combination of migration flags: 0x0"]),
        (
            RamRecord(RamFlag.ZERO | RamFlag.CONTINUE, 0, "pc.ram", 7),
            ["Found a zero page with value 7"],
        ),
        (
            RamRecord(RamFlag.PAGE, 0x1000, "nothing"),
            ["Can't find block nothing", "Illegal RAM offset 1000"],
        ),
    ],
)
def test_bad_ram_record(item: MainItem, printed: list[str]) -> None:
    blocks = (RamBlock(idstr="pc.ram", used_length=1 << 20),)
    book = Playbook(replace(DESTINATION, blocks=blocks)).header().main(RAM, item)
    text = "error while loading state for instance 0x0 of device 'ram'"
    assert book.stderr == [*printed, text, INVALID]
    assert book.rules == ["ram-record"]


def test_good_ram_records() -> None:
    book = Playbook().header().main(RAM, RamRecord(RamFlag.MEM_SIZE, 1 << 20))
    book.main(RamRecord(RamFlag.ZERO, 0, "pc.ram", 0), RamRecord(RamFlag.PAGE, 0, "pc.ram"), EOS)
    assert book.state.main.phase is MainPhase.FOOTER


def test_ram_of_another_version_and_cut_off_ram() -> None:
    old = Playbook().header().main(SectionStart(1, "ram", 0, 3), EOS)
    assert old.rules == ["section-version"]
    cut = Playbook().header().main(RAM, End())
    assert cut.stderr[-1] == "load of migration failed: Input/output error"


def test_old_machines_flush_at_every_end() -> None:
    book = Playbook(replace(DESTINATION, flushes_each_section=True)).header().main(RAM, EOS)
    assert book.state.main.phase is MainPhase.SYNCING
    book.receive(0, SYNC).receive(1, SYNC).main(Footer(1))
    assert book.outcome is None
    assert book.state.main.flushes == 1


def test_flush_means_nothing_without_multifd() -> None:
    spec = replace(DESTINATION.devices[0], transfer=False)
    book = Playbook(replace(DESTINATION, channels=0, devices=(spec,))).header().main(RAM, FLUSH)
    assert book.state.main.phase is MainPhase.SECTION


# VFIO.


@pytest.mark.parametrize(
    ("destination", "marker", "text"),
    [
        (
            DESTINATION,
            Marker(VFIOMarker.DEV_CONFIG_STATE, blob_of(CONFIG)),
            "NAME: got DEV_CONFIG_STATE in main migration channel but doing multifd transfer",
        ),
        (
            DESTINATION,
            Marker(VFIOMarker.DEV_SETUP_STATE, following=0x7E00000026040000),
            "NAME: SETUP STATE: EOS not found 0x7e00000026040000",
        ),
        (
            DESTINATION,
            Marker(VFIOMarker.DEV_INIT_DATA_SENT),
            "NAME: Received INIT_DATA_SENT but switchover ack is not used",
        ),
        (DESTINATION, Marker(0xFFFFFFFFEF100055), "NAME: Unknown tag 0xffffffffef100055"),
        (DESTINATION, Body(b"\x7e\x00\x00\x00"), "NAME: Unknown tag 0x7e00000000000000"),
        (DESTINATION, End(), "NAME: Unknown tag 0x0"),
        (
            DESTINATION,
            Marker(VFIOMarker.DEV_CONFIG_LOAD_READY),
            "NAME: Unknown tag 0xffffffffef100006",
        ),
        (
            replace(LATE, config_after_iter=False),
            Marker(VFIOMarker.DEV_CONFIG_LOAD_READY),
            "NAME: got DEV_CONFIG_LOAD_READY but was disabled",
        ),
        (
            with_device(LATE, transfer=False),
            Marker(VFIOMarker.DEV_CONFIG_LOAD_READY),
            "NAME: got DEV_CONFIG_LOAD_READY outside multifd transfer",
        ),
    ],
)
def test_bad_marker(destination: object, marker: MainItem, text: str) -> None:
    assert isinstance(destination, type(DESTINATION))
    book = Playbook(destination).header().main(FULL, marker)
    assert book.stderr == [text, IN_FULL, INVALID]


def test_load_ready_twice() -> None:
    ready = Marker(VFIOMarker.DEV_CONFIG_LOAD_READY)
    book = Playbook(LATE).setup().main(FULL, ready, Footer(2), FULL, ready)
    assert book.stderr == ["NAME: duplicate DEV_CONFIG_LOAD_READY", IN_FULL, INVALID]


def test_init_data_sent_is_acknowledged_once() -> None:
    sent = Marker(VFIOMarker.DEV_INIT_DATA_SENT)
    book = Playbook(ACKING).setup().main(PART, sent, Footer(2))
    assert Reply("SWITCHOVER_ACK") in book.commands
    book.main(PART, sent)
    text = "NAME: qemu_loadvm_approve_switchover failed, err=-22 (Invalid argument)"
    assert book.stderr == [text, IN_PART, INVALID]


def test_ack_waits_for_all_devices() -> None:
    devices = (*DESTINATION.devices, replace(DESTINATION.devices[0], idstr="0000:00:06.0/vfio"))
    book = Playbook(replace(ACKING, devices=devices)).setup()
    book.main(PART, Marker(VFIOMarker.DEV_INIT_DATA_SENT), Footer(2))
    assert Reply("SWITCHOVER_ACK") not in book.commands
    book.main(SectionPart(3), Marker(VFIOMarker.DEV_INIT_DATA_SENT), Footer(3))
    assert Reply("SWITCHOVER_ACK") in book.commands


def test_data_is_written_as_it_comes() -> None:
    book = Playbook().setup().main(PART, data(b"abc"), data(b""), END_OF_STATE, Footer(2))
    writes = [command for command in book.commands if isinstance(command, WriteBuffer)]
    assert [(write.idx, bytes(write.data.parts[0])) for write in writes] == [(None, b"abc")]
    assert book.traced("vfio_load_state_device_data") == [(0, 3, 0)]
    assert book.state.devices[0].intake.size == 3


def test_data_that_the_device_refuses() -> None:
    book = Playbook(with_device(mtty_ports=1)).setup().main(PART, data(bytes(24)))
    assert book.stderr == [IN_PART, "load of migration failed: Bad address"]
    assert book.rules == ["main-data-write"]
    new = replace(with_device(mtty_ports=1), profile=PROFILES["11.1"])
    book = Playbook(new).setup().main(PART, data(bytes(61)))
    assert book.stderr == [
        "load of migration failed: Cannot allocate memory: Failed to load vmstate version_id: 1,"
        " ret: -12"
    ]


def test_data_that_is_cut_off() -> None:
    book = Playbook().setup().main(PART, data(b"ab", is_cut=True))
    assert book.stderr == [IN_PART, "load of migration failed: Input/output error"]
    assert book.rules == ["stream-truncated"]


def test_l2_data_after_switchover_mixes() -> None:
    book = Playbook().setup().main(SWITCHOVER, PART, data(b"x"))
    assert book.rules == ["data-after-switchover"]
    assert book.outcome is None


def test_config_of_the_main_stream() -> None:
    book = Playbook(with_device(transfer=False)).setup()
    book.main(FULL, Marker(VFIOMarker.DEV_CONFIG_STATE, blob_of(CONFIG)), Footer(2))
    assert any(isinstance(command, LoadConfig) for command in book.commands)
    assert book.state.devices[0].config_loaded


def test_config_of_the_main_stream_that_is_refused() -> None:
    book = Playbook(with_device(transfer=False)).setup()
    book.main(FULL, Marker(VFIOMarker.DEV_CONFIG_STATE, blob_of(CONFIG[:-1])))
    assert book.stderr == [
        "NAME: Failed loading device config space, end flag incorrect 0xffffffffef100000",
        IN_FULL,
        INVALID,
    ]
    assert book.outcome is Outcome.FAILED


# Other devices.


def test_other_bodies_are_taken_to_be_right() -> None:
    entries = DESTINATION.entries | {("timer", 0, 2)}
    timer = SectionStart(3, "timer", 0, 2, SectionType.FULL)
    destination = replace(DESTINATION, entries=entries)
    book = Playbook(destination).header().main(timer, Body(b"?"), Footer(3), timer, Footer(3))
    assert book.state.main.phase is MainPhase.ELEMENT


def test_cut_off_body_of_another_device() -> None:
    entries = DESTINATION.entries | {("timer", 0, 2)}
    timer = SectionStart(3, "timer", 0, 2, SectionType.FULL)
    book = Playbook(replace(DESTINATION, entries=entries)).header()
    book.main(timer, Unknown(b"?"), EOS, End())
    assert book.stderr == [
        "error while loading state for instance 0x0 of device 'timer'",
        "load of migration failed: Input/output error",
    ]
