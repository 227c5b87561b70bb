# SPDX-License-Identifier: GPL-2.0-or-later
"""Headers of libvirt's save images."""

from __future__ import annotations

import struct

import pytest

from mfdtool.errors import CaptureError, UnsupportedError
from mfdtool.packets.save_image import (
    HEADER_SIZE,
    MAGIC,
    PARTIAL_MAGIC,
    SaveFormat,
    SaveImage,
    is_save_image,
    read_save_image,
)

XML = b"<domain/>\0"
COOKIE = b"<cookie/>\0\0\0"


def image(
    *,
    magic: bytes = MAGIC,
    order: str = "<",
    version: int = 2,
    length: int = len(XML) + len(COOKIE),
    running: int = 1,
    form: int = 0,
    cookie: int = HEADER_SIZE + len(XML),
) -> bytes:
    """Make a save image without its stream."""
    header = struct.pack(f"{order}16s5I56x", magic, version, length, running, form, cookie)
    return header + XML + COOKIE


def read(data: bytes) -> SaveImage:
    return read_save_image(memoryview(data), path="vm.save")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", SaveFormat)
def test_header(order: str, form: SaveFormat) -> None:
    assert read(image(order=order, form=form)) == SaveImage(
        format=form,
        was_running=True,
        is_partial=False,
        xml=b"<domain/>",
        cookie=b"<cookie/>",
        start=HEADER_SIZE + len(XML) + len(COOKIE),
    )


def test_old_image_without_cookie() -> None:
    found = read(image(version=1, cookie=0, running=0, length=len(XML)))
    assert (found.xml, found.cookie, found.was_running) == (b"<domain/>", b"", False)
    assert found.start == HEADER_SIZE + len(XML)


def test_unfinished_save() -> None:
    assert is_save_image(PARTIAL_MAGIC)
    assert read(image(magic=PARTIAL_MAGIC)).is_partial


def test_every_truncation() -> None:
    data = image()
    for stop in range(len(data)):
        with pytest.raises(CaptureError, match=r"cut short|inside the XML|not a libvirt"):
            read(data[:stop])


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"x" * 100, CaptureError, "vm.save, offset 0: this is not a libvirt save image"),
        (image(version=3), UnsupportedError, "version: vm.save: version 3 of libvirt's"),
        (image(form=7), UnsupportedError, "format: vm.save: format 7 of libvirt's"),
        (image(length=0xFFFFFFFF), CaptureError, "ends before byte 4294967387, inside the XML"),
        (image(cookie=91), CaptureError, "the cookie at 91 is outside"),
        (image(cookie=4096), CaptureError, "the cookie at 4096 is outside"),
    ],
)
def test_what_cannot_be_read(data: bytes, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        read(data)
