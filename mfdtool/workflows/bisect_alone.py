# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a bisected migration as a capture of its own, and the words that repeat it.

Whoever replays that capture has nothing but its bytes and a command line. So it is read as a
command reads it, and what it does not show of the destination any more is said in words.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfdtool.errors import ScheduleError
from mfdtool.explore.reproduction import Reproduction, reproduction_of, schedule_of
from mfdtool.live.targets import ModelTarget
from mfdtool.loader.assume import assume
from mfdtool.loader.options import parse_options, texts_for
from mfdtool.workflows.replay_qemu import words_of_qemu

if TYPE_CHECKING:
    from mfdtool.explore.bisect import Candidate
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.recording import Recording
    from mfdtool.schedule.schedule import Schedule
    from mfdtool.schedule.trace import Trace
    from mfdtool.workflows.replay import Plan
    from mfdtool.workflows.replay_qemu import QemuOptions


@dataclass(frozen=True)
class Alone:
    """A capture of what is left, as it is read.

    Attributes:
        reproduction: its packets.
        trace: what it is taken for.
        schedule: the order of that.
        destination: what it is replayed into, if the words are said.
        words: those of a command line that describe destination and target.
    """

    reproduction: Reproduction
    trace: Trace
    schedule: Schedule
    destination: Destination
    words: tuple[str, ...]

    def command(self, prefix: str) -> str:
        """Give the command that replays ``PREFIX.pcapng`` in the order of ``PREFIX.schedule``."""
        order = f"file:{prefix}.schedule"
        return shlex.join(["mfdtool", "replay", f"{prefix}.pcapng", "--order", order, *self.words])


def alone(candidate: Candidate, made: Plan, qemu: QemuOptions | None = None) -> Alone:
    """Read what is left as if nothing else were known.

    Raises:
        ScheduleError: the capture lacks bytes of it; or it is no migration any more, or another
            one, of which the schedule is no order.
    """
    reproduction = reproduction_of(candidate)
    found = reproduction.observation()
    if found is None:
        raise ScheduleError("what is left is no single migration any more")
    schedule = schedule_of(candidate, found)
    schedule.check(found.trace)
    words = _destination_words(made, found.recording)
    destination, _ = assume(found.recording, parse_options(words), made.destination.profile.name)
    said = ["--profile", destination.profile.name]
    for word in words:
        said += ["--destination", word]
    words = [*said, *target_words(made, qemu)]
    return Alone(reproduction, found.trace, schedule, destination, tuple(words))


def target_words(made: Plan, qemu: QemuOptions | None = None) -> list[str]:
    """Write the target, if it is not the model alone, as words of a command line."""
    options = made.options
    words = [] if isinstance(options.target, ModelTarget) else ["--to", str(options.target)]
    words += [] if options.device is None else ["--device", options.device]
    return words + ([] if qemu is None else words_of_qemu(qemu))


def _destination_words(made: Plan, recording: Recording) -> list[str]:
    """Say of the destination what was said, and what a recording does not show any more."""
    said = list(made.options.destination.said)
    profile = made.destination.profile.name
    shown, _ = assume(recording, parse_options(said), profile)
    if shown.devices != made.destination.devices:
        said = [text for text in said if not text.startswith("device=")]
    return [*said, *texts_for(made.destination, shown)]
