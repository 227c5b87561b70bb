# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster in this process, which goes away with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import distributed


@contextmanager
def local_cluster(*, workers: int, threads: int) -> Iterator[str]:
    """Run a cluster; give the address of its scheduler."""
    # The package has no types.
    make: Any = distributed.LocalCluster
    with make(
        n_workers=workers,
        threads_per_worker=threads,
        processes=False,
        dashboard_address=None,
        protocol="tcp",
    ) as cluster:
        yield cluster.scheduler_address
