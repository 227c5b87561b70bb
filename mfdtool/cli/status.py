# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit statuses, and which of them an error means."""

from __future__ import annotations

from enum import IntEnum

from mfdtool.errors import MfdtoolError, SinkError


class ExitStatus(IntEnum):
    """What a command's exit status says; where several apply, the first in this order counts."""

    USAGE = 2
    INPUT = 3
    """The input is unusable."""
    LIVE = 5
    """A live operation, or writing the output, failed."""
    VERDICT = 1
    """An outcome other than completed, or a finding that was asked to count."""
    INCOMPLETE = 4
    """Decoded, but with gaps, undecoded bytes or truncation."""
    OK = 0
    INTERRUPTED = 130
    PIPE = 141
    """Nobody reads the output any more: what a shell shows for a death by SIGPIPE."""


def status_of_error(error: MfdtoolError) -> ExitStatus:
    """Give the exit status of a command that an error ended."""
    return ExitStatus.LIVE if isinstance(error, SinkError) else ExitStatus.INPUT
