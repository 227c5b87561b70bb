# SPDX-License-Identifier: GPL-2.0-or-later
"""``bisect --to qemu:...``: a QEMU, started anew for each try, says whether candidates fail.

Two failures are the same one if the destination ends in the same way and gives the same reason: an
error or an assertion, but for its numbers. Where it gives none, as it waits for ever or was killed
without a word, the model must give the same reason for both: outcome, rule, device and what is
lacking. So only what the model judges alike is tried then.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from mfdtool.errors import ScheduleError, SinkError
from mfdtool.explore.bisect import Bisector, Candidate, Cause
from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.reproduction import reproduction_of, schedule_of
from mfdtool.explore.signature import Judged, Signature, judge
from mfdtool.loader.state import Outcome
from mfdtool.replay.verdict import DeviceOutcome, explanation
from mfdtool.workflows.replay_qemu import prepared, replay_into_qemu

if TYPE_CHECKING:
    from mfdtool.schedule.observation import Observation
    from mfdtool.schedule.schedule import Schedule
    from mfdtool.workflows.replay import Plan
    from mfdtool.workflows.replay_qemu import Prepared, QemuOptions, QemuReplayed

_VARIABLE: Final = re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9]+\b")
_ASSERTION: Final = re.compile(r"[^:\s]+: Assertion `.*")


@dataclass(frozen=True, slots=True)
class Ending:
    """What a real destination shows of how it ended.

    Attributes:
        outcome: how.
        signal: what killed it; 0 if nothing did.
        reason: the error or the assertion that it printed, ``#`` for numbers; empty if it gave
            none.
        device: idstr of the device that is hit, as far as it shows.
    """

    outcome: Outcome
    signal: int = 0
    reason: str = ""
    device: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether there is anything to explain."""
        return self.outcome is not Outcome.COMPLETED or bool(self.device)


@dataclass(frozen=True, slots=True)
class Seen:
    """A failure of a real destination.

    Attributes:
        ending: what makes it the one that it is.
        said: its reason, word for word; empty if it gave none.
        signature: the model's, if it ends alike; otherwise only what the destination shows.
        is_foreseen: whether the model ends alike.
    """

    ending: Ending
    said: str
    signature: Signature
    is_foreseen: bool

    @property
    def words(self) -> str:
        """What the destination did, for people."""
        text = self.ending.outcome.value
        if number := self.ending.signal:
            names = {int(each): each.name for each in signal.Signals}
            text += f" by {names.get(number, f'signal {number}')}"
        return f"{text}: {self.said}" if self.said else text


