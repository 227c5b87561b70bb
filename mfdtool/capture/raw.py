# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams that were saved as files, one each: no packets, no times, nothing missing.

That is what ``migrate "exec:cat > FILE"`` writes, and what a stream extracted from a capture is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.stream.span import run_of

if TYPE_CHECKING:
    from mfdtool.capture.source import Source
    from mfdtool.stream.span import Run


def stream_of(source: Source) -> Run:
    """Give the whole content of a file as one run, which must not outlive the source.

    All of it arrives at record 0 and at no known time.
    """
    return run_of(source.view)
