# SPDX-License-Identifier: GPL-2.0-or-later
"""Telling drivers apart, and saying by what."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from mfdtool.wire.vendors import mlx5, mtty, virtio_vfio
from mfdtool.wire.vendors.cursor import READ_LIMIT, Cursor
from mfdtool.wire.vendors.registry import BUILT_IN, Registry
from mfdtool.wire.vendors.vendor import Confidence, Evidence, Guess, Vendor
from tests.support.vendor_states import HISI_ACC, MLX5, MTTY, VIRTIO, framed

CONNECTX = (0x15B3, 0x101E)
VIRTIO_NET = (0x1AF4, 0x1041)
FIRMWARE = framed((0, 0, bytes(99)))


@pytest.mark.parametrize(
    ("head", "pci", "name", "confidence"),
    [
        (MTTY, None, "mtty", Confidence.CERTAIN),
        (MTTY, CONNECTX, "mtty", Confidence.CERTAIN),
        (b"", (0x4348, 0x3253), "mtty", Confidence.LIKELY),
        (MLX5, None, "mlx5", Confidence.LIKELY),
        (MLX5, CONNECTX, "mlx5", Confidence.CERTAIN),
        (FIRMWARE, CONNECTX, "mlx5", Confidence.CERTAIN),
        (FIRMWARE, VIRTIO_NET, "virtio-vfio-pci", Confidence.CERTAIN),
        (VIRTIO, VIRTIO_NET, "virtio-vfio-pci", Confidence.CERTAIN),
        (b"", VIRTIO_NET, "virtio-vfio-pci", Confidence.LIKELY),
        (HISI_ACC, None, "hisi_acc", Confidence.CERTAIN),
        (bytes.fromhex("ccaaedfecdcdcdcd"), None, "hisi_acc", Confidence.CERTAIN),
        (b"", (0x19E5, 0xA251), "hisi_acc", Confidence.LIKELY),
    ],
)
def test_choice(
    head: bytes, pci: tuple[int, int] | None, name: str, confidence: Confidence
) -> None:
    choice = BUILT_IN.choose(Evidence(head[:64], pci))
    assert choice.vendor is not None
    assert choice.guess is not None
    assert (choice.vendor.name, choice.guess.confidence) == (name, confidence)
    assert choice.why == choice.guess.why


@pytest.mark.parametrize(
    ("head", "pci", "why"),
    [
        (b"", None, "no driver that is known: neither data nor config"),
        (
            b"\xff" * 64,
            (0x8086, 0x1572),
            "no driver that is known: its data begins with ff ff ff ff ff ff ff ff,"
            " PCI ids 8086:1572",
        ),
        (
            FIRMWARE,
            None,
            "could be mlx5 or virtio-vfio-pci: its data begins with a record header, of a shape"
            " that several drivers have",
        ),
        (
            b"\xff" * 64,
            CONNECTX,
            "could be mlx5: PCI ids 15b3:101e, but its data does not begin as the driver's",
        ),
        (framed((0, 2, b"x")), None, "no driver that is known: its data begins with 01"),
        (framed((0, 0, b"")), None, "no driver that is known: its data begins with 00"),
        (framed((1, 1, b"x")), None, "no driver that is known: its data begins with 01"),
        (MLX5[:15], None, "no driver that is known: its data begins with 08"),
    ],
)
def test_nothing_is_guessed(head: bytes, pci: tuple[int, int] | None, why: str) -> None:
    choice = BUILT_IN.choose(Evidence(head[:64], pci))
    assert (choice.vendor, choice.guess) == (None, None)
    assert choice.why.startswith(why)


def test_two_that_are_as_likely() -> None:
    twins = [
        Vendor(
            name=name,
            text="",
            source="",
            recognise=lambda evidence: Guess(Confidence.CERTAIN, "its smell"),
            decode=mlx5.VENDOR.decode,
        )
        for name in ("one", "other")
    ]
    choice = Registry(twins).choose(Evidence())
    assert (choice.vendor, choice.why) == (None, "could be one or other: its smell")


def test_a_driver_that_fails_is_left_out() -> None:
    def recognise(evidence: Evidence) -> Guess:
        raise KeyError(f"{len(evidence.head)}\nand more")

    bad = Vendor(name="bad", text="", source="", recognise=recognise, decode=mlx5.VENDOR.decode)
    why = "; driver bad is left out: KeyError: '16\\nand more'"
    choice = Registry((bad, mtty.VENDOR)).choose(Evidence(MTTY[:16], None))
    assert choice.vendor is mtty.VENDOR
    assert choice.guess is not None
    assert choice.why == choice.guess.why + why
    choice = Registry((bad,)).choose(Evidence(b"\xff" * 16, None))
    assert choice.vendor is None
    assert choice.why.endswith(why)


def test_names() -> None:
    assert list(BUILT_IN.by_name) == ["mtty", "mlx5", "virtio-vfio-pci", "hisi_acc"]
    assert BUILT_IN.by_name["virtio-vfio-pci"] is virtio_vfio.VENDOR
    assert list(Registry((mtty.VENDOR, mtty.VENDOR))) == [mtty.VENDOR]
    for vendor in BUILT_IN:
        assert vendor.text
        assert ":" in vendor.source


def test_entry_points_name_them_all() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["mfdtool.vendors"]
    loaded = {}
    for name, value in points.items():
        module, _, attribute = value.partition(":")
        loaded[name] = getattr(import_module(module), attribute)
    assert loaded == BUILT_IN.by_name


def test_decoders_read_headers_only() -> None:
    steps = Cursor().read(READ_LIMIT + 1)
    with pytest.raises(ValueError, match="4097 bytes are too many"):
        next(steps)
