# SPDX-License-Identifier: GPL-2.0-or-later
"""What a bisection found, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mfdtool.loader.events import Connect
from mfdtool.report.verdict import shown_schedule
from mfdtool.schedule.trace import packet_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.explore.bisect import Cause
    from mfdtool.explore.signature import Signature
    from mfdtool.loader.recording import Entry

FORMAT: Final = 1
_LISTED: Final = 40
"""Packets that are listed one by one."""


@dataclass(frozen=True, slots=True)
class Real:
    """What a real destination did.

    Attributes:
        words: how it ended, in words.
        error: the line that gives the reason; empty if it printed none.
        signal: what killed it; 0 if nothing did.
        started: destinations that were started.
    """

    words: str
    error: str
    signal: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Files that were written of what is left.

    Attributes:
        files: their names.
        reproduce: the command that shows the failure with them; empty if there is none.
        kept: items that are there only so that the files are read as what they are.
    """

    files: tuple[str, ...] = ()
    reproduce: str = ""
    kept: tuple[Entry, ...] = ()


NOTHING: Final = Written()


def cause_text(
    cause: Cause,
    signature: Signature,
    sentence: str,
    *,
    reproduce: str,
    command: str | None = None,
    real: Real | None = None,
    written: Written = NOTHING,
) -> Iterator[str]:
    """Give a cause as lines; ``command`` is what judged, if it was not the destination."""
    yield str(signature) if command is None else f"bad, says {command!r}"
    if real is not None:
        yield f"real destination: {real.words}"
    yield f"cause: {sentence}"
    for fault in cause.candidate.faults:
        yield f"  fault {fault}"
    schedule = cause.candidate.schedule
    if schedule.acts is None:
        yield f"  order as recorded, load threads {schedule.pace.value}"
    else:
        yield f"  order {shown_schedule(str(schedule))}"
    found = packets(cause)
    connections = len(cause.candidate.trace.lanes)
    tries = f"{cause.tests} tries"
    if real is not None:
        tries += f", {real.started} of them real"
    yield f"what is left: {len(found)} items on {connections} channels, after {tries}"
    for packet in found[:_LISTED]:
        yield f"  {packet['channel']:12} {packet['what']}"
    if len(found) > _LISTED:
        yield f"  and {len(found) - _LISTED} more"
    if written.kept:
        names = ", ".join(f"{each['channel']} {each['what']}" for each in map(_shown, written.kept))
        yield f"of these only because the rest, alone, would not be taken for what it is: {names}"
    if reproduce:
        yield f"repeat with: {reproduce}"
    else:
        order = shown_schedule(str(cause.whole.schedule))
        yield f"repeat with: mfdtool replay with --order file:FILE, a file with {order}"
    if written.reproduce:
        yield f"repeat what is left with: {written.reproduce}"


def cause_json(
    cause: Cause,
    signature: Signature,
    sentence: str,
    *,
    reproduce: str,
    command: str | None = None,
    real: Real | None = None,
    written: Written = NOTHING,
) -> dict[str, Any]:
    """Give a cause as a JSON object; ``real`` is null if no real destination was asked."""
    kind = signature.kind
    return {
        "format": FORMAT,
        "outcome": kind.outcome.value,
        "rule": kind.rule_id,
        "device": kind.device or None,
        "sentence": sentence,
        "faults": [str(fault) for fault in cause.candidate.faults],
        "schedule": str(cause.candidate.schedule),
        "packets": packets(cause),
        "tests": cause.tests,
        "whole_schedule": str(cause.whole.schedule),
        "reproduce": reproduce or None,
        "command": command,
        "real": None
        if real is None
        else {"error": real.error or None, "signal": real.signal or None, "started": real.started},
        "files": list(written.files),
        "kept": [_shown(entry) for entry in written.kept],
        "reproduce_files": written.reproduce or None,
    }


def packets(cause: Cause) -> list[dict[str, Any]]:
    """List what is left, in the order in which it arrives."""
    arrivals = cause.candidate.schedule.arrivals(cause.candidate.trace)
    return [
        _shown(entry)
        for _, entry in arrivals
        if entry is not None and not isinstance(entry.event, Connect)
    ]


def _shown(entry: Entry) -> dict[str, Any]:
    assert not isinstance(entry.event, Connect)
    packet = packet_of(entry)
    what = type(entry.event.item).__name__
    shown: dict[str, Any] = {"channel": entry.channel, "what": what}
    if packet is not None:
        config = "config " if packet.is_config else ""
        shown["what"] = f"{config}packet {packet.idstr} idx {packet.idx}"
        shown |= {"idstr": packet.idstr, "idx": packet.idx, "is_config": packet.is_config}
    return shown
