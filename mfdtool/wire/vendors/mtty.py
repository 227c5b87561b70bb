# SPDX-License-Identifier: GPL-2.0-or-later
"""mtty: state of Linux's sample serial port (``samples/vfio-mdev/mtty.c``).

A header, which precopy gives already, and the two ports or the one that the device has. The driver
writes its structures as they are in memory; here they are read as on x86 and Arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from construct import Bytes, Int8ub, Int16ul, Int32ul, Int64ul, Padding, Struct

from mfdtool.wire.codec import Message, field
from mfdtool.wire.vendors.vendor import Confidence, Evidence, Guess, Record, Vendor, by_ids

if TYPE_CHECKING:
    from mfdtool.wire.vendors.cursor import Cursor
    from mfdtool.wire.vendors.vendor import FieldValue, Records

MAGIC: Final = 0x7E9D09898C3E2C4E
PORTS: Final = 2
DEVICE: Final = (0x4348, 0x3253)

_MAGIC: Final = MAGIC.to_bytes(8, "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class MttyHeader(Message):
    """What the state begins with."""

    SCHEMA = Struct(
        field("magic", Int64ul, "0x7e9d09898c3e2c4e"),
        field("major_ver", Int32ul, "1"),
        field("minor_ver", Int32ul, "0"),
        field("nr_ports", Int32ul, "1 or 2, as on the destination"),
        field("flags", Int32ul, "0"),
    )
    SOURCE = "samples/vfio-mdev/mtty.c:mtty_data"

    magic: int = MAGIC
    major_ver: int = 1
    minor_ver: int = 0
    nr_ports: int = PORTS
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialPort(Message):
    """A port."""

    SCHEMA = Struct(
        field("uart_reg", Bytes(8), "registers"),
        field("fifo", Bytes(16), "what was sent and not yet read"),
        field("head", Int8ub, "where the next byte goes"),
        field("tail", Int8ub, "where the next byte comes from"),
        field("count", Int8ub, "bytes in the FIFO"),
        field("dlab", Int8ub, "whether the divisor can be set"),
        field("overrun", Int8ub, "whether bytes were lost"),
        Padding(1),
        field("divisor", Int16ul, "of the baud rate"),
        field("fcr", Int8ub, "FIFO control register"),
        field("max_fifo_size", Int8ub, "bytes that the FIFO may hold"),
        field("intr_trigger_level", Int8ub, "bytes that raise an interrupt"),
        Padding(1),
    )
    SOURCE = "samples/vfio-mdev/mtty.c:serial_port"

    uart_reg: bytes = bytes(8)
    fifo: bytes = bytes(16)
    head: int = 0
    tail: int = 0
    count: int = 0
    dlab: int = 0
    overrun: int = 0
    divisor: int = 0
    fcr: int = 0
    max_fifo_size: int = 16
    intr_trigger_level: int = 0


HEADER_SIZE: Final = MttyHeader.SCHEMA.sizeof()
PORT_SIZE: Final = SerialPort.SCHEMA.sizeof()


def recognise(evidence: Evidence) -> Guess | None:
    """Look for the magic number; without data, at the device's ids."""
    if evidence.head.startswith(_MAGIC):
        return Guess(Confidence.CERTAIN, f"its data begins with the magic {MAGIC:#x}")
    return by_ids(evidence, (DEVICE,))


def decode(cursor: Cursor) -> Records:
    """Give the header and the ports."""
    header = MttyHeader.parse((yield from cursor.read(HEADER_SIZE)))
    yield Record(
        offset=0,
        length=HEADER_SIZE,
        header=HEADER_SIZE,
        name="header",
        fields=header.to_mapping(),
        problem=_problem(header),
    )
    for number in range(min(header.nr_ports, PORTS)):
        start = cursor.position
        port = SerialPort.parse((yield from cursor.read(PORT_SIZE)))
        yield Record(
            offset=start,
            length=PORT_SIZE,
            header=PORT_SIZE,
            name=f"port {number}",
            fields=_plain(port),
        )


def _problem(header: MttyHeader) -> str:
    """Say what any destination would refuse."""
    if header.magic != MAGIC:
        return f"the magic is not {MAGIC:#x}"
    if (header.major_ver, header.minor_ver) != (1, 0) or header.flags:
        return "the driver takes version 1.0 without flags only"
    return "" if 1 <= header.nr_ports <= PORTS else f"a device has 1 or {PORTS} ports"


def _plain(port: SerialPort) -> dict[str, FieldValue]:
    return {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in port.to_mapping().items()
    }


VENDOR: Final = Vendor(
    name="mtty",
    text="Linux's sample serial port",
    source="samples/vfio-mdev/mtty.c:mtty_data",
    recognise=recognise,
    decode=decode,
)
