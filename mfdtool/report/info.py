# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``info`` shows of a capture: the lines of one screen."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from mfdtool.report.info_phases import phase_lines, release_lines, switchover_lines
from mfdtool.report.units import (
    UNKNOWN,
    count_text,
    date_text,
    device_text,
    offset_text,
    seconds_text,
    size_text,
    table,
)
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.span import EndReason
from mfdtool.wire.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mfdtool.report.overview import OtherStream, Overview
    from mfdtool.stream.devices import Amount, DeviceSummary
    from mfdtool.stream.indexes import IdxRange
    from mfdtool.stream.summary import ChannelSummary, MigrationSummary
    from mfdtool.wire.vendors.registry import Registry

_INDENT: Final = 12
_LISTED: Final = 8
"""Comments, endpoints, ranges and names that the text lists; the JSON has more."""
_CHANNELS_SHOWN: Final = 24
_DEVICES_SHOWN: Final = 16
_WIDTH: Final = 88


def overview_text(overview: Overview) -> Iterator[str]:
    """Give the lines of one screen; of many channels or devices, the first ones."""
    yield from _labelled("File", _file_lines(overview))
    for migration in overview.migrations:
        yield ""
        yield from _migration_lines(migration, overview.vendors)
    others = list(_other_lines(overview.other_streams()))
    if others:
        yield ""
        yield from _labelled("Others", others)


def _file_lines(overview: Overview) -> Iterator[str]:
    info, counters = overview.info, overview.counters
    parts = [overview.path or "raw streams"]
    if overview.size is not None:
        parts.append(size_text(overview.size))
    if info.format is not None:
        parts.append(info.format.value)
    if info.snaplen:
        parts.append(f"snaplen {info.snaplen}")
    yield ", ".join(parts)
    if counters is not None:
        parts = [
            f"{count_text(counters.records, 'record')}, {counters.segments:,} with TCP",
            *(f"{count:,} {skip.value}" for skip, count in counters.skipped.most_common()),
        ]
        first, last = overview.first_ns, overview.last_ns
        if first >= 0:
            parts.append(f"{seconds_text(last - first)} from {date_text(first)}")
        yield ", ".join(parts)
    for remark in overview.remarks[:_LISTED]:
        yield escape(remark.encode())
    if len(overview.remarks) > _LISTED:
        yield f"{count_text(len(overview.remarks) - _LISTED, 'more remark')}"
    if info.dropped:
        yield f"{count_text(info.dropped, 'frame')} dropped while capturing"
    made_by = ", ".join(escape(text.encode()) for text in (info.application, info.os) if text)
    if made_by:
        yield f"made by {made_by}"
    for comment in info.comments[:_LISTED]:
        where = f"comment on record {comment.record}" if comment.record else "comment"
        yield f"{where}: {escape(comment.text.encode())[:_WIDTH]}"
    omitted = len(info.comments) - _LISTED + info.comments_omitted
    if omitted > 0:
        yield f"{count_text(omitted, 'more comment')}"


def _migration_lines(migration: MigrationSummary, vendors: Registry) -> Iterator[str]:
    yield from _labelled(f"Migration {migration.index}", _heading_lines(migration))
    yield from _labelled("Release", release_lines(migration.recognition))
    yield from _labelled("Phases", phase_lines(migration))
    yield from _labelled("Switchover", switchover_lines(migration))
    yield from _labelled("Channels", _channel_lines(migration))
    yield from _labelled("Devices", _device_lines(migration, vendors))
    yield from _labelled("RAM", _ram_lines(migration))
    yield from _labelled("Bytes", _byte_lines(migration))
    yield from _labelled("Missing", _missing_lines(migration))


def _heading_lines(migration: MigrationSummary) -> Iterator[str]:
    server = f"to {migration.server}" if migration.server is not None else "from files"
    yield ", ".join(
        (
            server,
            migration.machine or "machine type not seen",
            f"page size {migration.page_size or UNKNOWN}",
            f"uuid {migration.uuid_text or UNKNOWN}",
        )
    )


