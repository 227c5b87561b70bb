# SPDX-License-Identifier: GPL-2.0-or-later
"""What is found by looking at a whole recording."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.loader.destination import Destination
from mfdtool.loader.events import (
    BadHeader,
    Connect,
    Deliver,
    DevicePacket,
    Eof,
    FileHeader,
    Handshake,
    Lost,
    MainItem,
    MultiFDItem,
    RamPacket,
    SectionStart,
    Unknown,
    VmDescription,
)
from mfdtool.loader.findings import Finding, finding, merged
from mfdtool.loader.lint import lint
from mfdtool.loader.recording import Entry, Recording
from mfdtool.rules import Severity
from mfdtool.wire.constants import QEMU_VM_FILE_MAGIC, MultiFDFlag
from tests.support.playbook import DESTINATION, DEVICE, EOS, FLUSH, SWITCHOVER, packet

ONE = replace(DESTINATION, channels=1)
START = SectionStart(2, DEVICE)
CONFIG = packet(1, config=True)


def sync(number: int) -> RamPacket:
    return RamPacket(flags=MultiFDFlag.SYNC, packet_num=number)


def recording(
    main: tuple[MainItem, ...], *multifd: MultiFDItem, resets: tuple[str, ...] = ()
) -> Recording:
    entries = [
        Entry(Connect(FileHeader()), "main"),
        Entry(Connect(Handshake(0)), "multifd-0"),
        *(Entry(Deliver(None, item), "main", number) for number, item in enumerate(main)),
        *(Entry(Deliver(0, item), "multifd-0", number) for number, item in enumerate(multifd, 1)),
    ]
    return Recording(entries=tuple(entries), names=("multifd-0",), resets=resets)


MAIN: tuple[MainItem, ...] = (START, FLUSH, SWITCHOVER, Eof(), VmDescription())


def found(
    *multifd: MultiFDItem,
    main: tuple[MainItem, ...] = MAIN,
    destination: Destination = ONE,
    resets: tuple[str, ...] = (),
) -> list[Finding]:
    findings = lint(recording(main, *multifd, resets=resets), destination)
    return [one for one in findings if one.severity is not Severity.NOTE]


def names(findings: list[Finding]) -> list[str]:
    return [one.rule.name for one in findings]


def test_nothing_is_wrong_with_a_good_recording() -> None:
    assert found(sync(0), packet(0), CONFIG) == []


@pytest.mark.parametrize(
    ("packets", "expected"),
    [
        ([packet(0)], ["config-missing"]),
        ([packet(1), packet(2, config=True)], ["idx-gap"]),
        ([packet(0), packet(0), CONFIG], ["idx-duplicate"]),
        ([packet(0), CONFIG, packet(2)], ["config-early", "data-behind-config"]),
        ([packet(0), CONFIG, packet(2, config=True)], ["config-twice"]),
        ([packet(0, b""), CONFIG], ["data-packet-empty"]),
        ([replace(packet(0), flags=6), CONFIG], ["payload-flag-unknown"]),
        (
            [packet(0), CONFIG, packet(1 << 20)],
            ["idx-allocation", "config-early", "data-behind-config"],
        ),
        ([replace(packet(0), packet_flags=0xC2), CONFIG], ["packet-flag-unknown"]),
        ([packet(0), CONFIG, replace(packet(5), version=1)], []),
        ([packet(0), CONFIG, replace(packet(5), is_cut=True)], ["device-packet-size"]),
        ([packet(0), CONFIG, packet(0xFFFFFFFF)], []),
    ],
)
def test_device_packets(packets: list[DevicePacket], expected: list[str]) -> None:
    assert names(found(sync(0), *packets)) == expected


def test_gaps_are_listed_up_to_a_point() -> None:
    (gap,) = found(sync(0), *(packet(2 * idx) for idx in range(12)), packet(24, config=True))
    assert gap.message == "12 missing below 24: 1, 3, 5, 7, 9, 11, 13, 15, ..."


def test_queue_depth_names_the_packet_that_held_up() -> None:
    shown = recording(
        MAIN, sync(0), packet(1, bytes(70)), packet(2, bytes(30)), packet(0), packet(3, config=True)
    )
    (depth,) = [one for one in lint(shown, ONE) if one.rule.name == "queue-depth"]
    assert depth.message == "up to 100 bytes waited for their turn, then for idx 0"
    assert (depth.channel, depth.number) == ("multifd-0", 3)


def test_ram_packets() -> None:
    wrong = found(
        sync(0),
        RamPacket(packet_num=5, normal_pages=1, next_packet_size=5),
        RamPacket(packet_num=4, flags=0x1000),
        RamPacket(packet_num=6, flags=MultiFDFlag.ZLIB, normal_pages=1, next_packet_size=5),
        CONFIG,
        packet(0),
    )
    assert names(wrong) == ["ram-payload-size", "packet-flag-unknown", "packet-num-order"]


def test_reserved_fields() -> None:
    used = recording(MAIN, replace(sync(0), has_reserved=True), packet(0), CONFIG)
    entries = (
        replace(used.entries[1], event=Connect(Handshake(0, has_reserved=True))),
        *used.entries[2:],
    )
    notes = lint(replace(used, entries=(used.entries[0], *entries)), ONE)
    assert names(notes) == ["reserved-not-zero"] * 2


def test_packet_number_that_another_channel_had() -> None:
    entries = recording(MAIN, sync(0), packet(0), CONFIG).entries
    extra = (
        Entry(Connect(Handshake(1)), "multifd-1"),
        Entry(Deliver(1, sync(0)), "multifd-1", 1),
    )
    findings = lint(Recording(entries=(*entries, *extra)), DESTINATION)
    assert "packet-num-order" in names(findings)


def test_packets_before_their_time() -> None:
    early: tuple[MainItem, ...] = (START, FLUSH)
    assert names(found(packet(0), CONFIG, sync(0))) == ["device-packet-before-setup"] * 2
    missing = found(sync(0), packet(0), CONFIG, main=(*early, Eof()))
    assert names(missing) == ["device-packet-before-switchover"] * 2 + ["switchover-missing"]


def test_syncs_are_paired_with_flushes() -> None:
    assert names(found(packet(0), CONFIG, main=MAIN))[-1] == "flush-without-sync"
    extra = found(sync(0), sync(1), packet(0), CONFIG)
    assert names(extra) == ["sync-without-flush", "device-packet-behind-unpaired-sync"]
    assert (extra[0].channel, extra[0].number) == ("multifd-0", 2)
    assert (extra[1].number, extra[1].device) == (3, DEVICE)


def test_old_machines_flush_at_every_end() -> None:
    main = (START, EOS, SWITCHOVER, Eof())
    old = replace(ONE, flushes_each_section=True)
    assert found(sync(0), packet(0), CONFIG, main=main, destination=old) == []


def test_devices_of_one_side() -> None:
    other = replace(DESTINATION.devices[0], idstr="0000:00:09.0/vfio")
    both = replace(ONE, devices=(*ONE.devices, other))
    only = found(sync(0), packet(0), CONFIG, destination=both)
    assert [(one.rule.name, one.device) for one in only] == [
        ("device-only-on-destination", "0000:00:09.0/vfio")
    ]
    none = found(sync(0), packet(0), CONFIG, destination=replace(ONE, devices=()))
    assert names(none) == ["device-only-on-source"]
    unnamed = found(sync(0), packet(0), CONFIG, main=MAIN[1:])
    assert names(unnamed) == ["device-not-in-main-stream"]
    assert names(found(sync(0))) == ["config-missing"]


def test_misrouted_and_trailing_bytes() -> None:
    assert "misrouted-channel" in names(found(sync(0), BadHeader(QEMU_VM_FILE_MAGIC, 3)))
    trailing = found(sync(0), packet(0), CONFIG, main=(*MAIN, Unknown(b"?")))
    assert names(trailing) == ["stream-trailing"]
    assert names(found(sync(0), packet(0), CONFIG, main=(Unknown(b"?"), *MAIN))) == []


def test_gaps_of_the_capture_excuse_what_may_be_in_them() -> None:
    multifd = found(Lost(10), packet(0), CONFIG)
    assert names(multifd) == ["capture-gap"]
    assert multifd[0].message == "10 bytes between frames were not captured"
    main = found(sync(0), packet(0), CONFIG, main=(Lost(5), Eof()))
    assert [(one.rule.name, one.channel) for one in main] == [("capture-gap", "main")]
    assert names(found(packet(0), CONFIG, resets=("multifd-0",)))[-1] == "connection-reset"


def test_floods_are_counted() -> None:
    flood = found(sync(0), *(packet(0) for _ in range(100)), CONFIG)
    assert len(flood) == 33
    assert flood[-1].message == "67 more in multifd-0"


def test_findings_of_one_place_are_merged() -> None:
    entry = Entry(Deliver(0, packet(0)), "multifd-0", 7, 640)
    first = finding("idx-duplicate", "by the loader", entry=entry, device=DEVICE)
    second = finding("idx-duplicate", "by the lint", entry=entry)
    third = finding("idx-gap", "somewhere", device=DEVICE)
    assert merged([first], [second, third, third]) == (first, third)
    assert (first.number, first.offset, first.severity) == (7, 640, Severity.ERROR)
