# SPDX-License-Identifier: GPL-2.0-or-later
"""Where jobs are carried out: here, in a process for each core, or on a Dask cluster.

All of them are :class:`concurrent.futures.Executor`.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, Final, ParamSpec, TypeVar

from mfdtool.errors import SinkError

P = ParamSpec("P")
T = TypeVar("T")

ADDRESS: Final = re.compile(r"(?:tcp|tls)://(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
"""What names a Dask scheduler."""

_CONNECT_SECONDS: Final = 10

_told_to_stop: list[ctypes.c_bool] = []
"""In a worker process: what its parent sets when it does not want to wait.

It is memory without a lock: a worker that is killed while it holds one would keep it for ever.
"""


class Inline(Executor):
    """Carries everything out at once, in the caller's thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function; give its result as a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def is_told_to_stop() -> bool:
    """Whether whoever gave this job does not wait for it any more."""
    return any(told.value for told in _told_to_stop)


@contextmanager
def executor_for(*, jobs: int, cluster: str | None = None) -> Iterator[tuple[Executor, int]]:
    """Open an executor; give it, and how many jobs it carries out at a time.

    Raises:
        SinkError: the cluster cannot be reached, or what it takes is not installed.
    """
    if cluster is not None:
        with _cluster(cluster) as found:
            yield found
    elif jobs > 1:
        with _processes(jobs) as pool:
            yield pool, jobs
    else:
        yield Inline(), 1


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("forkserver")
    stop = context.RawValue(ctypes.c_bool)
    end, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stop, end))
    with end, ours:
        try:
            yield pool
        finally:
            stop.value = True
            pool.shutdown(cancel_futures=True)


def _begin(stop: ctypes.c_bool, parent: Connection) -> None:
    """Begin a worker: an interrupt is the parent's business, which then says so.

    ``parent`` is an end of a pipe whose other end only the parent has. The worker ends with it,
    however that ends, and the server that has forked it ends with its last worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _told_to_stop.append(stop)
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    """End this process when nobody has the other end of a pipe any more."""
    parent.poll(None)
    os._exit(1)


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    try:
        # Not needed otherwise, and slow to import.
        import distributed
    except ModuleNotFoundError as error:
        raise SinkError("--cluster takes the package distributed: mfdtool[cluster]") from error
    try:
        connect: Any = distributed.Client
        client = connect(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SinkError(f"{address}: {error}") from error
    with client:
        cores = sum(client.nthreads().values())
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor, max(cores, 1)
        finally:
            executor.shutdown(wait=False)
