# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's trace events, as its log writes them (migration/trace-events, hw/vfio/trace-events).

``{0}`` and so on are the arguments; the first one of an event of VFIO is a device's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mfdtool.loader.commands import Trace

MIGRATION_FORMATS: Final[Mapping[str, str]] = {
    "multifd_recv_new_channel": "channel {0}",
    "multifd_recv_thread_start": "{0}",
    "multifd_recv_thread_end": "channel {0} packets {1}",
    "multifd_recv_unfill": "channel {0} packet_num {1} flags {2:#x} next packet size {3}",
    "multifd_recv_sync_main_wait": "iter {0}",
    "multifd_recv_sync_main_signal": "channel {0}",
    "multifd_recv_sync_main": "packet num {0}",
    "multifd_recv_terminate_threads": "error {0}",
    "loadvm_state_setup": "",
    "loadvm_state_cleanup": "",
    "loadvm_process_command": "com={0} len={1}",
    "qemu_loadvm_state_section": "{0}",
    "qemu_loadvm_state_section_command": "{0}",
    "qemu_loadvm_state_section_startfull": "{0}({1}) {2} {3}",
    "qemu_loadvm_state_section_partend": "{0}",
    "qemu_loadvm_state_post_main": "{0}",
}

VFIO_FORMATS: Final[Mapping[str, str]] = {
    "vfio_load_state": "({0}) data {1:#x}",
    "vfio_load_state_device_data": "({0}) size {1} ret {2}",
    "vfio_load_bufs_thread_start": "({0})",
    "vfio_load_bufs_thread_end": "({0})",
    "vfio_load_state_device_buffer_incoming": "({0}) idx {1}",
    "vfio_load_state_device_buffer_starved": "({0}) idx {1}",
    "vfio_load_state_device_buffer_start": "({0})",
    "vfio_load_state_device_buffer_load_start": "({0}) idx {1}",
    "vfio_load_state_device_buffer_load_end": "({0}) idx {1}",
    "vfio_load_state_device_buffer_end": "({0})",
    "vfio_load_device_config_state_start": "({0})",
    "vfio_load_device_config_state_end": "({0})",
    "vfio_migration_set_state": "({0}) new state {1}, recover state {2}",
    "vfio_migration_set_device_state": "({0}) state {1}",
    "vfio_load_cleanup": "({0})",
}


def trace_line(trace: Trace, name_of: Callable[[int], str]) -> str:
    """Write a trace event as in a QEMU log; ``name_of`` gives the name of a device's number."""
    args = list(trace.args)
    layout = MIGRATION_FORMATS.get(trace.name)
    if layout is None:
        layout = f" {VFIO_FORMATS[trace.name]}"
        args[0] = name_of(int(args[0]))
    return f"{trace.name} {layout.format(*args)}"
