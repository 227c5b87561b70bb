# SPDX-License-Identifier: GPL-2.0-or-later
"""Real migrations through the proxy, seen from outside: the recording is what tcpdump saw."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from typing import Any, Final

import pytest

from mfdtool.cli import run
from mfdtool.packets.info import CaptureInfo
from mfdtool.packets.pcapng import read
from mfdtool.stream.frames import Frame, Kind
from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE
from tests.live.conftest import Played
from tests.live.lab.device_checks import HEADER
from tests.live.lab.scenarios.proxy import CAPTURE, PROXIED, RECORDING, Proxied
from tests.support.decoding import decode_scalar

pytestmark = pytest.mark.live

PORT_SIZE: Final = 36
WHOLE, REDACTED = PROXIED
EACH = [pytest.param(each, id=each.name, marks=pytest.mark.scenario(each.name)) for each in PROXIED]
whole = pytest.mark.scenario(WHOLE.name)
redacted = pytest.mark.scenario(REDACTED.name)

_OWN: Final = {"time_first", "time_last", "record"}
"""What two recordings of the same bytes need not share."""
PAYLOAD: Final[dict[str, set[str]]] = {
    "multifd.ram": set(),
    "multifd.device_state": {
        *("pci_vendor_id", "pci_device_id", "pci_class", "pci_command", "pci_status"),
        *("pci_config_size", "pci_bars", "pci_capabilities"),
    },
    "vfio.marker": set(),
    "main.opaque": {"fields", "field_count"},
}
"""Kinds of frame that redaction leaves bytes out of, and which fields are read from these."""
PIECE: Final = 32
_MAGIC: Final = bytes.fromhex("4e2c3e8c89099d7e")


def decoded(
    played: Played, name: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Decode a recording; give the exit status and each channel's frames, without times."""
    status = run(["decode", str(played.folder / name), "-T", "jsonl"])
    channels: dict[str, list[dict[str, Any]]] = {}
    for line in capsys.readouterr().out.splitlines():
        frame = {key: value for key, value in json.loads(line).items() if key not in _OWN}
        channels.setdefault(f"{frame['migration']} {frame['channel']}", []).append(frame)
    return status, channels


def hidden_bytes(frame: Frame) -> bytes:
    """Give what redaction leaves out of a frame."""
    if str(frame.kind.value) not in PAYLOAD or frame.payload is None:
        return b""
    is_device = frame.kind is Kind.MULTIFD_DEVICE_STATE
    return frame.data(frame.payload)[VFIO_PACKET_HEADER_SIZE if is_device else 0 :]


