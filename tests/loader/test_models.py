# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices: mtty's rules, and none for the others."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from mfdtool.loader.blob import EMPTY, Blob, blob_of
from mfdtool.loader.destination import DeviceSpec
from mfdtool.loader.errno import EFAULT, EINVAL, ENOMEM, strerror
from mfdtool.loader.models import (
    Intake,
    leave_resuming,
    mtty_header,
    mtty_ports,
    mtty_size,
    write,
)
from tests.support.playbook import DEVICE

MTTY = DeviceSpec(idstr=DEVICE, mtty_ports=2)
STATE = mtty_header(2) + bytes(72)


def write_all(spec: DeviceSpec, pieces: list[bytes]) -> tuple[Intake, int]:
    intake, errno = Intake(), 0
    for piece in pieces:
        intake, errno = write(spec, intake, blob_of(piece))
        if errno:
            break
    return intake, errno


def test_header_is_that_of_a_real_mtty() -> None:
    assert mtty_header(2).hex() == "4e2c3e8c89099d7e010000000000000002000000" + "00000000"
    assert (mtty_size(1), mtty_size(2)) == (60, 96)
    assert mtty_ports(STATE) == 2
    assert mtty_ports(STATE[:23]) is None
    assert mtty_ports(bytes(24)) is None


@pytest.mark.parametrize("seed", range(20))
def test_any_segmentation_is_accepted(seed: int) -> None:
    rng = random.Random(seed)
    cuts = sorted({0, len(STATE), *(rng.randrange(len(STATE)) for _ in range(rng.randrange(9)))})
    pieces = [STATE[low:high] for low, high in pairwise(cuts)]
    intake, errno = write_all(MTTY, pieces)
    assert (intake.size, intake.head, errno) == (96, STATE[:24], 0)
    assert leave_resuming(MTTY, intake) == 0


@pytest.mark.parametrize("at", range(24))
def test_every_byte_of_the_header_counts(at: int) -> None:
    wrong = bytearray(STATE)
    wrong[at] ^= 1
    assert write_all(MTTY, [bytes(wrong)])[1] == EFAULT
    assert write_all(MTTY, [bytes(wrong[:10]), bytes(wrong[10:])])[1] == EFAULT


def test_too_much_and_too_little() -> None:
    assert write_all(MTTY, [STATE, b"x"])[1] == ENOMEM
    intake, errno = write_all(MTTY, [STATE[:-1]])
    assert (errno, leave_resuming(MTTY, intake)) == (0, EINVAL)


def test_bytes_that_were_not_captured_are_taken_on_trust() -> None:
    intake, errno = write(MTTY, Intake(), Blob(96, ("main", 5), missing=90))
    assert (errno, intake.complete, leave_resuming(MTTY, intake)) == (0, False, 0)


def test_unknown_devices_take_anything() -> None:
    plain = DeviceSpec(idstr=DEVICE)
    intake, errno = write_all(plain, [b"whatever", bytes(1000)])
    assert (errno, leave_resuming(plain, intake), leave_resuming(plain, Intake())) == (0, 0, 0)


def test_intake_depends_on_the_order() -> None:
    plain = DeviceSpec(idstr=DEVICE)
    forth, back = write_all(plain, [b"a", b"b"])[0], write_all(plain, [b"b", b"a"])[0]
    assert forth.size == back.size
    assert forth != back


def test_blobs() -> None:
    blob = Blob(6, ("multifd-0", 8), 0, (memoryview(b"abc"), memoryview(b"def")))
    assert (blob.head(2), blob.head(4), blob.head(99)) == (b"ab", b"abcd", b"abcdef")
    assert b"".join(blob.pieces()) == b"abcdef"
    assert blob == Blob(6, ("multifd-0", 8))
    assert blob_of(b"") == EMPTY


def test_errors_have_words() -> None:
    assert strerror(ENOMEM) == "Cannot allocate memory"