def _channel_lines(migration: MigrationSummary) -> Iterator[str]:
    start = migration.first_ns
    rows: list[tuple[str, ...]] = [
        ("name", "client", "bytes", "frames", "first", "last", "end", "")
    ]
    rows += [
        (
            channel.name,
            str(channel.client) if channel.client is not None else UNKNOWN,
            f"{channel.bytes:,}",
            f"{channel.frames:,}",
            offset_text(channel.first_ns, start),
            offset_text(channel.last_ns, start),
            channel.end.value if channel.end is not None else UNKNOWN,
            _channel_notes(channel),
        )
        for channel in migration.channels[:_CHANNELS_SHOWN]
    ]
    yield from table(rows, right=frozenset({2, 3, 4, 5}))
    others = migration.channels[_CHANNELS_SHOWN:]
    if others:
        gaps = sum(channel.gap_bytes for channel in others)
        undecoded = sum(channel.undecoded_bytes for channel in others)
        parts = [
            count_text(len(others), "more channel"),
            f"{sum(channel.bytes for channel in others):,} bytes",
            count_text(sum(channel.frames for channel in others), "frame"),
            *_loss_notes(gaps, undecoded),
        ]
        yield ", ".join(parts)


def _channel_notes(channel: ChannelSummary) -> str:
    notes = []
    if not channel.from_start:
        notes.append("start not captured")
    if channel.kind is ChannelKind.TLS:
        notes.append("encrypted")
    notes += _loss_notes(channel.gap_bytes, channel.undecoded_bytes)
    return ", ".join(notes)


def _loss_notes(gap_bytes: int, undecoded_bytes: int) -> Iterator[str]:
    if gap_bytes:
        yield f"{gap_bytes:,} bytes missing"
    if undecoded_bytes:
        yield f"{undecoded_bytes:,} undecoded"


def _device_lines(migration: MigrationSummary, vendors: Registry) -> Iterator[str]:
    for device in migration.devices[:_DEVICES_SHOWN]:
        yield f"{device_text(device.key.idstr)}, instance {device.key.instance_id}"
        yield f"  precopy    {_amount(device.precopy, 'chunk')} on main"
        yield f"  stop-copy  {_stop_copy(device)}"
        yield f"  config     {_config(device)}"
        yield f"  driver     {_driver(device, vendors)}"
    if len(migration.devices) > _DEVICES_SHOWN:
        yield count_text(len(migration.devices) - _DEVICES_SHOWN, "more device")
    if migration.devices_omitted:
        yield f"{count_text(migration.devices_omitted, 'frame')} of further devices"
    if not migration.devices:
        yield "none"


def _amount(amount: Amount, noun: str) -> str:
    missing = f", {amount.missing:,} missing" if amount.missing else ""
    return f"{amount.bytes:,} bytes in {count_text(amount.pieces, noun)}{missing}"


def _stop_copy(device: DeviceSummary) -> str:
    ways = []
    if device.main.pieces:
        ways.append(f"{_amount(device.main, 'chunk')} on main")
    if device.multifd.pieces or device.channels:
        names = sorted(device.channels, key=lambda name: (len(name), name))
        channels = f" on {_listed(names, 'channel')}"
        ways.append(f"{_amount(device.multifd, 'packet')}{channels}, {_idx(device)}")
    return "; ".join(ways) or "none"


def _idx(device: DeviceSummary) -> str:
    notes = []
    if device.missing_idx_count:
        holes = _ranges(device.missing_idx, device.missing_idx_count)
        notes.append(f"idx {holes} missing")
    elif device.expected is not None:
        notes.append("idx complete")
    if device.duplicates:
        notes.append(count_text(device.duplicates, "duplicate"))
    if device.behind_config:
        notes.append(f"{device.behind_config:,} behind the config")
    if device.headless:
        notes.append(f"{device.headless:,} without VFIO header")
    return ", ".join(notes) or "no end known"


def _config(device: DeviceSummary) -> str:
    config = device.config
    if config is None:
        return "not seen"
    idx = f", idx {config.idx}" if config.idx is not None else ""
    missing = f", {config.missing:,} missing" if config.missing else ""
    others = f", one of {device.configs}" if device.configs > 1 else ""
    return f"{config.bytes:,} bytes on {config.channel}{idx}{missing}{others}"


def _driver(device: DeviceSummary, vendors: Registry) -> str:
    """Say whose state it is, and by what one can tell."""
    choice = vendors.choose(device.evidence)
    if choice.vendor is None or choice.guess is None:
        return choice.why
    sure = choice.guess.confidence.name.lower()
    return f"{choice.vendor.name}, {choice.vendor.text} ({sure}: {choice.why})"


