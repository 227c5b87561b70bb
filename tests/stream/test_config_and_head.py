# SPDX-License-Identifier: GPL-2.0-or-later
"""What frames keep of their payload: configs, and the first bytes of a device's state."""

from __future__ import annotations

import pytest

from mfdtool.fixtures.pci import pci_config
from mfdtool.stream.devices import DeviceKey, DeviceTracker
from mfdtool.stream.fields import shape_of, values
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.reader import Reader
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.constants import VFIOMarker
from mfdtool.wire.vfio import CONFIG_LIMIT, wrap_config
from tests.support.captures import decoded
from tests.support.framing import Hole, check, run, stretches
from tests.support.pci import config, space
from tests.support.streams import (
    DEVICE,
    EOF,
    device_packet,
    full,
    handshake,
    main_start,
    marker,
    start,
)

SHORT = config(space(size=256))
END_OF_STATE = marker(VFIOMarker.END_OF_STATE)


def multifd(reader: Reader) -> MultiFDFramer:
    return MultiFDFramer(reader, ChannelId(0, "multifd-0"))


def main(reader: Reader) -> MainFramer:
    return MainFramer(reader, ChannelId(0, "main"))


def config_packet(data: bytes) -> Frame:
    """Send a config packet; give its frame."""
    (packet,) = run(multifd, stretches(handshake() + device_packet(1, data, flags=1)))[1:]
    return packet


def test_config_packet_at_every_split() -> None:
    # `check` feeds at every split, and compares frames with all that they keep.
    (_, packet) = check(multifd, handshake() + device_packet(4, wrap_config(SHORT), flags=1))
    assert (packet.config, packet.head) == (SHORT, b"")


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 300])
def test_head_of_the_first_data(size: int) -> None:
    data = bytes(range(256)) * 2
    frames = check(multifd, handshake() + device_packet(0, data[:size]) + device_packet(1, data))
    assert [frame.head for frame in frames] == [b"", data[: min(size, 64)], b""]
    assert not any(frame.config for frame in frames)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        SHORT,
        wrap_config(SHORT)[:-1],
        wrap_config(SHORT)[1:],
        wrap_config(bytes(CONFIG_LIMIT)),
    ],
)
def test_what_is_no_config_is_not_kept(data: bytes) -> None:
    packet = config_packet(data)
    assert packet.config == b""
    assert packet.value is not None


def test_largest_config() -> None:
    largest = pci_config(vectors=2048)
    assert len(largest) == 37140
    (packet,) = run(
        multifd, stretches(handshake() + device_packet(1, wrap_config(largest), flags=1))
    )[1:]
    assert packet.config == largest
    named = values(packet)
    assert (named["msix_vectors"], named["msix_pending"]) == (2048, [])


def test_config_with_a_hole() -> None:
    data = handshake() + device_packet(1, wrap_config(SHORT), flags=1)
    hole = Hole(500, 510)
    (packet,) = [
        frame
        for frame in run(multifd, stretches(data, holes=[hole]))
        if frame.kind is Kind.MULTIFD_DEVICE_STATE
    ]
    assert packet.missing == 10
    assert packet.config == b""


def test_main_stream_at_every_split() -> None:
    data = marker(VFIOMarker.DEV_DATA_STATE, (100).to_bytes(8)) + bytes(range(100))
    stream = (
        main_start()
        + start(0x21, DEVICE, data + END_OF_STATE)
        + full(0x21, DEVICE, marker(VFIOMarker.DEV_CONFIG_STATE, SHORT) + END_OF_STATE)
        + EOF
    )
    frames = check(main, stream)
    kept = [(frame.config, frame.head) for frame in frames if frame.config or frame.head]
    assert kept == [(b"", bytes(range(64))), (SHORT, b"")]


# Fields


def config_frames(name: str) -> list[Frame]:
    return [frame for frame in decoded(name)[1] if frame.config]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mtty-2dev-2ch-holes", 2),
        ("mtty-4ch-clean", 1),
        ("mtty-4ch-one-packet", 1),
        ("mtty-8ch-ipv6", 1),
        ("mtty-dst-lacks-device", 1),
        ("mtty-main-stream-only", 1),
    ],
)
def test_all_real_configs(name: str, count: int) -> None:
    frames = config_frames(name)
    assert len(frames) == count
    for frame in frames:
        named = values(frame)
        assert shape_of(frame) == (frame.kind, bytes)
        assert (named["pci_vendor_id"], named["pci_device_id"]) == ("0x4348", "0x3253")
        assert (named["pci_class"], named["pci_config_size"]) == ("0x70002", 4096)
        assert named["pci_capabilities"] == []
        bars = named["pci_bars"]
        assert isinstance(bars, list)
        assert [(bar["kind"], bar["prefetchable"]) for bar in bars] == [("io", False)] * len(bars)
        assert {bar["address"] for bar in bars} <= {"0xc010", "0xc018", "0xc020"}
        assert bars
        assert not {"msix_vectors", "msix_pending", "pci_problems"} & set(named)


def test_config_of_another_bus() -> None:
    packet = config_packet(wrap_config(b""))
    assert not any(name.startswith("pci_") for name in values(packet))
    (odd,) = run(multifd, stretches(handshake() + device_packet(1, wrap_config(b"ccw"), flags=1)))[
        1:
    ]
    assert odd.config == b"ccw"
    assert not any(name.startswith("pci_") for name in values(odd))


def test_fields_of_msix_and_of_problems() -> None:
    data = wrap_config(SHORT + b"x")
    packet = config_packet(data)
    named = values(packet)
    assert (named["msix_vectors"], named["msix_pending"]) == (3, [0, 2])
    assert named["pci_problems"] == [
        "326 bytes, 325 would be a config space of 256 bytes with 3 MSI-X vectors"
    ]
    capabilities = named["pci_capabilities"]
    assert isinstance(capabilities, list)
    assert capabilities[1] == {"offset": "0x9c", "id": "0x11", "name": "MSIX", "extended": False}


# Evidence


def evidence(*packets: bytes) -> tuple[bytes, tuple[int, int] | None]:
    tracker = DeviceTracker(DeviceKey(0, DEVICE, 0))
    for frame in run(multifd, stretches(handshake() + b"".join(packets)))[1:]:
        tracker.add_packet(frame)
    found = tracker.summary().evidence
    return found.head, found.pci


def test_evidence() -> None:
    ids = device_packet(2, wrap_config(SHORT), flags=1)
    assert evidence(device_packet(1, b"later"), device_packet(0, b"first"), ids) == (
        b"first",
        (0x15B3, 0x101E),
    )
    assert evidence(device_packet(1, b"later")) == (b"", None)
    assert evidence(device_packet(0, bytes(200)), device_packet(0, b"again")) == (bytes(64), None)


def test_evidence_in_real_captures() -> None:
    tracker = DeviceTracker(DeviceKey(0, DEVICE, 0))
    for frame in decoded("mtty-main-stream-only")[1]:
        if frame.section is not None and isinstance(frame.value, MarkerRecord):
            tracker.add_marker(frame, frame.value, section=None)
    found = tracker.summary().evidence
    assert found.head.startswith(bytes.fromhex("4e2c3e8c89099d7e0100000000000000"))
    assert found.pci == (0x4348, 0x3253)
