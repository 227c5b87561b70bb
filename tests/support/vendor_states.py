# SPDX-License-Identifier: GPL-2.0-or-later
"""States as drivers write them, put together of the wire package's own messages."""

from __future__ import annotations

from mfdtool.wire.vendors.cursor import Located, RecordReader
from mfdtool.wire.vendors.framed import RecordHeader
from mfdtool.wire.vendors.hisi_acc import MAGIC_V2, MatchData, QueueState
from mfdtool.wire.vendors.mtty import MttyHeader, SerialPort
from mfdtool.wire.vendors.vendor import Record, Vendor

MTTY = MttyHeader().build() + SerialPort(uart_reg=b"\1" * 8).build() + SerialPort(head=3).build()
HISI_ACC = MatchData(dev_id=0xA256, qp_num=8).build() + QueueState(eqe_dma=0x1000).build()
assert HISI_ACC.startswith(MAGIC_V2.to_bytes(8, "little"))


def framed(*records: tuple[int, int, bytes]) -> bytes:
    """Give records of tag, flags and payload."""
    return b"".join(
        RecordHeader(record_size=len(data), flags=flags, tag=tag).build() + data
        for tag, flags, data in records
    )


MLX5 = framed((1, 1, (5000).to_bytes(8, "little")), (0, 0, bytes(300)), (0, 0, bytes(5000)))
VIRTIO = framed((0, 0, bytes(700)), (0, 0, b""), (0, 0, bytes(33)))


def locate(vendor: Vendor, pieces: list[bytes | int | None]) -> list[Located]:
    """Decode pieces, each from a place named after its number; numbers and None are holes."""
    reader = RecordReader(vendor.decode)
    found: list[Located] = []
    for number, piece in enumerate(pieces):
        if isinstance(piece, bytes):
            found += reader.feed(piece, f"@{number}")
        else:
            found += reader.feed_hole(piece, f"hole {number}")
    found += reader.finish()
    return found


def records(vendor: Vendor, *pieces: bytes | int | None) -> list[Record]:
    """Decode pieces; give the records alone."""
    return [located.record for located in locate(vendor, list(pieces))]