@whole
def test_every_frame_is_what_tcpdump_saw(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    status, channels = decoded(played, RECORDING, capsys)
    assert (status, channels) == decoded(played, CAPTURE, capsys)
    assert status == 0
    assert all(frame["complete"] for frames in channels.values() for frame in frames)
    names = {"main", *(f"multifd-{number}" for number in range(WHOLE.channels))}
    numbers = range(len(WHOLE.migrations))
    assert set(channels) == {f"{number} {name}" for number in numbers for name in names}
    for number, devices in enumerate(WHOLE.migrations):
        for slot, ports in enumerate(devices, 5):
            _check_reads(channels, number, f"0000:00:{slot:02x}.0/vfio", HEADER + PORT_SIZE * ports)


def _check_reads(
    channels: dict[str, list[dict[str, Any]]], migration: int, idstr: str, size: int
) -> None:
    """What was read in PRE_COPY is in the main stream; the rest is in packets of a read each."""
    own = [
        frame
        for name, frames in channels.items()
        for frame in frames
        if name.startswith(f"{migration} ") and frame.get("idstr") == idstr
    ]
    before = sum(each["data_length"] for each in own if each.get("marker") == "DEV_DATA_STATE")
    packets = [each for each in own if each["kind"] == "multifd.device_state"]
    data = [each["data_length"] for each in packets if not each["is_config"]]
    assert before >= WHOLE.read_size
    assert before + sum(data) == size
    assert len(data) == math.ceil((size - before) / WHOLE.read_size)


@whole
def test_devices_bytes_are_what_tcpdump_saw(
    played: Played, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for number, devices in enumerate(WHOLE.migrations):
        for slot, ports in enumerate(devices, 5):
            extracted = []
            for name in (RECORDING, CAPTURE):
                words = ["--migration", str(number), "--device", f"00:{slot:02x}.0"]
                assert run(["extract", str(played.folder / name), *words]) == 0
                extracted.append(capsysbinary.readouterr().out)
            assert extracted[0] == extracted[1]
            assert extracted[0].startswith(_MAGIC)
            assert len(extracted[0]) == HEADER + PORT_SIZE * ports


@pytest.mark.parametrize("proxied", EACH)
def test_verdict(proxied: Proxied, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    """The model says what each destination said, line by line; also where bytes are left out."""
    recording = str(played.folder / RECORDING)
    for number, devices in enumerate(proxied.migrations):
        words = [recording, "--migration", str(number)]
        status = 4 if proxied is REDACTED else 0
        assert run(["check", *words, "--json"]) == status
        verdict = json.loads(capsys.readouterr().out)
        assert verdict["outcome"] == "completed"
        assert [each["restored"] for each in verdict["devices"]] == [True] * len(devices)
        assert [each["bytes"] for each in verdict["devices"]] == [
            HEADER + PORT_SIZE * ports for ports in devices
        ]
        log = str(played.folder / f"dst-{number}.log")
        assert run(["check", *words, "--against", log]) == status
        assert capsys.readouterr().out == "no divergence\n"


@pytest.mark.parametrize("proxied", EACH)
def test_recorder_lost_nothing(proxied: Proxied, played: Played) -> None:
    """By its own account; connections are the main one and the channels' of each migration."""
    told = played.result.notes["proxy"]
    recording = told["summary"]["recording"]
    assert recording["complete"]
    assert recording["lost"] == {"frames": 0, "cut_frames": 0, "bytes": 0, "reason": None}
    count = len(proxied.migrations) * (proxied.channels + 1)
    assert recording["connections"] == count
    assert (recording["strays"], recording["refused"], recording["unreachable"]) == (0, 0, 0)
    assert f"mfdtool: {count} connections recorded in " in told["stderr"]
    (file,) = told["summary"]["files"]
    assert len(file["migrations"]) == len(proxied.migrations)
    assert [each["undecoded_bytes"] for each in file["migrations"]] == [0] * len(file["migrations"])


@whole
def test_nothing_is_missing(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(played.folder / RECORDING)]) == 0
    lines = capsys.readouterr().out.splitlines()
    missing = [line for line in lines if line.startswith("Missing")]
    assert missing == ["Missing     nothing"] * len(WHOLE.migrations)
    (client,) = {
        line.split("to ")[1].split(",")[0] for line in lines if line.startswith("Migration")
    }
    assert client == "127.0.0.1:4444"


@redacted
def test_redacted_headers_and_lengths_are_what_tcpdump_saw(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every frame is there; what differs is that bytes are missing, and what they would tell."""
    _, seen = decoded(played, CAPTURE, capsys)
    status, found = decoded(played, RECORDING, capsys)
    assert status == 4
    assert set(found) == set(seen)
    missing: dict[str, int] = {}
    for name in found:
        frames = [frame for frame in found[name] if frame["kind"] != "gap"]
        for frame, expected in zip(frames, seen[name], strict=True):
            kind = frame["kind"]
            differing = {key for key in {*frame, *expected} if frame.get(key) != expected.get(key)}
            assert differing <= {"complete", "missing", "reason", *PAYLOAD.get(kind, ())}
            if differing:
                assert kind in PAYLOAD
                missing[kind] = missing.get(kind, 0) + frame["missing"]
    everything = [frame for frames in seen.values() for frame in frames]
    for kind in ("multifd.device_state", "vfio.marker"):
        hidden = [
            each["data_length"]
            for each in everything
            if each["kind"] == kind and each.get("data_length")
        ]
        assert missing[kind] == sum(hidden)
    assert set(missing) == set(PAYLOAD)


@redacted
def test_redacted_file_has_no_byte_of_the_guest(played: Played) -> None:
    """Only what may stand elsewhere by chance is not looked for: pieces of few different bytes."""
    content = (played.folder / RECORDING).read_bytes()
    capture = (played.folder / CAPTURE).read_bytes()
    assert _MAGIC in capture
    assert _MAGIC not in content
    looked_for = 0
    for frame in decode_scalar(capture):
        hidden = hidden_bytes(frame)
        for start in range(0, len(hidden) - PIECE, PIECE):
            piece = hidden[start : start + PIECE]
            if len(set(piece)) >= PIECE // 2:
                looked_for += 1
                assert piece not in content, frame
    assert looked_for > 1000


@redacted
def test_redacted_packets_have_digests(played: Played) -> None:
    info = CaptureInfo()
    for _ in read(memoryview((played.folder / RECORDING).read_bytes()), info=info):
        pass
    comments = {comment.text for comment in info.comments}
    count = 0
    for frame in decode_scalar((played.folder / CAPTURE).read_bytes()):
        hidden = hidden_bytes(frame)
        if hidden and frame.kind in {Kind.MULTIFD_DEVICE_STATE, Kind.MULTIFD_RAM}:
            assert f"sha256 {sha256(hidden).hexdigest()} of {len(hidden)} bytes" in comments
            count += 1
    assert count > 10


@redacted
def test_redacted_recording_is_not_replayed_into_a_qemu(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started: the first hole is named."""
    words = ["--to", "qemu:unix:/none/x", "--launch", "/none/qemu"]
    assert run(["replay", str(played.folder / RECORDING), *words]) == 5
    assert "were not captured, so nothing behind them can be sent" in capsys.readouterr().err
