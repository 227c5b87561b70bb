# SPDX-License-Identifier: GPL-2.0-or-later
"""The main thread: what it reads between sections, in both ways of reporting errors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.loader.commands import Reply, SetState
from mfdtool.loader.events import (
    MAIN,
    Command,
    Configuration,
    Deliver,
    End,
    Eof,
    FileHeader,
    Footer,
    Lost,
    MainItem,
    Marker,
    SectionPart,
    SectionStart,
    Step,
    Unknown,
    VmDescription,
)
from mfdtool.loader.moves import MainPhase
from mfdtool.loader.state import Outcome
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.constants import SectionType, VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import (
    DESTINATION,
    DEVICE,
    END_OF_STATE,
    EOS,
    MACHINE,
    SWITCHOVER,
    Playbook,
    packet,
)

NEW = replace(DESTINATION, profile=PROFILES["11.1"])
INVALID = "load of migration failed: Invalid argument"
MAKE_SURE = (
    "Make sure that your current VM setup matches your saved VM setup, including any hotplugged"
    " devices"
)


def both(*items: MainItem, header: bool = True) -> tuple[Playbook, Playbook]:
    """Let an old and a new destination read the same items."""
    books = Playbook(), Playbook(NEW)
    for book in books:
        (book.header() if header else book.connect()).main(*items)
    return books


@pytest.mark.parametrize(
    ("items", "old", "new"),
    [
        (
            [FileHeader(0x51455658)],
            ["Not a migration stream", INVALID],
            f"{INVALID}: Not a migration stream, magic: 51455658 != 5145564d",
        ),
        (
            [Unknown(b"ab")],
            ["Not a migration stream", INVALID],
            f"{INVALID}: Not a migration stream, magic: 61620000 != 5145564d",
        ),
        (
            [FileHeader(version=2)],
            [
                "SaveVM v2 format is obsolete and don't work anymore",
                "load of migration failed: Operation not supported",
            ],
            "load of migration failed: Operation not supported: SaveVM v2 format is obsolete and"
            " no longer supported",
        ),
        (
            [FileHeader(version=4)],
            [
                "Unsupported migration stream version",
                "load of migration failed: Operation not supported",
            ],
            "load of migration failed: Operation not supported: Unsupported migration stream"
            " version, file version 4 != 3",
        ),
        (
            [FileHeader(), SectionStart(1, "ram", 0, 4)],
            ["Configuration section missing", INVALID],
            f"{INVALID}: Configuration section missing, 1 != 7",
        ),
        (
            [FileHeader(), End()],
            ["Configuration section missing", INVALID],
            f"{INVALID}: Configuration section missing, 0 != 7",
        ),
        (
            [FileHeader(), Configuration("pc-q35-9.9")],
            ["Machine type received is 'pc-q35-9.9' and local is 'pc-q35-10.0'", INVALID],
            f"{INVALID}: post load hook failed for: configuration, version_id: 1,"
            " minimum_version: 0: Machine type received is 'pc-q35-9.9' and local is"
            " 'pc-q35-10.0'",
        ),
        (
            [FileHeader(), Unknown(b"\x07\x00\x00\x00\x99")],
            [
                "Failed to load configuration:name",
                "load of migration failed: Input/output error",
            ],
            "load of migration failed: Input/output error: Failed to load configuration state:"
            " stream error: -5",
        ),
    ],
)
def test_bad_header(items: list[MainItem], old: list[str], new: str) -> None:
    first, second = both(*items, header=False)
    assert first.stderr == old
    assert second.stderr == [new]
    assert first.outcome is second.outcome is Outcome.FAILED


def test_c12_huge_configuration_aborts() -> None:
    (book, _) = both(FileHeader(), Unknown(b"\x07\x80\x00\x00\x00"), header=False)
    assert book.outcome is Outcome.ABORTED
    assert book.stderr == ["GLib: failed to allocate 18446744071562067968 bytes"]


def test_prefix_of_the_machine_type_passes() -> None:
    book = Playbook().connect().main(FileHeader(), Configuration("pc-q35"))
    assert book.state.main.phase is MainPhase.ELEMENT


def test_destination_without_configuration() -> None:
    book = Playbook(replace(DESTINATION, has_configuration=False)).connect().main(FileHeader())
    assert book.state.main.phase is MainPhase.ELEMENT


def test_lost_start_of_the_stream_is_taken_on_trust() -> None:
    for items in ([Lost(100)], [FileHeader(), Lost(5)]):
        book = Playbook().connect().main(*items)
        assert book.state.main.phase is MainPhase.ELEMENT
        assert book.state.devices[0].loader


def test_lost_bytes_of_a_known_item_change_nothing() -> None:
    book = Playbook().header().main(SectionStart(1, DEVICE, 0, 1, SectionType.START))
    before = book.state
    assert before.main.phase is MainPhase.SECTION
    assert book.main(Lost(16, is_inside=True)).state == before
    assert book.main(Lost(16)).state.main.phase is MainPhase.ELEMENT


def test_setup_puts_devices_in_resuming() -> None:
    book = Playbook().header()
    assert SetState(0, "RESUMING") in book.commands
    assert book.traced("vfio_migration_set_state") == [(0, "RESUMING", "RUNNING")]
    assert book.blocked(Step(MAIN)) == "there is nothing to set up"


def test_transfer_that_cannot_work_is_refused() -> None:
    text = (
        f"Load state of device {DEVICE} failed: NAME: Multifd device transfer requested but"
        " unsupported in the current config"
    )
    for destination, expected in ((DESTINATION, [text, INVALID]), (NEW, [f"{INVALID}: {text}"])):
        settled = replace(destination, send_switchover_start=False)
        assert Playbook(settled).header().stderr == expected


@pytest.mark.parametrize(
    ("items", "rule", "old", "new"),
    [
        (
            [SectionStart(3, "0000:00:09.0/vfio")],
            "device-only-on-source",
            f"Unknown savevm section or instance '0000:00:09.0/vfio' 0. {MAKE_SURE}",
            f"Unknown section or instance '0000:00:09.0/vfio' 0. {MAKE_SURE}",
        ),
        (
            [SectionStart(3, "gadget", 4)],
            "section-unknown",
            f"Unknown savevm section or instance 'gadget' 4. {MAKE_SURE}",
            f"Unknown section or instance 'gadget' 4. {MAKE_SURE}",
        ),
        (
            [SectionStart(3, DEVICE, 0, 2)],
            "section-version",
            f"savevm: unsupported version 2 for '{DEVICE}' v1",
            f"unsupported version 2 for '{DEVICE}' v1",
        ),
        (
            [SectionStart(38, "")],
            "section-unknown",
            "Unable to read ID string for section 38",
            "Unable to read ID string for section 38",
        ),
        (
            [Unknown(b"\x01\x00\x00\x00\x26\x00")],
            "section-unknown",
            "Unable to read ID string for section 38",
            "Unable to read ID string for section 38",
        ),
        (
            [SectionPart(99)],
            "section-id-unknown",
            "Unknown savevm section 99",
            "Unknown section 99",
        ),
        (
            [Unknown(b"\x03\xff\xff\xff\xff")],
            "section-id-unknown",
            "Unknown savevm section 4294967295",
            "Unknown section 4294967295",
        ),
        (
            [Unknown(b"\x55")],
            "section-type",
            "Unknown savevm section type 85",
            "Unknown section type 85",
        ),
        (
            [Footer(1)],
            "section-type",
            "Unknown savevm section type 126",
            "Unknown section type 126",
        ),
        (
            [Command(99, 3)],
            "command-unknown",
            "MIG_CMD 0x63 unknown (len 0x3)",
            "MIG_CMD 0x63 unknown (len 0x3)",
        ),
    ],
)
def test_bad_element(items: list[MainItem], rule: str, old: str, new: str) -> None:
    first, second = both(*items)
    assert first.stderr == [old, INVALID]
    assert second.stderr == [f"{INVALID}: {new}"]
    assert first.rules == second.rules == [rule]


@pytest.mark.parametrize(
    ("command", "errno", "text"),
    [
        (
            Command(CommandNumber.SWITCHOVER_START, 1),
            "Numerical result out of range",
            "SWITCHOVER_START received with bad length - expecting 0, got 1",
        ),
        (
            Command(CommandNumber.ENABLE_COLO, 1),
            "Numerical result out of range",
            " received with bad length - expecting 0, got 1",
        ),
        (
            Command(CommandNumber.PING, 4, 1),
            "Operation not permitted",
            "CMD_PING (0x1) received with no return path",
        ),
    ],
)
def test_bad_command(command: Command, errno: str, text: str) -> None:
    first, second = both(command)
    assert first.stderr == [text, f"load of migration failed: {errno}"]
    assert second.stderr == [f"load of migration failed: {errno}: {text}"]


def test_truncated_stream() -> None:
    for item in (End(), Unknown(b"\x02\x00"), Unknown(b"\x08")):
        first, second = both(item)
        assert first.stderr == ["load of migration failed: Input/output error"]
        assert second.stderr[0].endswith("Channel error: Input/output error")
        assert first.rules == ["stream-truncated"]


def test_capture_that_ends_leaves_the_destination_waiting() -> None:
    book = Playbook().header().main(End(EndReason.CAPTURE))
    assert book.is_stuck


def test_return_path() -> None:
    opening = Command(CommandNumber.OPEN_RETURN_PATH)
    book = Playbook().header().main(opening, Command(CommandNumber.PING, 4, 7), opening)
    assert [command for command in book.commands if isinstance(command, Reply)] == [
        Reply("PONG", 7)
    ]
    assert book.stderr == ["CMD_OPEN_RETURN_PATH called when RP already open"]
    book.main(Unknown(b"\x55"))
    assert book.commands[-3] == Reply("SHUT", 1)


def test_switchover_ack_without_devices_comes_at_once() -> None:
    destination = replace(DESTINATION, devices=(), switchover_ack=True)
    book = Playbook(destination).header().main(Command(CommandNumber.OPEN_RETURN_PATH))
    assert Reply("SWITCHOVER_ACK") in book.commands


# Sections and footers.


def test_footer_must_repeat_the_id() -> None:
    first, second = both(SectionStart(2, DEVICE), END_OF_STATE, Footer(0x63))
    text = f"Mismatched section id in footer for {DEVICE} - read 0x63 expected 0x2"
    assert first.stderr == [text, INVALID]
    assert second.stderr == [text, f"{INVALID}: Section footer error, section_id: 2"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Eof(), f"Missing section footer for {DEVICE}"),
        (Unknown(b""), f"Missing section footer for {DEVICE}"),
        (
            Unknown(b"\x7e\0\0"),
            f"Mismatched section id in footer for {DEVICE} - read 0x0 expected 0x2",
        ),
        (End(), "check_section_footer: Read section footer failed: -5"),
    ],
)
def test_footer_must_be_there(item: MainItem, text: str) -> None:
    (book, _) = both(SectionStart(2, DEVICE), END_OF_STATE, item)
    assert book.stderr == [text, INVALID]


def test_destination_without_footers() -> None:
    entries = DESTINATION.entries | {("timer", 0, 2)}
    destination = replace(DESTINATION, has_footers=False, entries=entries)
    book = Playbook(destination).header()
    book.main(SectionStart(2, DEVICE), END_OF_STATE)
    book.main(SectionStart(3, "timer", 0, 2, SectionType.FULL), Eof()).main(VmDescription())
    assert book.outcome is Outcome.COMPLETED


def test_lost_bytes_lead_back_to_an_element() -> None:
    for between in ((), (END_OF_STATE,)):
        book = Playbook().header().main(SectionStart(2, DEVICE), *between, Lost(5))
        assert book.state.main.phase is MainPhase.ELEMENT
    book.main(Lost(3), Marker(VFIOMarker.END_OF_STATE), EOS)
    assert book.outcome is None


def test_start_of_a_known_section_replaces_its_id() -> None:
    book = Playbook().header()
    book.main(SectionStart(2, DEVICE), END_OF_STATE, Footer(2))
    book.main(SectionStart(5, DEVICE), END_OF_STATE, Footer(5), SectionPart(2))
    assert book.stderr == ["Unknown savevm section 2", INVALID]


# The end.


def test_missing_description_is_not_missed() -> None:
    for item in (End(), Unknown(b"\x09")):
        book = Playbook(replace(DESTINATION, devices=())).header().main(Eof(), item)
        assert book.outcome is Outcome.COMPLETED
        assert book.rules == ["description-missing"]
    assert book.stderr == ["Expected vmdescription section, but got 9"]


def test_after_a_postcopy_there_is_no_description() -> None:
    """As QEMU 10.0 logs it; its own thread reads what is behind the package."""
    book = Playbook(replace(DESTINATION, devices=())).header()
    book.main(Command(CommandNumber.PACKAGED, 4))
    book.main(Command(CommandNumber.POSTCOPY_LISTEN, 0), Command(CommandNumber.POSTCOPY_RUN, 0))
    assert book.traced("qemu_loadvm_state_section_command") == [(0,), (1,), (1,)]
    assert book.traced("qemu_loadvm_state_post_main") == [(1,)]
    assert book.state.main.phase is MainPhase.ELEMENT
    book.main(Eof())
    assert book.outcome is Outcome.COMPLETED
    assert (book.stderr, book.rules) == ([], [])
    assert book.traced("qemu_loadvm_state_post_main") == [(1,)]
    assert book.blocked(Deliver(None, End())) == "the destination is gone"


def test_postcopy_commands_without_a_package() -> None:
    book = Playbook(replace(DESTINATION, devices=())).header()
    book.main(Command(CommandNumber.POSTCOPY_LISTEN, 0), Command(CommandNumber.POSTCOPY_RUN, 0))
    assert book.traced("qemu_loadvm_state_section_command") == [(0,), (1,)]


def test_end_of_the_capture_stands_for_the_description() -> None:
    book = Playbook(replace(DESTINATION, devices=())).header()
    book.main(Eof(), End(EndReason.CAPTURE))
    assert book.outcome is Outcome.COMPLETED
    assert book.rules == []


def test_side_error_in_its_two_forms() -> None:
    config = packet(0, b"nonsense", config=True)
    text = "NAME: expected FLAG_DEV_CONFIG_STATE but got 6e6f6e73656e7365"
    for destination in (DESTINATION, NEW):
        book = Playbook(destination).switch_over().receive(0, config).run().main(Eof())
        assert book.stderr == [text]
        assert book.rules == ["config-marker"]


def test_load_thread_that_fails_while_the_main_thread_waits() -> None:
    book = Playbook().switch_over().main(Eof())
    assert book.state.main.phase is MainPhase.JOINING
    book.receive(0, packet(0, b"", config=True)).run()
    assert book.stderr == ["NAME: expected FLAG_DEV_CONFIG_STATE but got 0"]
    assert book.outcome is Outcome.FAILED


def test_nothing_happens_to_a_destination_that_is_gone() -> None:
    book = Playbook().header().main(Unknown(b"\x55"))
    assert book.blocked(Step(MAIN)) == "the destination is gone"
    assert book.loader.steps(book.state) == []


def test_machine_of_any_name_will_do_if_none_is_known() -> None:
    book = Playbook(replace(DESTINATION, machine=None)).connect()
    book.main(FileHeader(), Configuration("whatever"), SWITCHOVER)
    assert book.outcome is None
    assert DESTINATION.machine == MACHINE
