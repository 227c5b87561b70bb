# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics as text with bars, and as JSON.

The JSON's keys are those that `statistics_json` and the functions behind it spell out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.units import (
    count_text,
    device_text,
    rate_text,
    seconds_text,
    size_text,
    stamp_text,
)
from mfdtool.stream.statistics import (
    ORDER_LIMIT,
    Bucket,
    ChannelGroup,
    DeviceGroup,
    Group,
    GroupStatistics,
    Measured,
    Order,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT: Final = 1

_BAR: Final = 40


def statistics_json(measured: Measured) -> dict[str, Any]:
    """Give all groups as one JSON object."""
    return {
        "format": FORMAT,
        "by": measured.by.value,
        "groups": [_group_json(group) for group in measured.groups],
        "omitted": measured.omitted,
    }


def _group_json(statistics: GroupStatistics) -> dict[str, Any]:
    sizes = statistics.sizes
    return {
        **_name_json(statistics.group),
        "packets": statistics.packets,
        "bytes": statistics.bytes,
        "missing": statistics.missing,
        "first": stamp_text(statistics.first_ns),
        "last": stamp_text(statistics.last_ns),
        "duration": statistics.duration_ns / 1e9 if statistics.first_ns >= 0 else None,
        "bytes_per_second": statistics.throughput,
        "size": {
            "min": sizes.minimum,
            "median": sizes.median,
            "max": sizes.maximum,
            "exact": sizes.exact,
            "histogram": [
                {"low": bucket.low, "high": bucket.high, "packets": bucket.packets}
                for bucket in sizes.histogram
            ],
        },
        "order": _order_json(statistics.order),
    }


def _name_json(group: Group) -> dict[str, Any]:
    if isinstance(group, DeviceGroup):
        return {
            "migration": group.device.migration,
            "idstr": group.device.idstr or None,
            "instance_id": group.device.instance_id,
            "part": group.part.value,
            "via": group.via.value,
        }
    if isinstance(group, ChannelGroup):
        return {"migration": group.migration, "channel": group.channel}
    return {"migration": group.migration, "phase": group.phase.value}


def _order_json(order: Order | None) -> dict[str, Any] | None:
    if order is None:
        return None
    return {
        "packets": order.packets,
        "truncated": order.truncated,
        "inversions": order.inversions,
        "displaced": order.displaced,
        "displacement_max": order.displacement_max,
        "displacement_mean": order.displacement_mean,
        "waiting_packets_max": order.waiting_packets_max,
        "waiting_bytes_max": order.waiting_bytes_max,
    }


def statistics_text(measured: Measured) -> Iterator[str]:
    """Give the lines of a report, a paragraph for each group."""
    groups = measured.groups
    if not groups:
        yield "nothing to measure"
    if measured.omitted:
        yield f"left out: {count_text(measured.omitted, 'frame')} of further groups"
    several = len({_name_json(one.group)["migration"] for one in groups}) > 1
    for number, statistics in enumerate(groups):
        if number:
            yield ""
        yield _name(statistics.group, with_migration=several)
        yield from _group_lines(statistics)


def _name(group: Group, *, with_migration: bool) -> str:
    if isinstance(group, DeviceGroup):
        instance = f", instance {group.device.instance_id}" if group.device.instance_id else ""
        device = f"{device_text(group.device.idstr)}{instance}"
        name = f"{device}, {group.part.value} via {group.via.value}"
    else:
        name = group.channel if isinstance(group, ChannelGroup) else group.phase.value
    return f"migration {_name_json(group)['migration']}, {name}" if with_migration else name


def _group_lines(statistics: GroupStatistics) -> Iterator[str]:
    sizes = statistics.sizes
    missing = f", {statistics.missing:,} more not captured" if statistics.missing else ""
    noun = "packet" if isinstance(statistics.group, DeviceGroup) else "frame"
    yield f"  {count_text(statistics.packets, noun)}, {statistics.bytes:,} bytes{missing}"
    if statistics.first_ns >= 0:
        rate = rate_text(statistics.throughput)
        yield f"  {seconds_text(statistics.duration_ns)} from first to last byte, {rate}"
    about = "" if sizes.exact else "about "
    yield f"  size min {sizes.minimum:,}, median {about}{sizes.median:,}, max {sizes.maximum:,}"
    yield from _bars(sizes.histogram)
    if statistics.order is not None:
        yield from _order_lines(statistics.order)


def _bars(histogram: tuple[Bucket, ...]) -> Iterator[str]:
    most = max(bucket.packets for bucket in histogram)
    for bucket in histogram:
        bar = "#" * max(round(_BAR * bucket.packets / most), 1)
        yield f"  {_bucket(bucket):>20}  {bucket.packets:>9,}  {bar}"


def _bucket(bucket: Bucket) -> str:
    if bucket.low == bucket.high:
        return size_text(bucket.low)
    return f"{size_text(bucket.low)} - {size_text(bucket.high + 1)}"


def _order_lines(order: Order) -> Iterator[str]:
    if order.truncated:
        yield f"  order of the first {ORDER_LIMIT:,} packets:"
    if not order.inversions:
        in_order = "in order of idx"
    else:
        in_order = (
            f"{count_text(order.inversions, 'inversion')}, {order.displaced:,} of"
            f" {order.packets:,} packets displaced, by {order.displacement_mean:.2f} on average,"
            f" {order.displacement_max:,} at most"
        )
    yield f"  order: {in_order}"
    if order.waiting_packets_max:
        yield (
            f"  waiting for an earlier idx: at most"
            f" {count_text(order.waiting_packets_max, 'packet')},"
            f" {order.waiting_bytes_max:,} bytes"
        )
