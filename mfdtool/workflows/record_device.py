# SPDX-License-Identifier: GPL-2.0-or-later
"""``record device``: take a device's state out of it, and write it as a migration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mfdtool.capture.writer import PcapngWriter
from mfdtool.fixtures.device_recording import DeviceRecording
from mfdtool.fixtures.pci import config_from_space
from mfdtool.fixtures.segments import Network, send
from mfdtool.live.vfio.session import SavingDevice
from mfdtool.live.vfio.uapi import DeviceFlag
from mfdtool.packets.info import Interface
from mfdtool.packets.link import LinkType

if TYPE_CHECKING:
    from pathlib import Path

    from mfdtool.live.vfio.device import VfioDevice

APPLICATION: Final = "mfdtool record device"
SEGMENT_SIZE: Final = 65_483
"""What a segment carries on a loopback interface, IPv4 with options."""


class Config(StrEnum):
    """What stands for the config state, which only QEMU's model of the device has."""

    DEVICE = "device"
    """Made up from the device's own config space."""
    NONE = "none"
    """Nothing: no destination completes such a migration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is wanted.

    Attributes:
        recording: how it is to look; its config is filled in here.
        chunk: how many bytes a read asks for: what a packet carries at most.
        precopy: whether PRE_COPY comes before STOP_COPY.
        config: what stands for the config state.
    """

    recording: DeviceRecording
    chunk: int
    precopy: bool = False
    config: Config = Config.DEVICE


@dataclass(slots=True)
class Tally:
    """Counts reads, and the bytes that they gave."""

    reads: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was recorded.

    Attributes:
        device: the device's name.
        recording: how it looks.
        precopy: reads in PRE_COPY.
        stop_copy: reads in STOP_COPY: one packet each.
        sha256: digest of all bytes, in the order in which they were read.
    """

    device: str
    recording: DeviceRecording
    precopy: Tally
    stop_copy: Tally
    sha256: str


@dataclass(slots=True)
class _Counting:
    """Watches the device's bytes go by."""

    digest: Any = field(default_factory=sha256)
    precopy: Tally = field(default_factory=Tally)
    stop_copy: Tally = field(default_factory=Tally)

    def watch(self, pieces: Iterable[bytes], tally: Tally) -> Iterator[bytes]:
        """Count pieces as they are asked for."""
        for piece in pieces:
            tally.reads += 1
            tally.size += len(piece)
            self.digest.update(piece)
            yield piece


def record_device(
    device: VfioDevice, request: Request, output: Path, *, clock: Callable[[], int]
) -> Recorded:
    """Save a device's state, and write it to a file as the device gives it.

    The device is RUNNING before and after. ``clock`` gives nanoseconds since the epoch. What was
    read before something failed is in the file, up to the last whole packet.

    Raises:
        SinkError: the device has no migration states, is not RUNNING, or fails.
        OSError: the file cannot be written.
        ValueError: no source could send it so.
    """
    recording = replace(request.recording, config=_config(device, request.config))
    counting = _Counting()
    with SavingDevice(device, size=request.chunk, precopy=request.precopy) as saving:
        items = recording.items(
            counting.watch(saving.precopy() if request.precopy else (), counting.precopy),
            counting.watch(saving.stop_copy(), counting.stop_copy),
        )
        frames = send(
            items, recording.connections, network=Network(segment_size=SEGMENT_SIZE), clock=clock
        )
        with output.open("wb") as file:
            comments = (_origin(device, request), *recording.comments)
            writer = PcapngWriter(file, application=APPLICATION, comments=comments)
            writer.add_interface(Interface(0, LinkType.ETHERNET, name=device.name))
            for frame in frames:
                writer.write(frame.data, time_ns=frame.time_ns)
    return Recorded(
        device=device.name,
        recording=recording,
        precopy=counting.precopy,
        stop_copy=counting.stop_copy,
        sha256=counting.digest.hexdigest(),
    )


def summary(recorded: Recorded) -> dict[str, Any]:
    """Give what was recorded as a JSON object."""
    recording = recorded.recording
    return {
        "format": 1,
        "device": recorded.device,
        "idstr": recording.device.idstr,
        "instance_id": recording.device.instance_id,
        "profile": recording.profile.name,
        "multifd_channels": recording.channels,
        "precopy": {"reads": recorded.precopy.reads, "bytes": recorded.precopy.size},
        "stop_copy": {"reads": recorded.stop_copy.reads, "bytes": recorded.stop_copy.size},
        "config": "absent" if recording.config is None else "synthetic",
        "bytes": recorded.precopy.size + recorded.stop_copy.size,
        "sha256": recorded.sha256,
    }


def _config(device: VfioDevice, wanted: Config) -> bytes | None:
    """Give what stands for the config state; a device that is not PCI has an empty one."""
    if wanted is Config.NONE:
        return None
    if DeviceFlag.PCI not in device.flags():
        return b""
    return config_from_space(device.config_space())


def _origin(device: VfioDevice, request: Request) -> str:
    driver = device.location.driver if device.location else "unknown"
    states = "PRE_COPY and STOP_COPY" if request.precopy else "STOP_COPY"
    return f"{device.name}, driver {driver}, in {states}, reads of {request.chunk} bytes"
