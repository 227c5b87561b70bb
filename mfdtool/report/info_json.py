# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``info --json`` writes.

The keys are those that `overview_json` and the functions behind it spell out; times are decimal
strings, seconds since the epoch; what is not known is null.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.info_phases import phases_json, release_json, switchover_json
from mfdtool.report.units import stamp_text
from mfdtool.wire.text import escape

if TYPE_CHECKING:
    from mfdtool.report.overview import Overview
    from mfdtool.stream.devices import Amount, DeviceSummary
    from mfdtool.stream.summary import ChannelSummary, MigrationSummary
    from mfdtool.wire.vendors.registry import Choice, Registry

FORMAT: Final = 1

_LISTED: Final = 1000
"""Comments and connections that are listed."""

_PARTS: Final = ("precopy", "main", "multifd")


def overview_json(overview: Overview) -> dict[str, Any]:
    """Give everything as one JSON object."""
    return {
        "format": FORMAT,
        "file": _file_json(overview),
        "complete": overview.complete,
        "problems": [str(problem) for problem in overview.problems],
        "migrations": [
            _migration_json(migration, overview.vendors) for migration in overview.migrations
        ],
        "other_connections": [
            {
                "client": str(other.client) if other.client is not None else None,
                "server": str(other.server) if other.server is not None else None,
                "bytes": other.bytes,
                "kind": other.kind.value,
            }
            for other in islice(overview.other_streams(), _LISTED)
        ],
    }


def _file_json(overview: Overview) -> dict[str, Any]:
    info, counters = overview.info, overview.counters
    return {
        "path": overview.path or None,
        "size": overview.size,
        "type": info.format.value if info.format is not None else None,
        "remarks": list(overview.remarks),
        "records": counters.records if counters is not None else None,
        "segments": counters.segments if counters is not None else None,
        "skipped": {
            skip.value: count
            for skip, count in (counters.skipped.items() if counters is not None else ())
        },
        "first": stamp_text(overview.first_ns),
        "last": stamp_text(overview.last_ns),
        "snaplen": info.snaplen or None,
        "dropped": info.dropped,
        "interfaces": [
            {
                "name": escape(interface.name.encode()) or None,
                "linktype": interface.linktype,
                "snaplen": interface.snaplen or None,
            }
            for interface in info.interfaces
        ],
        "application": info.application or None,
        "hardware": info.hardware or None,
        "os": info.os or None,
        "comments": [
            {"record": comment.record or None, "text": comment.text}
            for comment in info.comments[:_LISTED]
        ],
        "comments_omitted": info.comments_omitted + max(len(info.comments) - _LISTED, 0),
    }


def _migration_json(migration: MigrationSummary, vendors: Registry) -> dict[str, Any]:
    ram = migration.ram
    return {
        "migration": migration.index,
        "server": str(migration.server) if migration.server is not None else None,
        "uuid": migration.uuid_text,
        "machine": migration.machine or None,
        "page_size": migration.page_size or None,
        "first": stamp_text(migration.first_ns),
        "last": stamp_text(migration.last_ns),
        "switchover_start": migration.switchover,
        "main_ended": migration.ended,
        "gap_bytes": migration.gap_bytes,
        "undecoded_bytes": migration.undecoded_bytes,
        "undescribed_sections": migration.undescribed.sections,
        "undescribed_bytes": migration.undescribed.bytes,
        "channels": [_channel_json(channel) for channel in migration.channels],
        "devices": [_device_json(device, vendors) for device in migration.devices],
        "phases": phases_json(migration),
        "switchover": switchover_json(migration.standstill),
        "release": release_json(migration.recognition),
        "ram": {
            "blocks": [{"ramblock": name, "length": length} for name, length in ram.blocks],
            "normal_pages": ram.normal_pages,
            "zero_pages": ram.zero_pages,
            "xbzrle_pages": ram.xbzrle_pages,
            "bytes": ram.bytes,
            "packets": ram.packets,
            "rounds": ram.rounds,
            "iterations": ram.sections,
            "syncs": ram.syncs,
            "requests": ram.requests,
            "mapped": ram.is_mapped,
        },
        "kinds": {
            count.kind.value: {
                "frames": count.frames,
                "bytes": count.bytes,
                "missing": count.missing,
            }
            for count in migration.kinds
        },
    }


def _channel_json(channel: ChannelSummary) -> dict[str, Any]:
    return {
        "channel": channel.name,
        "kind": channel.kind.value,
        "client": str(channel.client) if channel.client is not None else None,
        "from_start": channel.from_start,
        "bytes": channel.bytes,
        "gap_bytes": channel.gap_bytes,
        "undecoded_bytes": channel.undecoded_bytes,
        "frames": channel.frames,
        "incomplete": channel.incomplete,
        "first": stamp_text(channel.first_ns),
        "last": stamp_text(channel.last_ns),
        "end": channel.end.value if channel.end is not None else None,
    }


def _device_json(device: DeviceSummary, vendors: Registry) -> dict[str, Any]:
    config = device.config
    pci = device.evidence.pci
    amounts = (device.precopy, device.main, device.multifd)
    return {
        "idstr": device.key.idstr or None,
        "instance_id": device.key.instance_id,
        "complete": device.is_whole,
        **{name: _amount_json(amount) for name, amount in zip(_PARTS, amounts, strict=True)},
        "config": config
        and {
            "via": config.via.value,
            "channel": config.channel,
            "bytes": config.bytes,
            "missing": config.missing,
            "idx": config.idx,
        },
        "configs": device.configs,
        "channels": list(device.channels),
        "first": stamp_text(device.first_ns),
        "last": stamp_text(device.last_ns),
        "expected_idx": device.expected,
        "missing_idx": [list(hole) for hole in device.missing_idx],
        "missing_idx_count": device.missing_idx_count,
        "duplicates": device.duplicates,
        "behind_config": device.behind_config,
        "headless": device.headless,
        "pci": pci and {"vendor_id": f"{pci[0]:#x}", "device_id": f"{pci[1]:#x}"},
        "driver": _driver_json(vendors.choose(device.evidence)),
    }


def _driver_json(choice: Choice) -> dict[str, Any]:
    return {
        "name": choice.vendor and choice.vendor.name,
        "confidence": choice.guess and choice.guess.confidence.name.lower(),
        "why": choice.why,
    }


def _amount_json(amount: Amount) -> dict[str, int]:
    return {"pieces": amount.pieces, "bytes": amount.bytes, "missing": amount.missing}
