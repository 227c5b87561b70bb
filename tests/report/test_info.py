# SPDX-License-Identifier: GPL-2.0-or-later
"""The overview, of real captures and of what they do not have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mfdtool.packets.info import CaptureInfo, Comment, Interface, Statistics
from mfdtool.packets.values import Endpoint, FlowKey
from mfdtool.report.info import overview_text
from mfdtool.report.info_json import overview_json
from mfdtool.report.overview import Overview
from mfdtool.stream.channel import ChannelKind, Stream
from mfdtool.stream.connections import Opening
from mfdtool.stream.indexes import IdxRange
from mfdtool.stream.reader import Reader
from mfdtool.workflows.info import summarise
from mfdtool.workflows.reading import Input, Reading

CAPTURES = Path(__file__).parents[2] / "captures"
NAMES = sorted(path.name for path in CAPTURES.glob("*.pcap.gz"))


def overview(name: str) -> Overview:
    with Reading(Input(capture=str(CAPTURES / name))) as reading:
        return summarise(reading)


@pytest.fixture(scope="module")
def clean() -> Overview:
    return overview("mtty-4ch-clean.pcap.gz")


def test_every_capture_fits_on_a_screen() -> None:
    for name in NAMES:
        lines = list(overview_text(overview(name)))
        assert len(lines) <= 40
        missing = "2 incomplete frames" if "lacks-device" in name else "nothing"
        assert lines[-1] == f"Missing     {missing}"


def test_json_of_a_capture(clean: Overview) -> None:
    found = json.loads(json.dumps(overview_json(clean)))
    assert found["format"] == 1
    assert found["complete"] is True
    assert (found["file"]["type"], found["file"]["records"]) == ("pcap", 231)
    (migration,) = found["migrations"]
    assert migration["server"] == "127.0.0.1:4444"
    assert migration["machine"] == "pc-i440fx-10.0"
    assert migration["page_size"] == 4096
    (device,) = migration["devices"]
    assert device["precopy"] == {"pieces": 2, "bytes": 24, "missing": 0}
    assert device["multifd"] == {"pieces": 5, "bytes": 72, "missing": 0}
    assert device["config"]["idx"] == 5
    assert device["missing_idx"] == []
    assert {one["channel"] for one in migration["channels"]} == {
        "main", "multifd-0", "multifd-1", "multifd-2", "multifd-3",
    }  # fmt: skip
    assert [times["phase"] for times in migration["phases"]] == [
        "setup", "precopy", "switchover", "completion",
    ]  # fmt: skip
    assert migration["ram"]["normal_pages"] * 4096 == migration["ram"]["bytes"]
    assert migration["ram"]["syncs"] == 16
    kinds = migration["kinds"]
    streams = sum(one["bytes"] for one in migration["channels"])
    assert sum(count["bytes"] for count in kinds.values()) == streams
    assert kinds["multifd.device_state"]["frames"] == 6


def stream(number: int, opening: Opening, kind: ChannelKind | None, key: FlowKey | None) -> Stream:
    return Stream(number, key, opening, 1, 1, Reader(), kind=kind)


def test_what_may_be_missing(clean: Overview) -> None:
    (migration,) = clean.migrations
    (device,) = migration.devices
    assert device.config is not None
    channels = tuple(
        replace(one, gap_bytes=7, undecoded_bytes=9, incomplete=1, from_start=False, end=None)
        for one in migration.channels
    )
    devices = (
        replace(
            device,
            main=replace(device.precopy, missing=3),
            missing_idx=tuple(IdxRange(2 * n, 2 * n) for n in range(12)),
            missing_idx_count=99,
            duplicates=2,
            behind_config=1,
            headless=4,
            configs=2,
            config=replace(device.config, missing=5),
            channels=tuple(f"multifd-{n}" for n in range(12)),
        ),
        replace(device, config=None, multifd=device.main, channels=(), first_ns=-1),
        replace(device, expected=None),
    )
    info = CaptureInfo(
        application="dumpcap\n",
        interfaces=[Interface(0, 1, snaplen=96)],
        statistics={0: Statistics(0, dropped_by_os=12)},
        comments=[Comment("first\x1b[31m", 0)] + [Comment("on a record", 9, record=3)] * 9,
    )
    key = FlowKey(Endpoint(bytes([10, 0, 0, 1]), 999), Endpoint(bytes([10, 0, 0, 2]), 22))
    others = [
        stream(0, Opening.SYN, ChannelKind.TLS, key),
        stream(1, Opening.SYN_ACK, None, key.reversed()),
        stream(2, Opening.SYN, None, None),
    ]
    others += [
        stream(n, Opening.SYN, None, FlowKey(key.source, Endpoint(b"\1\1\1\1", n)))
        for n in range(3, 12)
    ]
    broken = replace(
        migration, channels=channels, devices=devices, ended=False, switchover=False, uuid=None,
        machine="", page_size=0, devices_omitted=3, server=None,
    )  # fmt: skip
    whole = replace(clean, info=info, migrations=(broken,), others=tuple(others), size=None)
    text = "\n".join(overview_text(whole))
    for part in (
        "12 frames dropped while capturing",
        "made by dumpcap\\x0a",
        "comment: first\\x1b[31m",
        "comment on record 3: on a record",
        "2 more comments",
        "from files, machine type not seen, page size -, uuid -",
        "no SWITCHOVER_START",
        "start not captured, 7 bytes missing, 9 undecoded",
        "idx 0, 2, 4, 6, 8, 10, 12, 14 and 91 more missing, 2 duplicates, 1 behind the config,"
        " 4 without VFIO header",
        "and 4 more channels",
        "4,132 bytes on multifd-3, idx 5, 5 missing, one of 2",
        "config     not seen",
        "stop-copy  none",
        "no end known",
        "3 frames of further devices",
        "the main stream has no end: capture stopped at 0.767322",
        "35 bytes that the capture lacks",
        "45 bytes that could not be decoded",
        "5 incomplete frames",
        f"parts of the state of {', '.join(['0000:00:05.0/vfio'] * 3)}",
        "1 stream to or from 10.0.0.2:22 (tls), 0 B",
        "unknown (unknown)",
        "more server",
    ):
        assert part in text
    found = json.loads(json.dumps(overview_json(whole)))
    assert found["other_connections"][0] == {
        "client": "10.0.0.1:999", "server": "10.0.0.2:22", "bytes": 0, "kind": "tls",
    }  # fmt: skip
    assert found["other_connections"][1]["server"] == "10.0.0.2:22"
    assert found["file"]["interfaces"] == [{"name": None, "linktype": 1, "snaplen": 96}]
    assert found["migrations"][0]["devices"][0]["missing_idx"][1] == [2, 2]
    assert found["migrations"][0]["devices"][1]["config"] is None


def test_migration_without_main_stream(clean: Overview) -> None:
    (migration,) = clean.migrations
    only = tuple(one for one in migration.channels if one.kind is ChannelKind.MULTIFD)
    part = replace(migration, channels=only, devices=(), kinds=(), ended=False)
    text = "\n".join(overview_text(replace(clean, migrations=(part,))))
    assert "Missing     no main stream" in text
    assert "Devices     none" in text
    tls = tuple(replace(one, kind=ChannelKind.TLS) for one in only)
    text = "\n".join(overview_text(replace(clean, migrations=(replace(part, channels=tls),))))
    assert "encrypted" in text
    assert "no main stream" not in text


def test_many_channels_and_devices(clean: Overview) -> None:
    (migration,) = clean.migrations
    lossy = replace(migration.channels[-1], bytes=1000, frames=2, gap_bytes=3, undecoded_bytes=4)
    (device,) = migration.devices
    many = replace(
        migration,
        channels=migration.channels[:1] * 24 + (lossy,) * 231,
        devices=(replace(device, key=device.key._replace(idstr="")),) * 20,
    )
    lines = list(overview_text(replace(clean, migrations=(many,))))
    assert "231 more channels, 231,000 bytes, 462 frames, 693 bytes missing, 924 undecoded" in [
        line.strip() for line in lines
    ]
    assert f"{'':12}4 more devices" in lines
    nameless = "device without a name (its START section was not captured), instance 0"
    assert sum(line.endswith(nameless) for line in lines) == 16
    assert len(lines) < 136


def test_more_migrations_than_ten(clean: Overview) -> None:
    (migration,) = clean.migrations
    lines = list(overview_text(replace(clean, migrations=(replace(migration, index=1000),))))
    assert any(line.startswith("Migration 1000 to ") for line in lines)


def test_migration_without_multifd(clean: Overview) -> None:
    (migration,) = clean.migrations
    ram = replace(migration.ram, packets=0, rounds=0, syncs=0)
    plain = replace(migration, ram=ram, devices=(), ended=False)
    lines = list(overview_text(replace(clean, migrations=(plain,))))
    assert "RAM         117 normal pages, 8,208 zero pages, 479,232 bytes" in lines
    assert not any("device data" in line for line in lines)
    assert any(line.endswith("SWITCHOVER_START, no EOF") for line in lines)


def test_raw_streams(tmp_path: Path) -> None:
    import gzip

    stored = CAPTURES.parent / "tests" / "golden" / "main_stream" / "mtty-2dev-2ch-holes.gz"
    path = tmp_path / "main"
    path.write_bytes(gzip.decompress(stored.read_bytes()))
    with Reading(Input(main=path)) as reading:
        found = summarise(reading)
    lines = list(overview_text(found))
    assert lines[0] == "File        raw streams"
    at = lines.index("Phases      no times in this input")
    assert [line.split()[0] for line in lines[at + 1 : at + 5]] == [
        "setup",
        "precopy",
        "switchover",
        "completion",
    ]
    assert lines[at + 3].endswith(" bytes  SWITCHOVER_START to EOF")
    with Reading(Input(main=path, multifd=(path,))) as reading:
        several = list(overview_text(summarise(reading)))
    assert several[several.index(lines[at]) + 1].startswith("Channels ")
    devices = "0000:00:05.0/vfio, 0000:00:06.0/vfio"
    assert f"Missing     parts of the state of {devices}" in lines
    assert overview_json(found)["file"]["path"] is None
    assert overview_json(found)["migrations"][0]["first"] is None


def test_size_of_a_file_that_is_gone(tmp_path: Path) -> None:
    copy = tmp_path / "copy.pcap.gz"
    copy.write_bytes((CAPTURES / NAMES[0]).read_bytes())
    with Reading(Input(capture=str(copy))) as reading:
        copy.unlink()
        assert summarise(reading).size is None
