# SPDX-License-Identifier: GPL-2.0-or-later
"""The program inside the machine: ``python -m tests.live.lab.guest OUT TOOLS NAME...``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.live.lab.scenario import play
from tests.live.lab.scenarios import SCENARIOS


def main() -> None:
    """Run the scenarios that are named, one after the other."""
    out, tools, *names = sys.argv[1:]
    for name in names:
        result = play(SCENARIOS[name], Path(out), Path(tools))
        said = "FAILED" if result.error else "passed"
        sys.stdout.write(f"lab: {name} {said} in {result.seconds:.1f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
