# SPDX-License-Identifier: GPL-2.0-or-later
"""What must come before what in a destination's log, across its threads."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mfdtool.replay.log import LogLine

INCOMING: Final = "vfio_load_state_device_buffer_incoming"
LOAD_START: Final = "vfio_load_state_device_buffer_load_start"
LOAD_END: Final = "vfio_load_state_device_buffer_load_end"
THREAD_START: Final = "vfio_load_bufs_thread_start"
CONFIG_START: Final = "vfio_load_device_config_state_start"
UNFILL: Final = "multifd_recv_unfill"

_SIGNAL: Final = "multifd_recv_sync_main_signal"
_FLUSHED: Final = "multifd_recv_sync_main"
_COMMAND: Final = "loadvm_process_command"
_FLAGS: Final = re.compile(r"flags 0x([0-9a-f]{1,8})")


class Order:
    """Watches a log go by.

    ``configs`` gives the idx of each device's config packet, by the host's name. ``channels`` is
    how many channels there are.
    """

    def __init__(self, configs: Mapping[str, int], channels: int, *, has_commands: bool) -> None:
        self._configs = configs
        self._channels = channels
        self._switched = not has_commands
        self._incoming: set[tuple[str, int]] = set()
        self._syncs: Counter[str] = Counter()
        self._signals: Counter[str] = Counter()
        self._flushes = 0

    def broken_by(self, line: LogLine, thread: str) -> str:
        """Take the next line; say which order it breaks, empty if none."""
        name, number = line.name, line.first_number
        why = ""
        if name == INCOMING:
            why = self._behind_sync(thread)
            self._incoming.add((line.device, number))
        elif name == LOAD_START and (line.device, number) not in self._incoming:
            why = "a buffer is loaded that has not come in"
        elif name == CONFIG_START:
            idx = self._configs.get(line.device)
            if idx is not None and (line.device, idx) not in self._incoming:
                why = "a config is loaded that has not come in"
        elif name == THREAD_START and not self._switched:
            why = "a load thread runs before SWITCHOVER_START"
        elif name == _COMMAND:
            self._switched |= "SWITCHOVER_START" in line.args
        elif name == UNFILL:
            why = self._behind_sync(thread)
            flags = _FLAGS.search(line.args)
            self._syncs[thread] += flags is not None and int(flags[1], 16) & 1
        elif name == _SIGNAL:
            self._signals[f"multifd-{number}"] += 1
            done = sum(count > self._flushes for count in self._syncs.values())
            if done < self._channels:
                why = f"a flush ends after a SYNC of {done} of {self._channels} channels"
        elif name == _FLUSHED:
            self._flushes += 1
        return why

    def _behind_sync(self, thread: str) -> str:
        if self._syncs[thread] > self._signals[thread]:
            return "the channel goes on behind a SYNC before it is signalled"
        return ""
