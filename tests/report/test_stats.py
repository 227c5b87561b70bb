# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics as text and JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mfdtool.report.stats import statistics_json, statistics_text
from mfdtool.stream import statistics
from mfdtool.stream.frames import Kind
from mfdtool.stream.span import Span
from mfdtool.stream.statistics import By, Measured, StatisticsCollector
from tests.support.made_frames import DEVICE, Maker


def measured(by: By = By.DEVICE, migrations: int = 1) -> Measured:
    collector = StatisticsCollector(by)
    for migration in range(migrations):
        make = Maker(migration=migration)
        for frame in (
            make.section(Kind.MAIN_SECTION_PART),
            make.packet(1, bytes(1000), channel="multifd-1"),
            make.packet(0, bytes(100), hole=Span(0, 10)),
            make.packet(2, bytes(341), config=True),
            make.packet(0, instance_id=3),
        ):
            collector.add(frame)
    return collector.measured()


def test_text() -> None:
    assert list(statistics_text(measured())) == [
        f"{DEVICE}, stop-copy via multifd",
        "  2 packets, 1,090 bytes, 10 more not captured",
        "  0.001000 s from first to last byte, 1.04 MiB/s",
        "  size min 100, median 100, max 1,000",
        "          64 B - 128 B          1  ########################################",
        "      512 B - 1.00 KiB          1  ########################################",
        "  order: 1 inversion, 2 of 3 packets displaced, by 0.67 on average, 1 at most",
        "  waiting for an earlier idx: at most 1 packet, 1,000 bytes",
        "",
        f"{DEVICE}, config via multifd",
        "  1 packet, 341 bytes",
        "  0.000000 s from first to last byte, -",
        "  size min 341, median 341, max 341",
        "         256 B - 512 B          1  ########################################",
        "",
        f"{DEVICE}, instance 3, stop-copy via multifd",
        "  1 packet, 0 bytes",
        "  0.000000 s from first to last byte, -",
        "  size min 0, median 0, max 0",
        "                   0 B          1  ########################################",
        "  order: in order of idx",
    ]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (By.CHANNEL, ["main", "multifd-1", "multifd-0"]),
        (By.PHASE, ["precopy"]),
        (By.DEVICE, [DEVICE]),
    ],
)
def test_names(by: By, names: list[str]) -> None:
    text = list(statistics_text(measured(by, migrations=2)))
    for name in names:
        assert any(line.startswith(f"migration 1, {name}") for line in text)


def test_json() -> None:
    found = json.loads(json.dumps(statistics_json(measured())))
    assert (found["format"], found["by"], found["omitted"]) == (1, "device", 0)
    first = found["groups"][0]
    assert first["order"]["inversions"] == 1
    assert first["size"]["histogram"][0] == {"low": 64, "high": 127, "packets": 1}
    assert (first["idstr"], first["part"], first["via"]) == (DEVICE, "stop-copy", "multifd")
    assert first["bytes_per_second"] == pytest.approx(1_090_000)
    assert found["groups"][1]["order"] is None
    channels = statistics_json(measured(By.CHANNEL))["groups"]
    assert [group["channel"] for group in channels] == ["main", "multifd-1", "multifd-0"]
    assert statistics_json(measured(By.PHASE))["groups"][0]["phase"] == "precopy"


def test_nothing_and_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Measured(By.DEVICE, ())
    assert list(statistics_text(nothing)) == ["nothing to measure"]
    monkeypatch.setattr(statistics, "ORDER_LIMIT", 2)
    monkeypatch.setattr(statistics, "GROUPS_LIMIT", 2)
    lines = list(statistics_text(measured()))
    assert lines[0] == "left out: 1 frame of further groups"
    assert any(line.startswith("  order of the first") for line in lines)


def test_unknown_times_and_coarse_sizes() -> None:
    (first, *_) = measured().groups
    coarse = replace(first, first_ns=-1, last_ns=-1, sizes=replace(first.sizes, exact=False))
    lines = list(statistics_text(Measured(By.DEVICE, (coarse,))))
    assert lines[2] == "  size min 100, median about 100, max 1,000"
    group = statistics_json(Measured(By.DEVICE, (coarse,)))["groups"][0]
    assert (group["first"], group["duration"], group["bytes_per_second"]) == (None, None, None)
