# SPDX-License-Identifier: GPL-2.0-or-later
"""What an exploration found, as JSON and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.explore.count import UNIT
from mfdtool.explore.coverage import MOVES, missing
from mfdtool.report.units import UNKNOWN, count_text
from mfdtool.report.verdict import FORMAT, shown_schedule
from mfdtool.wire.profile import PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.explore.jobs import Exploration, Witnessed
    from mfdtool.workflows.confirm import Confirmed
    from mfdtool.workflows.explore import Explored

_HEADS: Final = ("orders", "outcome", "rule", "device", "faults")


def explore_json(explored: Explored) -> dict[str, Any]:
    """Give an exploration as a JSON object."""
    found = explored.found
    worst = found.worst
    return {
        "format": FORMAT,
        "migration": explored.migration,
        "profile": explored.profile,
        "complete": found.is_complete,
        "incomplete_because": explored.why_not_all or None,
        "explored": found.explored,
        "total": found.total,
        "unit": UNIT,
        "runs": found.runs if explored.drawn is not None else None,
        "variants": found.variants,
        "skipped_variants": explored.skipped,
        "faults": explored.budget or None,
        "drawn": None if explored.drawn is None else [str(name) for name in explored.drawn],
        "states": found.states,
        "steps": found.steps,
        "outcomes": [
            _outcome_json(outcome, command)
            | ({} if explored.confirmed is None else {"confirmed": _confirmed_json(confirmed)})
            for outcome, command, confirmed in _outcomes(explored)
        ],
        "worst_queue": {
            "bytes": worst.bytes,
            "device": worst.device or None,
            "limited": _is_limited(explored),
            "schedule": worst.schedule or None,
            "faults": list(found.worst_faults),
            "reproduce": explored.worst or None,
        },
        "coverage": {
            "reached": len(found.reached),
            "of": len(MOVES),
            "missing": missing(found.reached),
        },
    }


def _outcome_json(found: Witnessed, command: str) -> dict[str, Any]:
    kind = found.kind
    return {
        "outcome": kind.outcome.value,
        "rule": kind.rule_id,
        "name": kind.rule or None,
        "device": kind.device or None,
        "schedule": found.schedule,
        "faults": list(found.faults),
        "count": found.count,
        "acts": found.acts,
        "reproduce": command or None,
    }


def _outcomes(explored: Explored) -> Iterator[tuple[Witnessed, str, Confirmed | None]]:
    """Give each outcome with its command, and with what a real destination makes of it."""
    for number, outcome in enumerate(explored.found.outcomes):
        known = (explored.confirmed or ())[number : number + 1]
        yield outcome, explored.reproduce[number], known[0] if known else None


def _confirmed_json(confirmed: Confirmed | None) -> dict[str, Any] | None:
    """Give what a real destination makes of it; None if it was not asked any more."""
    if confirmed is None:
        return None
    return {
        "outcome": None if confirmed.outcome is None else confirmed.outcome.value,
        "agrees": confirmed.agrees,
        "differences": list(confirmed.differences),
        "error": confirmed.error,
        "exit_status": confirmed.exit_status,
        "order": confirmed.order,
        "not_enforced": confirmed.not_enforced,
        "failure": confirmed.failure or None,
    }


def _confirmed_text(confirmed: Confirmed) -> Iterator[str]:
    if confirmed.failure:
        yield f"  not confirmed: {confirmed.failure}"
        return
    assert confirmed.outcome is not None, "a destination that was launched tells"
    if confirmed.agrees:
        yield f"  confirmed: real destination: {confirmed.outcome.value}"
        return
    yield from (f"  differs: {text}" for text in confirmed.differences)
    if confirmed.not_enforced:
        what = count_text(confirmed.not_enforced, "step")
        yield f"  not enforced: {what} of threads, which QEMU takes as it likes"


def explore_text(explored: Explored) -> list[str]:
    """Write an exploration for people, one line each."""
    found = explored.found
    lines = [_headline(explored)]
    if explored.budget:
        lines.append(
            f"{count_text(found.variants, 'variant')} of the recording with {explored.budget}"
        )
    lines += ["", *(_table(found) if found.outcomes else ["no run has come to its end"])]
    for outcome, command, confirmed in _outcomes(explored):
        lines += ["", f"{_name(outcome)}, {count_text(outcome.acts, 'act')}:"]
        lines.append(f"  {command or _too_long(outcome.schedule)}")
        lines += [] if confirmed is None else _confirmed_text(confirmed)
    worst = found.worst
    if worst.bytes:
        waiting = f"{count_text(worst.bytes, 'byte')} wait for {worst.device}"
        lines += ["", f"deepest queue: {waiting}, {_limit_text(explored)}:"]
        lines.append(f"  {explored.worst or _too_long(worst.schedule)}")
    lines += [
        "",
        f"{len(found.reached)} of {len(MOVES)} moves of the loader's tables were made"
        f" ({count_text(found.states, 'state')}, {count_text(found.steps, 'step')};"
        " --json lists the others)",
    ]
    return lines


def _is_limited(explored: Explored) -> bool:
    """Whether runs ended at the destination's limit, so that more could have waited."""
    return explored.found.worst.bytes > explored.max_queued


def _limit_text(explored: Explored) -> str:
    if not PROFILES[explored.profile].has_queue_limit:
        return f"to which QEMU {explored.profile} sets no limit"
    if _is_limited(explored):
        return (
            f"where max-queued={explored.max_queued} ends it; how much"
            " x-migration-max-queued-buffers-size must be, explore tells without max-queued"
        )
    size = explored.found.worst.bytes
    return f"so x-migration-max-queued-buffers-size must be at least {size}"


def _too_long(schedule: str) -> str:
    """Say how to replay a schedule that does not fit into a command line."""
    return f"mfdtool replay with --order file:FILE, a file with {shown_schedule(schedule)}"


def _headline(explored: Explored) -> str:
    found = explored.found
    number = "more than can be counted" if found.explored is None else f"{found.explored:,}"
    total = "" if found.total is None else f" of {found.total:,}"
    what = f"{number}{total} {UNIT}"
    if explored.drawn is not None:
        runs = count_text(found.runs, "run")
        what = (
            f"{runs}, whose orders are too many" if found.explored is None else f"{what} in {runs}"
        )
    end = "complete" if found.is_complete else f"not complete: {explored.why_not_all}"
    return f"explored {what}, {end}"


def _name(found: Witnessed) -> str:
    kind = found.kind
    rule = f"{kind.rule_id} {kind.rule}" if kind.rule else ""
    return ", ".join(word for word in (kind.outcome.value, rule, kind.device) if word)


def _table(found: Exploration) -> list[str]:
    """Write the outcomes, one a line."""
    rows = [_HEADS]
    for outcome in found.outcomes:
        kind = outcome.kind
        rows.append(
            (
                UNKNOWN if outcome.count is None else f"{outcome.count:,}",
                kind.outcome.value,
                f"{kind.rule_id} {kind.rule}" if kind.rule else UNKNOWN,
                kind.device or UNKNOWN,
                " ".join(outcome.faults) or UNKNOWN,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = []
    for row in rows:
        first = row[0].rjust(widths[0])
        others = [word.ljust(width) for word, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *others]).rstrip())
    return lines
