# SPDX-License-Identifier: GPL-2.0-or-later
"""``extract --vmstate``, ``decode -2`` and the options for a vmdescription, on real streams."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mfdtool.cli import run
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.vmdesc import find_vmdescription
from mfdtool.workflows.reading import Input, Reading
from tests.support.captures import CAPTURES
from tests.support.captures import NAMES as CAPTURE_NAMES
from tests.support.main_streams import NAMES, path_of, state, stream

DEVICE = "0000:00:05.0/vfio (38)"
EARLY = "0000:00:02.0/virtio-mem-device-early"


def capture(name: str) -> str:
    return str(CAPTURES / f"{name}.pcap.gz")


def vmstate(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any], str]:
    status = run(["extract", *args, "--vmstate"])
    out, err = capfd.readouterr()
    return status, json.loads(out), err


def without_description(name: str, tmp_path: Path) -> tuple[Path, Path]:
    """Write a stream that ends at its EOF, and the text of its vmdescription."""
    data = stream(name)
    place = find_vmdescription(data)
    assert place is not None
    cut, text = tmp_path / "stream", tmp_path / "vmdesc.json"
    cut.write_bytes(data[: place[0] - 5])
    text.write_bytes(data[slice(*place)])
    return cut, text


@pytest.mark.parametrize("name", NAMES)
def test_what_qemus_script_prints(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["extract", "--main", str(path_of(name)), "--vmstate"]) == 0
    assert capfd.readouterr() == (state(name), "")


def claims(frame: Frame) -> list[tuple[int, int]]:
    """Give the ranges of a frame, or those of its fields, in the stream."""
    if not isinstance(frame.value, DeviceState):
        return [(frame.offset, frame.end)]
    body = frame.value.decode()
    assert body.undecoded is None
    return [(frame.offset + start, frame.offset + stop) for start, stop in body.claims()]


def assert_partition(frames: list[Frame], length: int) -> None:
    position = 0
    for frame in frames:
        for start, stop in claims(frame):
            assert start == position, frame
            position = stop
    assert position == length


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_is_claimed_once(name: str) -> None:
    with Reading(Input(main=path_of(name))) as reading:
        frames = list(reading.frames())
        assert reading.complete
    assert_partition(frames, len(stream(name)))
    bodies = [frame for frame in frames if frame.kind is Kind.MAIN_OPAQUE]
    assert all(isinstance(frame.value, DeviceState) for frame in bodies)


@pytest.mark.parametrize("name", CAPTURE_NAMES)
def test_every_byte_of_a_captured_main_stream_is_claimed_once(name: str) -> None:
    with Reading(Input(capture=capture(name))) as reading:
        frames = [frame for frame in reading.frames() if frame.channel.name == "main"]
        main = reading.decoder.migrations[0].channels
        length = next(each.stream.length for each in main if each.name == "main")
    assert_partition([frame for frame in frames if frame.kind is not Kind.GAP], length)


def test_devices_with_vfio_markers(capfd: pytest.CaptureFixture[str]) -> None:
    status, shown, err = vmstate(capfd, capture("mtty-main-stream-only"))
    assert (status, err) == (0, "")
    assert next(iter(shown)) == "ram (1)"
    assert list(shown)[-1] == DEVICE
    assert shown["ram (1)"]["section sizes"]["pc.ram"] == "0x0000000002000000"
    assert shown["timer (0)"]["cpu_clock_offset"].startswith("0x")
    device = shown[DEVICE]
    assert device["markers"][-3:] == [
        {"section": "end", "marker": "END_OF_STATE", "count": 1, "size": "0x0"},
        {"section": "full", "marker": "DEV_CONFIG_STATE", "count": 1, "size": "0x1014"},
        {"section": "full", "marker": "END_OF_STATE", "count": 1, "size": "0x0"},
    ]
    assert "multifd" not in device
    assert len(bytes.fromhex(device["config"])) == 0x1014


@pytest.mark.parametrize(
    ("name", "packets", "size"), [("mtty-4ch-clean", 6, "0x106c"), ("mtty-8ch-ipv6", 10, "0x106c")]
)
def test_devices_with_packets(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str, packets: int, size: str
) -> None:
    config = tmp_path / "config"
    assert run(["extract", capture(name), "--config", "00:05.0", "-o", str(config)]) == 0
    status, shown, _ = vmstate(capfd, capture(name))
    assert status == 0
    assert shown[DEVICE]["multifd"] == {"packets": packets, "size": size}
    assert bytes.fromhex(shown[DEVICE]["config"]) == config.read_bytes()


def test_from_standard_input(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected, _ = vmstate(capfd, capture("mtty-4ch-clean"))
    data = Path(capture("mtty-4ch-clean")).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert vmstate(capfd, "-") == (0, expected, "")


# Without a vmdescription, or with another one.


def test_no_description(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cut, text = without_description("pc-devices", tmp_path)
    status, shown, err = vmstate(capfd, "--main", str(cut))
    expected = json.loads(state("pc-devices"))
    assert status == 4
    assert err == (
        "mfdtool: sections that are not in the vmdescription, or there is none, their bytes written"
        " as they are: 38\n"
    )
    assert list(shown) == list(expected)
    assert set(shown["timer (0)"]) == {"(undecoded)"}
    assert len(bytes.fromhex(shown["timer (0)"]["(undecoded)"])) == 24
    with_text = vmstate(capfd, "--main", str(cut), "--with-vmdesc", str(text))
    assert with_text == (0, expected, "")


def test_description_of_another_machine(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, text = without_description("q35-devices", tmp_path)
    path = str(path_of("pc-devices"))
    status, shown, err = vmstate(capfd, "--main", path, "--with-vmdesc", str(text))
    assert status == 4
    expected = json.loads(state("pc-devices"))
    assert shown["timer (0)"] == expected["timer (0)"]
    assert list(shown["0000:00:00.0/I440FX (10)"]) == ["(undecoded)"]
    assert "sections that are not in the vmdescription" in err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "vmdesc: not a vmdescription: offset 0: not JSON text"),
        (b"{}", "vmdesc: not a vmdescription: offset 0, page_size: not an unsigned 63-bit integer"),
        (b"[" * 100_000, "vmdesc: not a vmdescription: offset 0: nested too deeply"),
    ],
)
def test_description_that_is_none(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "vmdesc"
    if content is not None:
        path.write_bytes(content)
    assert run(["decode", capture("mtty-4ch-clean"), "--vmdesc", str(path)]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert reason in err


def test_description_from_another_capture_lets_check_and_info_pass(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "vmdesc.json"
    assert run(["extract", capture("mtty-8ch-ipv6"), "--vmdesc", "-o", str(text)]) == 0
    for command in ("check", "info", "stats"):
        assert run([command, capture("mtty-4ch-clean")]) == 0
        expected = capfd.readouterr()
        assert run([command, capture("mtty-4ch-clean"), "--vmdesc", str(text)]) == 0
        assert capfd.readouterr() == expected


# Damage.


def test_truncated_stream(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = stream("pc-devices")
    _, text = without_description("pc-devices", tmp_path)
    expected = json.loads(state("pc-devices"))
    cut = tmp_path / "cut"
    key = next(key for key in expected if key.startswith("mc146818rtc"))
    body = data.index(b"\x0bmc146818rtc") + 12 + 8
    cut.write_bytes(data[: body + 130])
    status, shown, err = vmstate(capfd, "--main", str(cut), "--with-vmdesc", str(text))
    assert status == 4
    assert f"mfdtool: {key}, main #" in err
    assert list(shown) == list(expected)[: len(shown)]
    assert list(shown)[-1] == key
    last = shown.pop(key)
    assert all(expected[name] == value for name, value in shown.items())
    assert last["cmos_data"] == expected[key]["cmos_data"]
    assert last["next_alarm_time"] is None


def test_nothing_there(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(bytes.fromhex("5145564d 00000003"))
    assert run(["extract", "--main", str(empty), "--vmstate"]) == 3
    assert "no sections: the main stream was not captured" in capfd.readouterr().err


def test_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["extract", capture("mtty-4ch-clean"), "--vmstate", "--vmdesc"]) == 2
    assert "name one of" in capfd.readouterr().err


# decode.


def opaque_lines(capfd: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert run(["decode", *args, "-T", "jsonl", "-Y", "kind == main.opaque"]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_fields_in_json(capfd: pytest.CaptureFixture[str]) -> None:
    expected = json.loads(state("pc-devices"))
    lines = opaque_lines(capfd, "--main", str(path_of("pc-devices")))
    assert {f"{line['idstr']} ({line['section_id']})": line["fields"] for line in lines} == {
        key: value for key, value in expected.items() if not key.startswith("ram ")
    }
    assert all("undecoded" not in line for line in lines)


def piped(name: str) -> bytes:
    """Give a stream whose end its first pass does not know: something follows it."""
    return stream(name) + b"\0"


def test_second_pass(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(piped("pc-virtio-mem"))
    args = ["decode", "--main", str(path), "-T", "jsonl", "-Y", f"idstr == {EARLY}"]
    counts = []
    for more in ([], ["-2"]):
        run([*args, *more])
        lines = map(json.loads, capfd.readouterr().out.splitlines())
        counts.append([line.get("field_count") for line in lines if line["kind"] == "main.opaque"])
    assert counts == [[None], [3]]


def test_filter_by_field(capfd: pytest.CaptureFixture[str]) -> None:
    args = ["decode", "--main", str(path_of("pc-devices")), "-T", "jsonl", "-e", "idstr"]
    assert run([*args, "-Y", "fields contains cpu_ticks_offset"]) == 0
    assert json.loads(capfd.readouterr().out) == {"format": 1, "idstr": "timer"}


def test_csv_cell(capfd: pytest.CaptureFixture[str]) -> None:
    args = ["decode", "--main", str(path_of("pc-devices")), "-T", "csv", "-e", "idstr,fields"]
    assert run([*args, "-Y", "kind == main.opaque && idstr == cpu_common", "-c", "1"]) == 0
    assert capfd.readouterr().out == (
        "idstr,fields\r\n"
        'cpu_common,"{""halted"":""0x00000000"",""interrupt_request"":""0x00000000""}"\r\n'
    )


def test_tree_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    args = ["decode", "--main", str(path_of("q35-devices")), "-T", "tree"]
    assert run([*args, "-Y", "kind == main.opaque && idstr contains ICH9LPC"]) == 0
    out = capfd.readouterr().out
    assert "240 more elements" in out
    assert len(out.splitlines()) < 200


def test_compressed_stream_equals_the_plain_one(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(gzip.decompress(path_of("microvm-shared").read_bytes()))
    assert vmstate(capfd, "--main", str(plain))[1] == json.loads(state("microvm-shared"))