def _ranges(ranges: Iterable[IdxRange], total: int) -> str:
    listed = list(islice(ranges, _LISTED))
    shown = sum(hole.last - hole.first + 1 for hole in listed)
    more = f" and {total - shown:,} more" if total > shown else ""
    return ", ".join(map(str, listed)) + more


def _ram_lines(migration: MigrationSummary) -> Iterator[str]:
    ram = migration.ram
    parts = [
        count_text(ram.normal_pages, "normal page"),
        count_text(ram.zero_pages, "zero page"),
    ]
    if ram.xbzrle_pages:
        parts.append(count_text(ram.xbzrle_pages, "XBZRLE page"))
    parts.append(f"{ram.bytes:,} bytes")
    if ram.is_mapped:
        parts.append("at their places in the file (mapped-ram)")
    if ram.requests:
        parts.append(f"{count_text(ram.requests, 'request')} on the return path")
    if ram.packets or ram.syncs:
        parts += [
            count_text(ram.packets, "multifd packet"),
            count_text(ram.syncs, "SYNC packet"),
            count_text(ram.rounds, "round"),
        ]
    yield ", ".join(parts)
    blocks = [f"{name} {size_text(length)}" for name, length in ram.blocks]
    if blocks:
        yield _listed(blocks, "block")


def _byte_lines(migration: MigrationSummary) -> Iterator[str]:
    line = ""
    for count in migration.kinds:
        part = f"{count.kind.value} {count.bytes:,} ({count.frames:,})"
        if line and len(line) + len(part) > _WIDTH:
            yield f"{line},"
            line = part
        else:
            line = f"{line}, {part}" if line else part
    yield line or "none"
    undescribed = migration.undescribed
    if undescribed.sections:
        sections = count_text(undescribed.sections, "section")
        yield f"no vmdescription tells of {sections}, {undescribed.bytes:,} bytes: no fields"
    if not migration.devices:
        return
    precopy = sum(device.precopy.bytes for device in migration.devices)
    stop_copy = sum(device.main.bytes + device.multifd.bytes for device in migration.devices)
    yield f"device data: precopy {precopy:,}, stop-copy {stop_copy:,}"


def _missing_lines(migration: MigrationSummary) -> Iterator[str]:
    lines = list(_losses(migration))
    yield from lines or ["nothing"]


def _losses(migration: MigrationSummary) -> Iterator[str]:
    main = migration.main
    if not migration.ended and main is not None:
        why = "capture stopped" if main.end in (None, EndReason.CAPTURE) else "connection ended"
        if main.last_ns < 0:
            why = f"the file ends after {main.bytes:,} bytes of it"
        else:
            why = f"{why} at {offset_text(main.last_ns, migration.first_ns)}"
        yield f"the main stream has no end: {why}"
    if main is None and any(one.kind is not ChannelKind.TLS for one in migration.channels):
        yield "no main stream"
    if migration.gap_bytes:
        yield f"{migration.gap_bytes:,} bytes that the capture lacks"
    if migration.undecoded_bytes:
        yield f"{migration.undecoded_bytes:,} bytes that could not be decoded"
    incomplete = sum(channel.incomplete for channel in migration.channels)
    if incomplete:
        yield count_text(incomplete, "incomplete frame")
    partial = [device_text(one.key.idstr) for one in migration.devices if not one.is_whole]
    if partial:
        yield f"parts of the state of {_listed(partial, 'device')}"


def _other_lines(streams: Iterable[OtherStream]) -> Iterator[str]:
    totals: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for stream in streams:
        server = stream.server if stream.server is not None else "unknown"
        name = f"{server} ({stream.kind.value})"
        totals[name] += 1
        sizes[name] += stream.bytes
    for name, count in totals.most_common(_LISTED):
        yield f"{count_text(count, 'stream')} to or from {name}, {size_text(sizes[name])}"
    if len(totals) > _LISTED:
        yield f"{count_text(len(totals) - _LISTED, 'more server')}"


def _labelled(label: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        # A number may make a label longer than all others.
        lead = f"{label:<{_INDENT - 1}} "
        yield f"{lead}{line}".rstrip()
        label = ""


def _listed(names: Iterable[str], noun: str) -> str:
    known = list(names)
    more = len(known) - _LISTED
    suffix = f" and {count_text(more, f'more {noun}')}" if more > 0 else ""
    return ", ".join(known[:_LISTED]) + suffix
