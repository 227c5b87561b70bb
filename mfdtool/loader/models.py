# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices: which bytes they take, and whether they run with what they got.

The kernel's driver judges device data when it is written and, above all, when the device leaves
RESUMING. Nothing of that can be known of an unknown device, so it is taken to accept everything.
The sample driver mtty is known (samples/vfio-mdev/mtty.c: mtty_resume_write, mtty_load_state): a
header of 24 bytes, checked when the write that completes it is made, then 36 bytes for each
serial port. It takes no byte more and does not run with one less.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from mfdtool.loader.errno import EFAULT, EINVAL, ENOMEM

if TYPE_CHECKING:
    from mfdtool.loader.blob import Blob
    from mfdtool.loader.destination import DeviceSpec

MTTY_MAGIC: Final = 0x7E9D09898C3E2C4E
MTTY_HEADER_SIZE: Final = 24
MTTY_PORT_SIZE: Final = 36
MTTY_MAJOR_VERSION: Final = 1
MTTY_MINOR_VERSION: Final = 0
_TRAIL_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Intake:
    """What a device has got.

    Attributes:
        size: how many bytes.
        head: the first of them, as far as a driver looks at them.
        trail: stands for what was written in which order.
        complete: whether ``head`` is known, or some of it was not captured.
    """

    size: int = 0
    head: bytes = b""
    trail: bytes = b""
    complete: bool = True


def mtty_header(ports: int) -> bytes:
    """Give the header that an mtty with so many ports writes and accepts."""
    words = (MTTY_MAJOR_VERSION, MTTY_MINOR_VERSION, ports, 0)
    return MTTY_MAGIC.to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in words)


def mtty_size(ports: int) -> int:
    """Give the length of an mtty's state, header included."""
    return MTTY_HEADER_SIZE + ports * MTTY_PORT_SIZE


def mtty_ports(head: bytes) -> int | None:
    """Give the number of ports of the mtty whose state begins like this; None if it is none."""
    if len(head) < MTTY_HEADER_SIZE or int.from_bytes(head[:8], "little") != MTTY_MAGIC:
        return None
    return int.from_bytes(head[16:20], "little")


def write(spec: DeviceSpec, intake: Intake, data: Blob) -> tuple[Intake, int]:
    """Write bytes to a device; give what it has now, and the errno, 0 if it took all of them."""
    total = intake.size + data.length
    ports = spec.mtty_ports
    if ports is not None and total > mtty_size(ports):
        return intake, ENOMEM
    head = intake.head
    complete = intake.complete
    if len(head) < MTTY_HEADER_SIZE and complete:
        head += data.head(MTTY_HEADER_SIZE - len(head))
        complete = len(head) >= min(total, MTTY_HEADER_SIZE)
    trail = blake2b(intake.trail + repr(data.key).encode(), digest_size=_TRAIL_SIZE).digest()
    taken = Intake(total, head, trail, complete)
    finishes_header = intake.size < MTTY_HEADER_SIZE <= total
    if ports is not None and finishes_header and complete and head != mtty_header(ports):
        return taken, EFAULT
    return taken, 0


def leave_resuming(spec: DeviceSpec, intake: Intake) -> int:
    """Let a device run with what it has; give the errno, 0 if it does."""
    if spec.mtty_ports is not None and intake.size < mtty_size(spec.mtty_ports):
        return EINVAL
    return 0
