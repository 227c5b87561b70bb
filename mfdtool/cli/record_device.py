# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool record device``."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Final

import click

from mfdtool.cli.console import write_all
from mfdtool.cli.interrupts import terminable
from mfdtool.cli.make_options import CHUNK_LIMIT, parse_size
from mfdtool.cli.status import ExitStatus
from mfdtool.cli.vfio import device_options, opened
from mfdtool.fixtures.device_recording import DeviceRecording
from mfdtool.fixtures.migration import DeviceId
from mfdtool.report.units import count_text
from mfdtool.wire.constants import IDSTR_SIZE, MULTIFD_MAX_CHANNELS
from mfdtool.wire.profile import DEFAULT_PROFILE, PROFILES
from mfdtool.workflows.record_device import Config, Recorded, Request, record_device, summary

_SLOT: Final = re.compile(r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_SUFFIX: Final = "/vfio"


def _idstr(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Complete a device's name, as it may be shortened everywhere."""
    name = f"0000:{value}" if _SLOT.fullmatch(value) else value
    name = name if name.endswith(_SUFFIX) else name + _SUFFIX
    if not name.isascii() or len(name) >= IDSTR_SIZE:
        raise click.BadParameter(f"at most {IDSTR_SIZE - 1} ASCII characters.")
    return name


def _chunk(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    if not 0 < size <= CHUNK_LIMIT:
        raise click.BadParameter(f"{value} is not in 1 to {CHUNK_LIMIT >> 20}M.")
    return size


@click.command("device")
@device_options
@click.option(
    "-w",
    "--output",
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Recording to write, pcapng.",
)
@click.option(
    "--idstr",
    default="0000:00:05.0",
    show_default=True,
    callback=_idstr,
    help="The device's name in the recording: where a guest has it.",
)
@click.option(
    "--chunk",
    default="1M",
    show_default=True,
    metavar="SIZE",
    callback=_chunk,
    help="Most bytes of a read, each of which becomes a packet.",
)
@click.option(
    "--channels",
    type=click.IntRange(1, MULTIFD_MAX_CHANNELS),
    default=4,
    show_default=True,
    help="Multifd channels, which take packets in turn.",
)
@click.option("--precopy", is_flag=True, help="Read in PRE_COPY first, while the device runs.")
@click.option(
    "--config",
    type=click.Choice([each.value for each in Config]),
    default=Config.DEVICE.value,
    show_default=True,
    help="The config state, which only QEMU has: made up from the device's config space, or none.",
)
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default=DEFAULT_PROFILE.name,
    show_default=True,
    help="QEMU release that the recording looks like.",
)
@click.option("--machine", default="", help="Machine type  [default: the usual one]")
@click.option("--json", "as_json", is_flag=True, help="Describe the recording in a JSON object.")
def command(
    *,
    name: str,
    agreed: bool,
    output: Path,
    idstr: str,
    chunk: int,
    channels: int,
    precopy: bool,
    config: str,
    profile: str,
    machine: str,
    as_json: bool,
) -> ExitStatus:
    """Take a VFIO device's state out of it, and record it as a migration would look.

    \b
    mfdtool record device 0000:03:00.1 -w state.pcapng
    mfdtool check state.pcapng

    DEVICE is a PCI address (0000:03:00.1), an mdev's UUID, a folder of sysfs, a group
    (/dev/vfio/7), a character device (/dev/vfio/devices/vfio0) or device-fd:N. It is stopped,
    read, and set running again; it is refused if it is in use.

    The device's state is real. All else is made up: a main stream without RAM, and the config
    state. The recording says so, and so does "check".
    """
    request = Request(
        recording=DeviceRecording(
            device=DeviceId(idstr), channels=channels, profile=PROFILES[profile], machine=machine
        ),
        chunk=chunk,
        precopy=precopy,
        config=Config(config),
    )
    effect = "it is stopped while its state is read"
    with terminable(), opened(name, agreed=agreed, effect=effect) as device:
        recorded = record_device(device, request, output, clock=time.time_ns)
    if as_json:
        write_all([json.dumps(summary(recorded), indent=2), "\n"])
    else:
        click.echo(f"mfdtool: {output}: {_described(recorded)}", err=True)
    return ExitStatus.OK


def _described(recorded: Recorded) -> str:
    """Say in one line what was recorded."""
    before, after = recorded.precopy, recorded.stop_copy
    parts = [f"{count_text(after.size, 'byte')} in {count_text(after.reads, 'packet')}"]
    if before.reads:
        parts.insert(0, f"{count_text(before.size, 'byte')} of PRE_COPY")
    config = "no config state" if recorded.recording.config is None else "synthetic config state"
    return f"{recorded.device}: {', '.join(parts)}, {config}"
