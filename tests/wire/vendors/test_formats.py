# SPDX-License-Identifier: GPL-2.0-or-later
"""The formats of all drivers: every byte in a record, at every split and every end."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from mfdtool.errors import WireError
from mfdtool.wire.codec import Message, describe
from mfdtool.wire.vendors import hisi_acc, mlx5, mtty, pieces, virtio_vfio
from mfdtool.wire.vendors.cursor import Cursor, RecordReader
from mfdtool.wire.vendors.framed import RecordHeader
from mfdtool.wire.vendors.registry import BUILT_IN
from mfdtool.wire.vendors.vendor import Record, Records, Vendor
from tests.support.vendor_states import HISI_ACC, MLX5, MTTY, VIRTIO, framed, locate, records

STATES = {"mtty": MTTY, "mlx5": MLX5, "virtio-vfio-pci": VIRTIO, "hisi_acc": HISI_ACC}
VENDORS = [pytest.param(vendor, STATES[vendor.name], id=vendor.name) for vendor in BUILT_IN]


def named(found: list[Record]) -> list[tuple[int, int, str]]:
    return [(record.offset, record.length, record.name) for record in found]


def test_sizes_are_those_of_the_structures() -> None:
    assert (mtty.HEADER_SIZE, mtty.PORT_SIZE) == (24, 36)
    assert (hisi_acc.MATCH_SIZE, hisi_acc.MATCH_SIZE + hisi_acc.QUEUE_SIZE) == (40, 176)
    assert RecordHeader.SCHEMA.sizeof() == 16


@pytest.mark.parametrize(
    "message", [mtty.MttyHeader, mtty.SerialPort, hisi_acc.MatchData, hisi_acc.QueueState]
)
def test_messages_are_described(message: type[Message]) -> None:
    assert message.SOURCE
    assert message.__doc__
    assert all(info.meaning for info in describe(message) if info.name)


def test_mtty() -> None:
    header, first, second = records(mtty.VENDOR, MTTY)
    assert named([header, first, second]) == [
        (0, 24, "header"),
        (24, 36, "port 0"),
        (60, 36, "port 1"),
    ]
    assert header.fields == {
        "magic": 0x7E9D09898C3E2C4E,
        "major_ver": 1,
        "minor_ver": 0,
        "nr_ports": 2,
        "flags": 0,
    }
    assert first.fields["uart_reg"] == "01" * 8
    assert (second.fields["head"], second.fields["max_fifo_size"]) == (3, 16)
    assert not any(record.problem or record.missing for record in (header, first, second))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (mtty.MttyHeader(magic=1), "the magic is not 0x7e9d09898c3e2c4e"),
        (mtty.MttyHeader(minor_ver=1), "the driver takes version 1.0 without flags only"),
        (mtty.MttyHeader(flags=4), "the driver takes version 1.0 without flags only"),
        (mtty.MttyHeader(nr_ports=0), "a device has 1 or 2 ports"),
    ],
)
def test_mtty_that_no_destination_takes(header: mtty.MttyHeader, problem: str) -> None:
    (record,) = records(mtty.VENDOR, header.build())
    assert record.problem == problem


def test_mtty_with_very_many_ports() -> None:
    found = records(mtty.VENDOR, mtty.MttyHeader(nr_ports=1 << 31).build() + bytes(100))
    assert named(found) == [
        (0, 24, "header"),
        (24, 36, "port 0"),
        (60, 36, "port 1"),
        (96, 28, "undecoded"),
    ]


def test_mlx5() -> None:
    found = records(mlx5.VENDOR, MLX5)
    assert named(found) == [(0, 24, "STOP_COPY_SIZE"), (24, 316, "FW_DATA"), (340, 5016, "FW_DATA")]
    assert found[0].fields == {"record_size": 8, "flags": 1, "tag": 1, "stop_copy_size": 5000}
    assert found[1].fields == {"record_size": 300, "flags": 0, "tag": 0}
    assert {record.header for record in found} == {16}


@pytest.mark.parametrize(
    ("tag", "flags", "name", "problem"),
    [
        (7, 0, "tag 0x7", "tag 0x7 is not known and not optional"),
        (7, 1, "tag 0x7", ""),
        (1, 1, "STOP_COPY_SIZE", ""),
    ],
)
def test_mlx5_tags(tag: int, flags: int, name: str, problem: str) -> None:
    (record,) = records(mlx5.VENDOR, framed((tag, flags, b"three")))
    assert (record.name, record.problem) == (name, problem)
    assert "stop_copy_size" not in record.fields


def test_virtio_knows_no_stop_copy_size() -> None:
    found = records(virtio_vfio.VENDOR, VIRTIO)
    assert named(found) == [
        (0, 716, "DEVICE_DATA"),
        (716, 16, "DEVICE_DATA"),
        (732, 49, "DEVICE_DATA"),
    ]
    assert records(virtio_vfio.VENDOR, framed((1, 0, b"")))[0].problem == (
        "tag 0x1 is not known and not optional"
    )


def test_record_that_claims_more_than_there_is() -> None:
    header = RecordHeader(record_size=1 << 62).build()
    (record,) = records(mlx5.VENDOR, header + bytes(10))
    assert (record.length, record.missing) == ((1 << 62) + 16, (1 << 62) - 10)
    assert record.problem == "record_size is more than 0xffffffff"


def test_hisi_acc() -> None:
    match, queues = records(hisi_acc.VENDOR, HISI_ACC)
    assert named([match, queues]) == [(0, 40, "match data"), (40, 136, "queue state")]
    assert (match.fields["dev_id"], match.fields["qp_num"]) == (0xA256, 8)
    assert (queues.fields["eqe_dma"], queues.fields["qm_rsv_regs"]) == (0x1000, "0x0 " * 4 + "0x0")
    assert named(records(hisi_acc.VENDOR, HISI_ACC[:40])) == [(0, 40, "match data")]


@pytest.mark.parametrize(
    ("match", "problem"),
    [
        (hisi_acc.MatchData(acc_magic=5), "the magic 0x5 is none of the driver's"),
        (hisi_acc.MatchData(major_ver=2), "the driver takes version 1 only"),
        (hisi_acc.MatchData(acc_magic=hisi_acc.MAGIC_V1, major_ver=0), ""),
    ],
)
def test_hisi_acc_versions(match: hisi_acc.MatchData, problem: str) -> None:
    assert records(hisi_acc.VENDOR, match.build())[0].problem == problem


# All of them


@pytest.mark.parametrize(("vendor", "state"), VENDORS)
def test_every_split(vendor: Vendor, state: bytes) -> None:
    whole = records(vendor, state)
    assert sum(record.length for record in whole) == len(state)
    for at in range(min(len(state), 400)):
        assert records(vendor, state[:at], state[at:]) == whole
    single = [bytes([byte]) for byte in state[:400]]
    assert records(vendor, *single, state[400:]) == whole


@pytest.mark.parametrize(("vendor", "state"), VENDORS)
def test_every_end(vendor: Vendor, state: bytes) -> None:
    for size in range(min(len(state), 400)):
        found = records(vendor, state[:size])
        assert sum(record.length - record.missing for record in found) == size
        assert [record.offset for record in found] == [
            sum(record.length for record in found[:number]) for number in range(len(found))
        ]
        if found and found[-1].name == "undecoded":
            assert found[-1].problem == "the state ends in it"


@pytest.mark.parametrize(("vendor", "state"), VENDORS)
def test_something_behind_the_end(vendor: Vendor, state: bytes) -> None:
    whole = records(vendor, state)
    found = records(vendor, state + b"more")
    assert found[: len(whole)] == whole
    (rest,) = found[len(whole) :]
    assert (rest.offset, rest.length, rest.name) == (len(state), 4, "undecoded")


@pytest.mark.parametrize(("vendor", "state"), VENDORS)
def test_hole_of_known_length_anywhere(vendor: Vendor, state: bytes) -> None:
    for at in range(min(len(state), 400) - 5):
        found = records(vendor, state[:at], 5, state[at + 5 :])
        assert sum(record.length for record in found) == len(state)
        assert sum(record.missing for record in found) == 5


@pytest.mark.parametrize(("vendor", "state"), VENDORS)
@pytest.mark.parametrize("seed", range(20))
def test_any_bytes(vendor: Vendor, state: bytes, seed: int) -> None:
    random = Random(seed)
    broken = bytearray(state)
    for _ in range(random.randrange(1, 20)):
        broken[random.randrange(len(broken))] = random.randrange(256)
    found = records(vendor, bytes(broken))
    assert sum(record.length - record.missing for record in found) == len(broken)


# Where records came from, and pieces of nobody's


def test_origins() -> None:
    found = locate(mlx5.VENDOR, [MLX5[:20], MLX5[20:24], MLX5[24:100], MLX5[100:]])
    assert [(located.first, located.last) for located in found] == [
        ("@0", "@1"),
        ("@2", "@3"),
        ("@3", "@3"),
    ]


def test_hole_of_unknown_length() -> None:
    found = locate(mlx5.VENDOR, [MLX5[:100], None, MLX5[100:], None, 7])
    (first, second) = found
    assert first.record.name == "STOP_COPY_SIZE"
    assert (second.record.length, second.record.missing) == (316, 240)
    assert second.last == "@0"


def test_hole_of_unknown_length_in_a_header() -> None:
    found = records(mtty.VENDOR, MTTY[:30], None, MTTY[60:])
    assert [(record.name, record.length, record.problem) for record in found] == [
        ("header", 24, ""),
        ("undecoded", 6, "a hole of unknown length follows"),
    ]


def test_hole_in_a_header() -> None:
    found = records(mtty.VENDOR, MTTY[:30], 10, MTTY[40:])
    assert named(found) == [(0, 24, "header"), (24, 72, "undecoded")]
    assert (found[1].missing, found[1].problem) == (10, "bytes are missing in a header")


def test_decoder_that_gives_up() -> None:
    def decode(cursor: Cursor) -> Records:
        yield Record(offset=0, length=len((yield from cursor.read(2))), name="start")
        raise WireError("no such version", offset=2)

    found = records(replace(mtty.VENDOR, decode=decode), b"abc", b"def")
    assert named(found) == [(0, 2, "start"), (2, 4, "undecoded")]
    assert found[1].problem == "no such version"


@pytest.mark.parametrize(
    ("too_much", "problem"), [(False, "KeyError: 2"), (True, "ValueError: 5000 bytes are too many")]
)
def test_decoder_that_fails(*, too_much: bool, problem: str) -> None:
    def decode(cursor: Cursor) -> Records:
        yield Record(offset=0, length=len((yield from cursor.read(2))), name="start")
        if too_much:
            yield from cursor.read(5000)
        raise KeyError(cursor.position)

    found = records(replace(mtty.VENDOR, decode=decode), b"abc", b"def")
    assert named(found) == [(0, 2, "start"), (2, 4, "undecoded")]
    assert found[1].problem.startswith(f"the driver's decoder failed: {problem}")


def test_pieces() -> None:
    found = locate(pieces.VENDOR, [b"abc", b"", b"defg", 5])
    assert [(each.record.offset, each.record.length, each.record.missing) for each in found] == [
        (0, 3, 0),
        (3, 4, 0),
        (7, 5, 5),
    ]
    assert [(each.first, each.last) for each in found] == [
        ("@0", "@0"),
        ("@2", "@2"),
        ("hole 3", "hole 3"),
    ]


def test_pieces_of_one_origin_are_one() -> None:
    reader = RecordReader(pieces.VENDOR.decode)
    found = [*reader.feed(b"ab", "x"), *reader.feed(b"cd", "x"), *reader.feed(b"e", "y")]
    found += reader.finish()
    assert [(each.record.length, each.first) for each in found] == [(4, "x"), (1, "y")]
    assert list(reader.feed(b"late")) == []
    assert reader.lost == 4
