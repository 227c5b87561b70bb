# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of devices' states in real captures, and in ones that were made of drivers' states."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mfdtool.errors import CaptureError
from mfdtool.fixtures.pci import pci_config
from mfdtool.stream.device_data import DeviceExtractor
from mfdtool.wire.vendors import pieces
from mfdtool.wire.vendors.registry import BUILT_IN
from mfdtool.workflows.extract import FileSpool
from mfdtool.workflows.reading import Input, Reading
from mfdtool.workflows.records import RecordsExtraction, RecordsResult
from tests.support.streams import device_packet, handshake
from tests.support.vendor_states import HISI_ACC, MLX5, VIRTIO, framed

CAPTURES = Path(__file__).parents[2] / "captures"
VECTORS = Path(__file__).parents[1] / "data" / "vectors"


def extracted(
    source: Input, *, vendor: str | None = None, as_json: bool = True, device: str = "00:05.0"
) -> tuple[RecordsResult, list[dict[str, Any]]]:
    known = {**BUILT_IN.by_name, "none": pieces.VENDOR}
    wanted = None if vendor is None else known[vendor]
    with Reading(source, keep_extents=True) as reading, FileSpool() as spool:
        extractor = DeviceExtractor(0, device, spool)
        with RecordsExtraction(extractor, BUILT_IN, vendor=wanted, as_json=as_json) as records:
            result = records.run(reading)
            lines = b"".join(records.text()).decode().splitlines()
    return result, [json.loads(line) for line in lines] if as_json else []


def real(name: str, **options: Any) -> tuple[RecordsResult, list[dict[str, Any]]]:
    directory = CAPTURES if name.startswith("mtty") else VECTORS
    return extracted(Input(capture=str(directory / f"{name}.pcap.gz")), **options)


def made(
    directory: Path,
    state: bytes,
    *,
    pci: tuple[int, int] = (0x15B3, 0x101E),
    seed: int = 1,
    without: int | None = None,
    **options: Any,
) -> tuple[RecordsResult, list[dict[str, Any]]]:
    """Send a state over three channels, cut anywhere, in any order; ``without`` one packet."""
    random = Random(seed)
    cuts = sorted(random.sample(range(1, len(state)), 7))
    parts = [state[low:high] for low, high in zip([0, *cuts], [*cuts, len(state)], strict=True)]
    config = pci_config(vendor=pci[0], device=pci[1])
    packets = [device_packet(idx, part) for idx, part in enumerate(parts)]
    marked = b"\xff\xff\xff\xff\xef\x10\x00\x02" + config + b"\xff\xff\xff\xff\xef\x10\x00\x01"
    packets.append(device_packet(len(parts), marked, flags=1))
    if without is not None:
        del packets[without]
    random.shuffle(packets)
    paths = []
    for channel in range(3):
        path = directory / f"multifd-{channel}"
        path.write_bytes(handshake(channel) + b"".join(packets[channel::3]))
        paths.append(path)
    return extracted(Input(multifd=tuple(paths)), **options)


def places(found: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [(each["offset"], each["length"], each["name"]) for each in found]


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("mtty-4ch-clean", 2),
        ("mtty-4ch-one-packet", 2),
        ("mtty-8ch-ipv6", 2),
        ("mtty-main-stream-only", 2),
        ("mtty-2dev-2ch-holes", 1),
    ],
)
def test_real_captures(name: str, ports: int) -> None:
    result, found = real(name)
    assert result.complete
    assert result.vendor == "mtty"
    assert result.why == "its data begins with the magic 0x7e9d09898c3e2c4e"
    assert places(found) == [
        (0, 24, "header"),
        *((24 + 36 * port, 36, f"port {port}") for port in range(ports)),
    ]
    assert found[0]["fields"]["magic"] == "0x7e9d09898c3e2c4e"
    assert found[0]["fields"]["nr_ports"] == ports
    assert all(each["vendor"] == "mtty" and not each["missing"] for each in found)
    assert all(each["fields"]["max_fifo_size"] == 16 for each in found[1:])


