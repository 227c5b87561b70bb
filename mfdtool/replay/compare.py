# SPDX-License-Identifier: GPL-2.0-or-later
"""What a real destination made of a replay, beside what the model makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.loader.state import Outcome
from mfdtool.replay.log_order import INCOMING, LOAD_START

if TYPE_CHECKING:
    from mfdtool.replay.log import Log
    from mfdtool.replay.verdict import Verdict

TERMINATE: Final = "multifd_recv_terminate_threads"

_LOADED: Final = frozenset({Outcome.COMPLETED, Outcome.STALLED})


def gives_up(name: str, error: object) -> bool:
    """Whether a trace event, with its first argument, is that of a thread that met an error."""
    return name == TERMINATE and error == 1


def differences(model: Verdict, modelled: Log, found: Verdict, log: Log | None) -> tuple[str, ...]:
    """Say where a real destination differs from the model; nothing if it does not.

    Outcome, error, and which idx came in and were loaded in which order are compared, these two
    only if there is a log. A destination that is about to fail, or whose receive threads give up,
    still reads what is there: it may then have more than the model, behind what that has.
    """
    pairs: list[tuple[str, Any, Any]] = [("outcome", _name(model), _name(found))]
    if found.outcome is not Outcome.ABORTED:
        # What a process says while it is killed may not get out in one piece.
        pairs.append(("error", model.error, found.error))
    if log is not None:
        gave_up = any(gives_up(line.name, line.first_number) for line in modelled.events)
        is_open = gave_up or found.outcome not in _LOADED
        if found.outcome in _LOADED:
            pairs.append(
                ("idx that were loaded", *_idx(modelled, log, LOAD_START, is_open=is_open))
            )
        pairs.append(("idx that came in", *_idx(modelled, log, INCOMING, is_open=is_open)))
    return tuple(
        f"{what}: the model has {_shown(expected)}, QEMU has {_shown(got)}"
        for what, expected, got in pairs
        if expected != got
    )


def _idx(
    modelled: Log, log: Log, event: str, *, is_open: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Give the idx of an event that both have; with an open end, no more than the model has."""
    model, real = _by_device(modelled, event), _by_device(log, event)
    if is_open:
        real = [got[: len(idx)] for idx, got in zip(model, real, strict=False)]
    return model, real


def _by_device(log: Log, event: str) -> list[list[int]]:
    """Give the idx of an event, device by device, in order of appearance."""
    found: dict[str, list[int]] = {}
    for line in log.events:
        if line.name == event:
            found.setdefault(line.device, []).append(line.first_number)
    return list(found.values())


def _name(verdict: Verdict) -> str | None:
    return None if verdict.outcome is None else verdict.outcome.value


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return "; ".join(" ".join(map(str, each)) for each in value)
    return str(value)
