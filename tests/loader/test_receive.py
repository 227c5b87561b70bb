# SPDX-License-Identifier: GPL-2.0-or-later
"""Receive threads: every check in its order, SYNC packets, and what an error does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.loader.commands import Abort, Fail
from mfdtool.loader.destination import RamBlock
from mfdtool.loader.events import (
    BadHeader,
    Connect,
    Deliver,
    DevicePacket,
    End,
    Eof,
    FileHeader,
    Handshake,
    Lost,
    MultiFDItem,
    RamPacket,
    SectionPart,
    SectionStart,
    Unknown,
)
from mfdtool.loader.moves import MainPhase, ReceivePhase
from mfdtool.loader.state import Outcome
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import MultiFDFlag
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import DESTINATION, FLUSH, SYNC, Playbook, packet

UUID = bytes(range(16))
PAGES = RamPacket(pages_alloc=128, normal_pages=1, next_packet_size=4096, ramblock="pc.ram")
BLOCKS = (RamBlock(idstr="pc.ram", used_length=1 << 20),)
START_RAM = SectionStart(1, "ram", 0, 4)
CUT_OFF = "Unexpected end-of-file before all data were read"


def phases(book: Playbook) -> list[ReceivePhase | None]:
    return [found.phase if found is not None else None for found in book.state.receivers]


# Handshakes.


@pytest.mark.parametrize(
    ("handshake", "rule", "text"),
    [
        (
            Handshake(0, magic=0x11223345),
            "handshake-magic",
            "multifd: received packet magic 11223345 expected 11223344",
        ),
        (
            Handshake(0, version=2),
            "handshake-version",
            "multifd: received packet version 2 expected 1",
        ),
        (
            Handshake(1, uuid=UUID),
            "handshake-uuid",
            "multifd: received uuid '00010203-0405-0607-0809-0a0b0c0d0e0f' and expected uuid"
            " '00000000-0000-0000-0000-000000000000' for channel 1",
        ),
        (
            Handshake(3),
            "channel-id-too-large",
            "multifd: received channel id 3 is greater than number of channels 2",
        ),
    ],
)
def test_bad_handshake_exits(handshake: Handshake, rule: str, text: str) -> None:
    book = Playbook(replace(DESTINATION, uuid=bytes(16)))
    book.do(Connect(handshake))
    error = f"failed to receive packet via multifd channel 0: {text}"
    assert book.outcome is Outcome.FAILED
    assert (book.stderr, book.rules) == ([error], [rule])
    assert book.ends == [Fail(error)]


def test_handshake_id_that_is_taken() -> None:
    book = Playbook()
    book.do(Connect(Handshake(1)))
    book.do(Connect(Handshake(1)))
    assert book.stderr == ["multifd: received id '1' already setup'"]


def test_c9_handshake_id_one_beyond_is_undefined() -> None:
    book = Playbook()
    book.do(Connect(Handshake(2)))
    assert book.outcome is Outcome.ABORTED
    assert (book.rules, book.ends) == (["channel-id-out-of-bounds"], [Abort(None)])


def test_any_uuid_will_do_if_none_is_known() -> None:
    book = Playbook()
    book.do(Connect(Handshake(0, uuid=UUID)))
    assert book.outcome is None


def test_connection_that_ends_at_once() -> None:
    for first in (End(), Unknown(b"\x11\x22\x33")):
        book = Playbook()
        book.do(Connect(first))
        assert book.stderr == ["Failed to peek at channel"]


def test_cut_off_handshake() -> None:
    book = Playbook(replace(DESTINATION, profile=PROFILES["11.1"]))
    book.do(Connect(Unknown(bytes.fromhex("1122334400000001"))))
    assert book.stderr == [f"failed to receive packet via multifd channel 0: {CUT_OFF}"]


def test_unknown_magic_is_a_multifd_channel_only_to_old_releases() -> None:
    head = b"HTTP" + bytes(60)
    old, new = Playbook(), Playbook(replace(DESTINATION, profile=PROFILES["10.1"]))
    old.do(Connect(Unknown(head)))
    new.do(Connect(Unknown(head)))
    assert old.rules == ["handshake-magic"]
    assert new.stderr == ["unknown channel magic: 1213486160"]


def test_c13_multifd_channel_to_a_destination_without() -> None:
    none = replace(DESTINATION, channels=0)
    old, new = Playbook(none), Playbook(replace(none, profile=PROFILES["10.1"]))
    old.do(Connect(Handshake(0)))
    new.do(Connect(Handshake(0)))
    assert old.stderr == ["Not a migration stream", "load of migration failed: Invalid argument"]
    assert new.outcome is Outcome.ABORTED
    assert new.stderr == [
        "migration/migration.c: migration_ioc_process_incoming: Assertion"
        " `migrate_multifd()' failed."
    ]


def test_c13_second_main_channel() -> None:
    old, new = Playbook(), Playbook(replace(DESTINATION, profile=PROFILES["10.1"]))
    for book in (old, new):
        book.do(Connect(FileHeader()))
        book.do(Connect(FileHeader()))
        assert book.rules == ["second-main-channel"]
    assert old.outcome is None
    assert new.outcome is Outcome.ABORTED


def test_extra_connections_are_dropped() -> None:
    book = Playbook().connect()
    book.do(Connect(Handshake(7)))
    book.do(Connect(FileHeader()))
    assert (
        book.stderr
        == ["socket_accept_incoming_migration: Extra incoming migration connection; ignoring"] * 2
    )
    assert book.blocked(Deliver(2, SYNC)) == "the connection was dropped"


def test_h7_main_thread_waits_for_all_channels() -> None:
    book = Playbook()
    book.do(Connect(Handshake(0)))
    book.do(Connect(FileHeader()))
    assert book.blocked(Deliver(None, FileHeader())) == "the main thread is connecting"
    assert book.is_stuck


# Packets.

SHORT = DevicePacket(idstr="0000:00:05.0/vfio", next_packet_size=8, version=None, flags=None)


@pytest.mark.parametrize(
    ("item", "rule", "error"),
    [
        (
            BadHeader(0xAABBCCDD, 1),
            "packet-magic",
            "multifd: received packet magic aabbccdd, expected 11223344",
        ),
        (
            BadHeader(0x11223344, 9),
            "packet-version",
            "multifd: received packet version 9, expected 1",
        ),
        (
            replace(PAGES, pages_alloc=129),
            "ram-pages-alloc",
            "multifd: received packet with 129 pages, expected 128",
        ),
        (
            replace(PAGES, pages_alloc=1, normal_pages=2),
            "ram-normal-pages",
            "multifd: received packet with 2 non-zero pages, which exceeds maximum expected"
            " pages 1",
        ),
        (
            replace(PAGES, pages_alloc=3, normal_pages=2, zero_pages=2),
            "ram-zero-pages",
            "multifd: received packet with 2 zero pages, expected maximum 1",
        ),
        (
            replace(PAGES, ramblock="nothing"),
            "ram-block-unknown",
            "multifd: unknown ram block nothing",
        ),
        (
            replace(PAGES, offset=(1 << 20) - 4095),
            "ram-page-offset",
            "multifd: offset too long 1044481 (max 100000)",
        ),
        (
            replace(PAGES, flags=MultiFDFlag.ZSTD),
            "ram-compression",
            "multifd 0: flags received 4 flags expected 0",
        ),
        (
            replace(packet(0), next_packet_size=0),
            "device-packet-empty",
            "multifd: received empty device state packet",
        ),
        (replace(packet(0), is_cut=True), "packet-truncated", CUT_OFF),
        (
            replace(packet(0), is_terminated=False),
            "idstr-unterminated",
            "unterminated multifd device state idstr",
        ),
        (
            replace(packet(0), idstr="0000:00:09.0/vfio"),
            "device-unknown",
            "Unknown idstr 0000:00:09.0/vfio or instance id 0 for load state buffer",
        ),
        (
            replace(packet(0), instance_id=7),
            "device-unknown",
            "Unknown idstr 0000:00:05.0/vfio or instance id 7 for load state buffer",
        ),
        (
            replace(packet(0), idstr="ram"),
            "device-without-buffers",
            "idstr ram / instance 0 has no load state buffer operation",
        ),
        (SHORT, "payload-too-short", "NAME: packet too short at 8 (min is 12)"),
        (
            replace(packet(0), version=3),
            "payload-version",
            "NAME: packet has unknown version 3",
        ),
        (packet(0xFFFFFFFF), "idx-invalid", "NAME: packet index is invalid"),
        (End(inside=True), "packet-truncated", CUT_OFF),
        (
            End(inside=True, after_header=True),
            "packet-truncated",
            "multifd: unexpected EOF after packet header",
        ),
        (
            End(EndReason.RST),
            "connection-reset",
            "Unable to read from socket: Connection reset by peer",
        ),
    ],
)
def test_bad_packet_ends_all_receive_threads(item: MultiFDItem, rule: str, error: str) -> None:
    book = Playbook(replace(DESTINATION, blocks=BLOCKS)).switch_over().receive(0, item)
    assert book.state.error == error
    assert book.rules == [rule]
    assert book.outcome is None
    assert phases(book) == [ReceivePhase.ENDED, ReceivePhase.ENDED]
    assert book.stderr == []
    assert book.traced("multifd_recv_terminate_threads") == [(1,)]


def test_sync_device_packet_is_stored_first() -> None:
    item = packet(0)
    flags = item.packet_flags | MultiFDFlag.SYNC
    book = Playbook().switch_over().receive(0, replace(item, packet_flags=flags))
    assert 0 in book.state.devices[0].slots
    assert book.state.error == "multifd: received SYNC device state packet"
    assert book.rules == ["device-packet-sync"]


def test_duplicate_of_a_loaded_buffer() -> None:
    book = Playbook().switch_over().receive(0, packet(0)).run().receive(1, packet(0))
    assert book.state.error == "NAME: state buffer 0 already filled"


def test_only_the_first_error_is_kept() -> None:
    book = Playbook().switch_over().receive(0, BadHeader(0, 1))
    assert book.blocked(Deliver(1, BadHeader(1, 1))) == "the receive thread is ended"
    assert book.state.error == "multifd: received packet magic 0, expected 11223344"


def test_good_pages_and_lost_bytes_pass() -> None:
    book = Playbook(replace(DESTINATION, blocks=BLOCKS)).setup()
    pages = replace(PAGES, offset=(1 << 20) - 4096)
    book.receive(0, pages, replace(pages, ramblock=None), Lost(100), RamPacket(flags=0x80))
    assert book.state.error is None
    assert book.traced("multifd_recv_unfill")[-1] == (0, 0, 0x80, 0)


def test_unknown_blocks_pass_where_none_is_known() -> None:
    assert Playbook().setup().receive(0, PAGES).state.error is None


def test_clean_end_is_no_error() -> None:
    book = Playbook().setup().receive(0, End())
    assert phases(book) == [ReceivePhase.ENDED, ReceivePhase.READING]
    assert book.state.error is None
    assert book.traced("multifd_recv_thread_end") == [(0, 1)]


def test_capture_that_ends_is_no_end() -> None:
    book = Playbook().setup().receive(0, End(EndReason.CAPTURE))
    assert phases(book)[0] is ReceivePhase.READING


# Compression.


@pytest.mark.parametrize("method", [MultiFDFlag.ZLIB, MultiFDFlag.ZSTD])
def test_c10_compressed_packet_beyond_the_buffer_is_undefined(method: MultiFDFlag) -> None:
    book = Playbook(replace(DESTINATION, compression=method.value)).header()
    assert book.outcome is Outcome.FAILED
    spec = replace(DESTINATION.devices[0], transfer=False)
    settled = replace(DESTINATION, compression=method.value, devices=(spec,))
    large = replace(PAGES, flags=method.value, next_packet_size=(1 << 20) + 1)
    book = Playbook(settled).setup().receive(0, large)
    assert (book.outcome, book.rules) == (Outcome.ABORTED, ["ram-compressed-too-large"])


@pytest.mark.parametrize("method", [flag for flag in MultiFDFlag if flag & 0x3E])
def test_c11_compressed_payload_without_pages_aborts(method: MultiFDFlag) -> None:
    spec = replace(DESTINATION.devices[0], transfer=False)
    settled = replace(DESTINATION, compression=method.value, devices=(spec,))
    item = RamPacket(flags=method.value, pages_alloc=128, zero_pages=1, next_packet_size=5)
    book = Playbook(settled).setup().receive(0, item)
    assert book.outcome is Outcome.ABORTED
    assert book.stderr[0].endswith("Assertion `in_size == 0' failed.")
    fine = Playbook(settled).setup().receive(0, replace(item, next_packet_size=0))
    assert fine.state.error is None


def test_qatzip_checks_the_size() -> None:
    spec = replace(DESTINATION.devices[0], transfer=False)
    settled = replace(DESTINATION, compression=MultiFDFlag.QATZIP.value, devices=(spec,))
    large = replace(PAGES, flags=MultiFDFlag.QATZIP.value, next_packet_size=(1 << 20) + 1)
    book = Playbook(settled).setup().receive(0, large)
    assert book.state.error == "multifd 0: received unexpectedly large packet"
    small = replace(large, next_packet_size=1 << 20)
    assert Playbook(settled).setup().receive(0, small).state.error is None


# SYNC.


def test_sync_holds_a_channel_until_the_flush() -> None:
    book = Playbook().header().receive(0, SYNC)
    assert book.blocked(Deliver(0, SYNC)) == "the receive thread is syncing"
    main_phases = [book.main(START_RAM, FLUSH).state.main.phase]
    main_phases.append(book.receive(1, replace(SYNC, packet_num=9)).state.main.phase)
    assert main_phases == [MainPhase.SYNCING, MainPhase.SECTION]
    assert phases(book) == [ReceivePhase.READING, ReceivePhase.READING]
    assert book.traced("multifd_recv_sync_main_wait") == [(0,), (1,)]
    assert book.traced("multifd_recv_sync_main_signal") == [(0,), (1,)]
    assert book.traced("multifd_recv_sync_main") == [(9,)]


def test_h4_channel_that_ends_before_its_sync() -> None:
    book = Playbook().header().receive(0, SYNC).receive(1, End()).main(START_RAM, FLUSH)
    assert book.is_stuck
    assert book.state.main.phase is MainPhase.SYNCING


def test_h4_error_does_not_wake_the_main_thread() -> None:
    book = Playbook().header().main(START_RAM, FLUSH).receive(0, SYNC)
    book.receive(1, BadHeader(0, 0))
    assert book.is_stuck
    assert book.state.error is not None


def test_extra_sync_counts_for_another_channel() -> None:
    book = Playbook().setup().receive(0, SYNC)
    book.main(SectionPart(1), FLUSH).receive(1, SYNC)
    book.receive(0, SYNC).main(FLUSH)
    assert book.state.main.phase is MainPhase.SYNCING
    assert phases(book) == [ReceivePhase.SYNCING, ReceivePhase.READING]
    other = Playbook().connect().receive(0, SYNC)
    assert phases(other)[0] is ReceivePhase.SYNCING


def test_released_channel_passes_its_next_sync() -> None:
    book = Playbook(replace(DESTINATION, channels=2)).header()
    book.state = replace(book.state, main=replace(book.state.main, posted=1))
    book.main(START_RAM, FLUSH).receive(0, SYNC)
    assert phases(book) == [ReceivePhase.READING, ReceivePhase.READING]
    book.receive(1, SYNC)
    assert phases(book)[1] is ReceivePhase.READING
    assert book.state.main.posted == 1


def test_error_before_the_end_fails_at_the_end() -> None:
    book = Playbook().switch_over().receive(0, BadHeader(0, 1)).main(Eof())
    assert book.outcome is Outcome.FAILED
    assert book.stderr == ["multifd: received packet magic 0, expected 11223344"]


def test_items_of_the_wrong_channel_are_blocked() -> None:
    book = Playbook().setup()
    assert book.blocked(Deliver(0, Eof())) == "that is no item of a multifd channel"
    assert book.blocked(Deliver(None, SYNC)) == "that is no item of the main channel"
    assert book.blocked(Deliver(9, SYNC)) == "there is no such channel"