def test_where_records_came_from() -> None:
    _, found = real("mtty-4ch-clean")
    assert [(each["first"], each["last"]) for each in found] == [
        ("main #15", "main #22"),
        ("idx 0 (multifd-1 #19)", "idx 2 (multifd-0 #22)"),
        ("idx 2 (multifd-0 #22)", "idx 4 (multifd-2 #23)"),
    ]


def test_pieces_on_demand() -> None:
    result, found = real("mtty-4ch-clean", vendor="none")
    assert (result.vendor, result.why) == ("none", "")
    assert [(each["length"], each["first"].partition(" (")[0]) for each in found] == [
        (16, "main #15"),
        (8, "main #22"),
        (16, "idx 0"),
        (16, "idx 1"),
        (16, "idx 2"),
        (16, "idx 3"),
        (8, "idx 4"),
    ]


def test_missing_packet() -> None:
    result, found = real("v05-missing-3")
    assert not result.complete
    assert result.holes == ("idx 3",)
    assert "8 bytes behind a hole of unknown length are not decoded" in result.problems
    assert found[-1]["name"] == "undecoded"
    assert found[-1]["problem"] == "a hole of unknown length follows"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("state", "pci", "vendor"),
    [
        (MLX5, (0x15B3, 0x101E), "mlx5"),
        (VIRTIO, (0x1AF4, 0x1041), "virtio-vfio-pci"),
        (HISI_ACC, (0x19E5, 0xA256), "hisi_acc"),
    ],
)
def test_any_cuts_and_order(
    tmp_path: Path, state: bytes, pci: tuple[int, int], vendor: str, seed: int
) -> None:
    result, found = made(tmp_path, state, pci=pci, seed=seed)
    assert (result.vendor, result.holes) == (vendor, ())
    assert {each["vendor"] for each in found} == {vendor}
    assert sum(each["length"] for each in found) == len(state)
    assert not any(each["missing"] or each["problem"] for each in found)


def test_config_decides_between_drivers(tmp_path: Path) -> None:
    state = framed((0, 0, bytes(99)))
    assert made(tmp_path, state)[0].vendor == "mlx5"
    assert made(tmp_path, state, pci=(0x1AF4, 0x1041))[0].vendor == "virtio-vfio-pci"
    result, found = made(tmp_path, state, pci=(0x8086, 1))
    assert result.vendor == "none"
    assert result.why.startswith("could be mlx5 or virtio-vfio-pci: ")
    assert {each["name"] for each in found} == {"data"}
    assert len(found) == 8
    result, found = made(tmp_path, state, pci=(0x8086, 1), vendor="mlx5")
    assert places(found) == [(0, 115, "FW_DATA")]


def test_hole_in_a_payload(tmp_path: Path) -> None:
    result, found = made(tmp_path, MLX5, without=6)
    assert result.holes == ("idx 6",)
    assert found[-1]["name"] == "FW_DATA"
    assert found[-1]["missing"] > 0


def test_no_such_device() -> None:
    with pytest.raises(CaptureError, match=r"no state of a device 00:09\.0"):
        real("mtty-4ch-clean", device="00:09.0")


def test_very_many_records(tmp_path: Path) -> None:
    state = framed(*((0, 0, b""),) * 5000)
    _, found = made(tmp_path, framed((0, 0, b"x")) + state)
    assert len(found) == 5001
    assert found[-1]["offset"] == 17 + 16 * 4999


def test_text() -> None:
    with (
        Reading(
            Input(capture=str(CAPTURES / "mtty-2dev-2ch-holes.pcap.gz")), keep_extents=True
        ) as reading,
        FileSpool() as spool,
        RecordsExtraction(DeviceExtractor(0, "00:05.0", spool), BUILT_IN) as records,
    ):
        records.run(reading)
        lines = b"".join(records.text()).decode().splitlines()
    assert lines[0].split() == ["offset", "length", "record"]
    assert lines[1].endswith(
        "magic=0x7e9d09898c3e2c4e major_ver=1 minor_ver=0 nr_ports=1 flags=0  in main #19"
    )
    assert "uart_reg=0 " in lines[2]
    assert len(lines) == 3
