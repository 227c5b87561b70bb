# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of an exploration, as text that a later one can go on from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from mfdtool.errors import ScheduleError
from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.coverage import MOVES
from mfdtool.explore.jobs import Found, Queue, Summary
from mfdtool.loader.state import Outcome
from mfdtool.rules import RULES_BY_NAME

VERSION: Final = 2
_FORMAT: Final = "mfdtool explore checkpoint"
_LARGEST: Final = 1 << 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Jobs that are done, and what they are jobs of.

    Attributes:
        identity: all that decides what the jobs are; two explorations with the same have the same.
        splits: whether large variants are taken apart.
    """

    identity: str
    splits: bool
    done: tuple[Summary, ...]


def write_checkpoint(identity: str, done: Iterable[Summary], *, splits: bool) -> str:
    """Write a checkpoint."""
    parts = [asdict(summary) for summary in sorted(done, key=lambda summary: summary.key)]
    head = {"format": _FORMAT, "version": VERSION, "identity": identity, "splits": splits}
    return json.dumps({**head, "done": parts}) + "\n"


def read_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ScheduleError: it is none, or of a version that is not known, or damaged.
    """
    try:
        known = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScheduleError("it is no checkpoint of explore") from error
    if not isinstance(known, dict) or known.get("format") != _FORMAT:
        raise ScheduleError("it is no checkpoint of explore")
    if known.get("version") != VERSION:
        raise ScheduleError(f"version {known.get('version')} of checkpoints is not known")
    try:
        done = tuple(_summary(part) for part in known["done"])
        if len({summary.key for summary in done}) < len(done):
            raise ScheduleError("the checkpoint has a job twice")
        return Checkpoint(str(known["identity"]), bool(known["splits"]), done)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScheduleError("the checkpoint is damaged") from error


def _summary(part: Mapping[str, Any]) -> Summary:
    return Summary(
        variant=_count(part["variant"]),
        part=_count(part["part"]),
        faults=tuple(str(fault) for fault in part["faults"]),
        explored=_maybe(part["explored"]),
        total=_maybe(part["total"]),
        states=_count(part["states"]),
        steps=_count(part["steps"]),
        is_complete=part["is_complete"] is True,
        outcomes=tuple(_found(found) for found in part["outcomes"]),
        worst=_queue(part["worst"]),
        reached=tuple(_move(number) for number in part["reached"]),
        runs=_count(part["runs"]),
    )


def _found(found: Mapping[str, Any]) -> Found:
    kind = found["kind"]
    rule = str(kind["rule"])
    if rule and rule not in RULES_BY_NAME:
        raise ValueError(rule)
    return Found(
        kind=OutcomeClass(Outcome(kind["outcome"]), rule, str(kind["device"])),
        count=_maybe(found["count"]),
        acts=_count(found["acts"]),
        schedule=str(found["schedule"]),
        orders=tuple(_count(mark) for mark in found["orders"]),
    )


def _queue(queue: Mapping[str, Any]) -> Queue:
    return Queue(
        bytes=_count(queue["bytes"]),
        device=str(queue["device"]),
        schedule=str(queue["schedule"]),
    )


def _move(value: object) -> int:
    number = _count(value)
    if number >= len(MOVES):
        raise ValueError(f"there is no move {number}")
    return number


def _maybe(value: object) -> int | None:
    return None if value is None else _count(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError(f"{value!r} is no count")
    return value