class QemuTester:
    """Tells whether candidates fail as the first one did.

    Attributes:
        seen: the first one's failure; None until it is known.
        tries: destinations that were started.
    """

    def __init__(self, made: Plan, options: QemuOptions, *, repeat: int) -> None:
        self.seen: Seen | None = None
        self.tries = 0
        self._made = made
        self._options = options
        self._repeat = repeat
        self._model: Signature | None = None
        self._last: Seen
        self._known: dict[bytes, bool] = {}

    def learn(self, first: Candidate) -> bool:
        """Take the first candidate's failure for the one that is meant; False if it has none.

        Raises:
            SinkError: no destination can be started, bytes that are due were not captured, or it
                does not fail like this again.
        """
        ready = self._prepared(first)
        assert ready is not None, "it is sent as it was captured"
        judged = self._judged(first)
        for _ in range(self._repeat):
            replayed = self._replayed(ready)
            seen = _seen(replayed, judged)
            if seen.ending.is_failure:
                self._model = judged.signature
                self.seen = self._last = seen
                break
        else:
            return False
        if not self.fails(first):
            raise SinkError(
                f"it does not fail in the same way again: first it {seen.words}, then"
                f" {self._last.words}. A device may have to be reset between two destinations; if"
                " chance decides, --repeat N tries more often"
            )
        return True

    def foreseen(self, first: Candidate) -> Cause | None:
        """Reduce the first candidate on the model, if that gives the same reason."""
        assert self.seen is not None
        if not self.seen.is_foreseen:
            return None
        return Bisector(self._made.recorded, self._foresees).reduce(first)

    def _foresees(self, candidate: Candidate) -> bool:
        return self._judged(candidate).signature == self._model

    def fails(self, candidate: Candidate) -> bool:
        """Try a candidate, as often as asked for; what was sent before is not sent again."""
        assert self.seen is not None
        judged = self._judged(candidate)
        if not self.seen.ending.reason and judged.signature != self._model:
            return False
        ready = self._prepared(candidate)
        if ready is None:
            return False
        mark = _mark(ready, judged.signature)
        if mark not in self._known:
            self._known[mark] = any(self._is_same(ready, judged) for _ in range(self._repeat))
        return self._known[mark]

    def _is_same(self, ready: Prepared, judged: Judged) -> bool:
        assert self.seen is not None
        self._last = _seen(self._replayed(ready), judged)
        return self._last.ending == self.seen.ending

    def _judged(self, candidate: Candidate) -> Judged:
        return judge(candidate.trace, self._made.destination, candidate.schedule)

    def _prepared(self, candidate: Candidate) -> Prepared | None:
        """Make a candidate's bytes ready to be sent; None if what is left cannot be sent."""
        if candidate.trace.digest == candidate.observation.trace.digest:
            return self._planned(candidate.observation, candidate.schedule)
        try:
            small = reproduction_of(candidate).observation()
            if small is None:
                return None
            schedule = schedule_of(candidate, small)
            schedule.check(small.trace)
            return self._planned(small, schedule)
        except (ScheduleError, SinkError):
            # Alone, it is not taken for what it was: a channel too short to be known, say.
            return None

    def _planned(self, observation: Observation, schedule: Schedule) -> Prepared:
        plan = self._made
        plan = replace(plan, observation=observation, schedule=schedule, faults=(), until=None)
        return prepared(plan)

    def _replayed(self, ready: Prepared) -> QemuReplayed:
        self.tries += 1
        return replay_into_qemu(ready, self._options)


def ending_of(replayed: QemuReplayed, kind: OutcomeClass) -> Ending:
    """Tell what a real destination shows; ``kind`` is what the model makes of the same."""
    verdict = replayed.verdict
    assert verdict.outcome is not None, "a destination that was launched tells"
    status = replayed.report.exit_status or 0
    return Ending(
        verdict.outcome,
        max(0, -status),
        _VARIABLE.sub("#", _reason(replayed)),
        _device(replayed, kind),
    )


def _reason(replayed: QemuReplayed) -> str:
    """Choose the line that gives the reason, word for word."""
    verdict = replayed.verdict
    if verdict.outcome is Outcome.FAILED:
        return verdict.error or ""
    if verdict.outcome is Outcome.ABORTED:
        found = (_ASSERTION.search(line) for line in verdict.stderr)
        return next((match[0] for match in found if match), "")
    return ""


def _device(replayed: QemuReplayed, kind: OutcomeClass) -> str:
    """Choose the device that is hit: the model's, if the destination shows the same of it."""
    verdict = replayed.verdict
    if verdict.outcome in {Outcome.FAILED, Outcome.ABORTED}:
        return replayed.blamed
    for device in verdict.devices:
        is_meant = device.idstr == kind.device and kind.outcome is verdict.outcome
        if verdict.outcome is Outcome.STALLED:
            if is_meant and device.outcome is DeviceOutcome.STARVED:
                return device.idstr
        elif device.reset or (is_meant and not device.restored):
            return device.idstr
    return ""


def _seen(replayed: QemuReplayed, judged: Judged) -> Seen:
    run, signature = judged.run, judged.signature
    ending = ending_of(replayed, signature.kind)
    is_foreseen = signature.kind.outcome is ending.outcome and signature.is_failure
    if ending.outcome is Outcome.FAILED:
        is_foreseen &= _VARIABLE.sub("#", explanation(run) or "") == ending.reason
    if not is_foreseen:
        signature = Signature(OutcomeClass(ending.outcome, "", ending.device))
    return Seen(ending, _reason(replayed), signature, is_foreseen)


def _mark(ready: Prepared, signature: Signature) -> bytes:
    """Tell apart what is sent, in which order, and what is waited for on the way."""
    mark = blake2b(repr((ready.expected, signature)).encode(), digest_size=16)
    for send in ready.sends:
        size = sum(len(part) for part in send.parts)
        mark.update(repr((send.channel, send.opens, send.ends, size)).encode())
        for part in send.parts:
            mark.update(part)
    return mark.digest()
