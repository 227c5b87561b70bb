# SPDX-License-Identifier: GPL-2.0-or-later
"""One English sentence that names a failure's cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from mfdtool.loader.events import Deliver, DevicePacket
from mfdtool.loader.moves import LoadPhase

if TYPE_CHECKING:
    from mfdtool.explore.signature import Judged
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.findings import Finding
    from mfdtool.loader.state import Device
    from mfdtool.replay.driver import Moment

Explain = Callable[["Judged", "Destination"], str]


def sentence_of(judged: Judged, destination: Destination) -> str:
    """Say why a run failed; it must have kept its moments.

    A destination may wait for what never comes because of an error before: that comes first.
    """
    explain = _EXPLANATIONS.get(judged.signature.kind.rule, _by_finding)
    what = explain(judged, destination) or _by_finding(judged, destination)
    return what if judged.error is None else f"{_told(judged.error)}; so {what}"


def _by_finding(judged: Judged, destination: Destination) -> str:
    """Say what the finding says, and where."""
    del destination
    finding = judged.finding
    return str(judged.signature) if finding is None else _told(finding)


def _told(finding: Finding) -> str:
    if not finding.channel:
        return f"{finding.device}: {finding.message}" if finding.device else finding.message
    where = finding.channel
    if finding.number is not None:
        where += f"#{finding.number}"
    return f"{where}: {finding.message}"


# Single rules.


def _config_lowered(judged: Judged, destination: Destination) -> str:
    """Say which config packet came while the load thread was beyond its idx."""
    number = _device(judged, destination)
    last = judged.run.state.devices[number].last
    for moment, before in _packets(judged, destination, number):
        packet = _packet(moment)
        if packet.is_config and packet.idx == last and last <= before.cur:
            return (
                f"config packet idx {packet.idx} on {_channel(moment)} arrives"
                f" while idx {before.cur} is {_doing(before)}"
            )
    return ""


def _doing(device: Device) -> str:
    return "being written" if device.phase is LoadPhase.WRITING else "waited for"


def _duplicate(judged: Judged, destination: Destination) -> str:
    """Say where an idx arrives the first and the second time."""
    number = _device(judged, destination)
    seen: dict[int, str] = {}
    for moment, _ in _packets(judged, destination, number):
        packet = _packet(moment)
        idx = packet.idx if packet.idx is not None else -1
        if idx in seen:
            return f"idx {idx} arrives twice: on {seen[idx]}, then on {_place(moment)}"
        seen[idx] = _place(moment)
    return ""


def _unfinished(judged: Judged, destination: Destination) -> str:
    """Say what a load thread waits for."""
    number = _device(judged, destination)
    device = judged.run.state.devices[number]
    idstr = judged.signature.kind.device
    if judged.signature.lack == "idx":
        return f"idx {device.cur} of {idstr} never arrives, and its load thread waits for it"
    if judged.signature.lack == "config":
        return f"no config packet of {idstr} arrives: its load thread waits for idx {device.cur}"
    return f"no packet of {idstr} arrives, and its load thread waits for the first one"


def _switchover_missing(judged: Judged, destination: Destination) -> str:
    del destination
    return (
        f"SWITCHOVER_START never arrives, so the packets of {judged.signature.kind.device}"
        " are thrown away and the guest runs without them"
    )


def _device_reset(judged: Judged, destination: Destination) -> str:
    """Say which config packet was taken for the last one although data lies behind it."""
    if judged.signature.lack != "behind":
        return ""
    number = _device(judged, destination)
    device = judged.run.state.devices[number]
    came = [moment for moment, _ in _packets(judged, destination, number)]
    channels = [_channel(moment) for moment in came if _packet(moment).is_config]
    where = f" on {channels[0]}" if channels else ""
    return (
        f"config packet idx {device.last}{where} ends the data of"
        f" {judged.signature.kind.device}, of which more was sent: the device got"
        f" {device.intake.size} bytes and cannot run with them"
    )


def _device(judged: Judged, destination: Destination) -> int:
    idstr = judged.signature.kind.device
    return next(
        (number for number, spec in enumerate(destination.devices) if spec.idstr == idstr), 0
    )


def _packets(judged: Judged, destination: Destination, number: int) -> list[tuple[Moment, Device]]:
    """Give the device's packets, and the state of its loader before each."""
    found: list[tuple[Moment, Device]] = []
    before: Device | None = None
    for moment in judged.moments:
        event = moment.event
        if (
            before is not None
            and isinstance(event, Deliver)
            and isinstance(event.item, DevicePacket)
            and destination.device_named(event.item.idstr, event.item.instance_id) == number
        ):
            found.append((moment, before))
        before = moment.state.devices[number]
    return found


def _packet(moment: Moment) -> DevicePacket:
    assert isinstance(moment.event, Deliver)
    assert isinstance(moment.event.item, DevicePacket)
    return moment.event.item


def _channel(moment: Moment) -> str:
    return moment.entry.channel if moment.entry is not None else "?"


def _place(moment: Moment) -> str:
    entry = moment.entry
    number = "" if entry is None or entry.number is None else f"#{entry.number}"
    return _channel(moment) + number


_EXPLANATIONS: Final[Mapping[str, Explain]] = {
    "config-lowered": _config_lowered,
    "device-reset": _device_reset,
    "idx-duplicate": _duplicate,
    "device-unfinished": _unfinished,
    "switchover-missing": _switchover_missing,
}
