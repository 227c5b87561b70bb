# SPDX-License-Identifier: GPL-2.0-or-later
"""VM states in qcow2 images."""

from __future__ import annotations

import struct
from random import Random

import pytest

from mfdtool.errors import CaptureError, MfdtoolError, UnsupportedError
from mfdtool.packets import qcow2
from mfdtool.packets.qcow2 import Snapshot, read_image, read_snapshots, state_extents
from tests.support.qcow2_images import CLUSTER, COVERED, ImageMaker

STATE = Random(3).randbytes(COVERED + 3 * CLUSTER + 100)


def states(data: bytes) -> dict[str, bytes]:
    """Give all VM states of an image by the snapshots' names."""
    view = memoryview(data)
    image = read_image(view, path="disk")
    known: set[int] = set()
    return {
        snapshot.name: b"".join(
            bytes(length) if offset is None else view[offset : offset + length].tobytes()
            for offset, length in state_extents(view, image, snapshot, known=known, path="disk")
        )
        for snapshot in read_snapshots(view, image, path="disk")
    }


def made(
    *, version: int = 3, features: int = 0, crypt: int = 0, cluster_bits: int = 9
) -> ImageMaker:
    """Make an image with one snapshot."""
    maker = ImageMaker(version=version, features=features, crypt=crypt, cluster_bits=cluster_bits)
    maker.add("one", len(STATE), maker.state(STATE))
    return maker


def test_states() -> None:
    maker = made()
    maker.add("no state", 0, [0, 0])
    maker.add("two", 700, maker.state(STATE[:700]))
    data = maker.build()
    assert states(data) == {"one": STATE, "no state": b"", "two": STATE[:700]}
    view = memoryview(data)
    first = next(read_snapshots(view, read_image(view)))
    assert first == Snapshot(
        number="1",
        name="one",
        time=1_700_000_000,
        state_size=len(STATE),
        disk_size=COVERED + 1,
        table=first.table,
    )


def test_clusters_that_read_as_zeroes() -> None:
    maker = ImageMaker()
    maker.add("one", len(STATE), maker.state(STATE, holes=frozenset({1, 3})))
    expected = bytearray(STATE)
    for start in (CLUSTER, 3 * CLUSTER):
        expected[start : start + CLUSTER] = bytes(CLUSTER)
    assert states(maker.build())["one"] == expected
    maker = ImageMaker()
    second = maker.table([maker.put(b"x" * CLUSTER) | 1])
    maker.add("one", 100, [0, 0, second])
    assert states(maker.build())["one"] == bytes(100)


def test_old_snapshots_have_no_extra_data() -> None:
    maker = ImageMaker(version=2)
    maker.add("a", 0, maker.state(STATE[:600]), extra=b"", old=600)
    maker.add("b", 0, maker.state(STATE[:700]), extra=struct.pack(">Q", 700), old=1)
    assert states(maker.build()) == {"a": STATE[:600], "b": STATE[:700]}


def test_missing_table() -> None:
    maker = ImageMaker()
    maker.add("one", len(STATE), maker.state(STATE)[:3])
    with pytest.raises(CaptureError, match="one: 1636 bytes of its VM state are not there"):
        states(maker.build())
    maker = ImageMaker()
    maker.add("one", len(STATE), [0, 0, 0])
    with pytest.raises(CaptureError, match="bytes of its VM state are not there"):
        states(maker.build())


def test_tables_that_lead_to_one_place() -> None:
    maker = ImageMaker()
    first = maker.state(STATE)
    maker.add("one", len(STATE), first)
    maker.add("two", len(STATE), first)
    with pytest.raises(CaptureError, match="more than once"):
        states(maker.build())
    maker = ImageMaker()
    cluster = maker.put(b"x")
    maker.add("one", 1024, [0, 0, maker.table([cluster, cluster])])
    with pytest.raises(CaptureError, match="more than once"):
        states(maker.build())


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        (1 << 40, CaptureError, "a cluster at 1099511627776 is beyond the end"),
        (1 << 62 | 512, UnsupportedError, "a compressed cluster of VM state"),
    ],
)
def test_bad_clusters(entry: int, kind: type[Exception], message: str) -> None:
    maker = ImageMaker()
    maker.add("one", 1024, [0, 0, maker.table([entry])])
    with pytest.raises(kind, match=message):
        states(maker.build())


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"QFI\xfa" + bytes(100), CaptureError, "this is not a qcow2 image"),
        (made(version=4).build(), UnsupportedError, "version 4 of qcow2"),
        (made(crypt=2).build(), UnsupportedError, "an encrypted image"),
        (made(features=4).build(), UnsupportedError, "an image with an external data file"),
        (made(features=16).build(), UnsupportedError, "an image with extended L2 entries"),
        (made(cluster_bits=8).build(), CaptureError, r"clusters of 2\^8 bytes"),
    ],
)
def test_unusable_images(data: bytes, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        states(data)


def test_too_many_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qcow2, "SNAPSHOTS_LIMIT", 0)
    with pytest.raises(CaptureError, match="1 snapshots"):
        states(made().build())


def test_every_truncation_is_told() -> None:
    maker = ImageMaker()
    maker.add("one", 700, maker.state(STATE[:700]))
    data = maker.build().rstrip(b"\0")
    for stop in range(len(data)):
        with pytest.raises(CaptureError):
            states(data[:stop])


def test_damage_is_never_more_than_an_error() -> None:
    random = Random(5)
    maker = ImageMaker()
    maker.add("one", 1500, maker.state(STATE[:1500]))
    good = maker.build()
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(random.randint(1, 4)):
            at = random.choice([random.randrange(112), random.randrange(len(data))])
            data[at] = random.choice([0, 1, 0x7F, 0xFF, random.randrange(256)])
        try:
            found = states(bytes(data))
        except MfdtoolError:
            continue
        assert sum(map(len, found.values())) <= len(found) * 64 * len(data)
