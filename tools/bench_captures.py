# SPDX-License-Identifier: GPL-2.0-or-later
"""Write large captures of multifd migrations, for benchmarks.

    python tools/bench_captures.py nic --size 1G --output nic.pcap

A capture has a main stream and multifd channels (device packets only), from handshake to FIN,
with the receiver's acknowledgements. Sequence numbers begin just below 2**32, so they wrap.
TCP checksums of device packets are 0, as in captures of senders with checksum offload. The same
options give the same file.

kinds:
  nic    1448-byte segments of 1 MiB device packets
  lo     the same packets in loopback segments of 32 and 64 KB
  ooo    nic with losses, retransmissions and reordering
  small  1448-byte segments of device packets with 100 bytes
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from mfdtool.capture.source import open_capture
from mfdtool.packets import pcap, pcapng_build
from mfdtool.packets.info import Interface
from mfdtool.packets.ip import IPV4_SIZE, TCP_SIZE, TcpHeader, tcp_packet
from mfdtool.packets.link import ETHERNET_SIZE, EtherType, LinkType, ethernet
from mfdtool.packets.values import TCP_ACK, TCP_FIN, TCP_PSH, TCP_SYN, Endpoint, FlowKey
from mfdtool.stream.bulk import BulkStreams
from mfdtool.stream.span import Run
from mfdtool.wire.constants import IDSTR_SIZE, SectionType
from mfdtool.wire.main_stream import Configuration, FileHeader
from mfdtool.wire.multifd import MultiFDInit
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

MTU_PAYLOAD: Final = 1448
LOOPBACK_PAYLOADS: Final = (65_483, 32_741)
MIB: Final = 1 << 20
SMALL: Final = 100
TIMESTAMP_OPTION: Final = bytes.fromhex("0101080a" + "00" * 8)
TCP_AT: Final = ETHERNET_SIZE + IPV4_SIZE
SEQUENCE_AT: Final = TCP_AT + 4
CHECKSUM_AT: Final = TCP_AT + 16
PAYLOAD_AT: Final = TCP_AT + TCP_SIZE + len(TIMESTAMP_OPTION)
DEVICE: Final = b"0000:00:05.0/vfio"
FIRST_SEQUENCE: Final = (1 << 32) - 3 * MIB
START_NS: Final = 1_700_000_000 * 10**9
STEP_NS: Final = 1_200
ACK_EVERY: Final = 4
BURST_BYTES: Final = 128 << 10
UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

SOURCE: Final = bytes((192, 0, 2, 1))
DESTINATION: Final = bytes((192, 0, 2, 2))
PORT: Final = 4444


@dataclass(frozen=True, slots=True)
class Kind:
    """What a capture looks like: payloads of its segments, bytes of device data per packet."""

    payloads: tuple[int, ...]
    data_size: int
    disorder: bool = False


KINDS: Final = {
    "nic": Kind((MTU_PAYLOAD,), MIB),
    "lo": Kind(LOOPBACK_PAYLOADS, MIB),
    "ooo": Kind((MTU_PAYLOAD,), MIB, disorder=True),
    "small": Kind((MTU_PAYLOAD,), SMALL),
}


class Recorder:
    """Writes records of either format, each `STEP_NS` after the one before."""

    def __init__(self, file: BinaryIO, *, is_pcapng: bool) -> None:
        self._file = file
        self._is_pcapng = is_pcapng
        self._time_ns = START_NS
        self.size = 0
        if is_pcapng:
            interface = Interface(0, LinkType.ETHERNET, name="bench0")
            self._write(pcapng_build.section_header(application="mfdtool bench_captures"))
            self._write(pcapng_build.interface_description(interface))
        else:
            self._write(pcap.file_header(linktype=LinkType.ETHERNET))

    def frame(self, frame: bytes) -> None:
        """Write one frame."""
        self._write(self._ends(frame)[0])
        self._time_ns += STEP_NS

    def frames(self, frame: bytes, count: int) -> Bytes:
        """Make ``count`` records of the same frame, one a row, without times."""
        record, _ = self._ends(frame)
        return np.tile(np.frombuffer(record, dtype=np.uint8), (count, 1))

    def head_size(self, frame: bytes) -> int:
        """Give where in its record a frame begins."""
        return self._ends(frame)[1]

    def rows(self, rows: Bytes, acks: Bytes) -> None:
        """Write records, after each `ACK_EVERY` of them one of ``acks``; sets their times."""
        units = min(len(rows) // ACK_EVERY, len(acks))
        grouped = units * ACK_EVERY
        step = np.arange(len(rows)) + np.minimum(np.arange(len(rows)) // ACK_EVERY, units)
        self._stamp(rows, step)
        self._stamp(acks[:units], np.arange(units) * (ACK_EVERY + 1) + ACK_EVERY)
        wide = rows[:grouped].reshape(units, ACK_EVERY * rows.shape[1])
        block = np.hstack([wide, acks[:units]])
        self._write(block.tobytes())
        self._write(rows[grouped:].tobytes())
        self._time_ns += (len(rows) + units) * STEP_NS

    def _stamp(self, rows: Bytes, steps: NDArray[np.int64]) -> None:
        times = self._time_ns + steps * STEP_NS
        if self._is_pcapng:
            words, at = (times >> 32, times & 0xFFFF_FFFF), 12
        else:
            words, at = (times // 10**9, times % 10**9), 0
        for index, word in enumerate(words):
            place = at + 4 * index
            rows[:, place : place + 4] = word.astype("<u4").view(np.uint8).reshape(-1, 4)

    def _ends(self, frame: bytes) -> tuple[bytes, int]:
        if self._is_pcapng:
            head, tail = pcapng_build.enhanced_packet_ends(
                ticks=self._time_ns, captured=len(frame), original=len(frame)
            )
            return head + frame + tail, len(head)
        record = pcap.record(frame, time_ns=self._time_ns)
        return record, pcap.RECORD_HEADER_SIZE

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)


class Connection:
    """One TCP connection from the source to the destination."""

    def __init__(self, recorder: Recorder, *, index: int) -> None:
        client, server = Endpoint(SOURCE, 40_000 + index), Endpoint(DESTINATION, PORT)
        self._recorder = recorder
        self._flow = FlowKey(client, server)
        self._next = FIRST_SEQUENCE + index * (MIB // 16)
        self._peer_next = 1_000_000 * (index + 1)
        self._late: list[Bytes] = []

    def open(self) -> None:
        """Write the handshake."""
        self._say(TCP_SYN)
        self._answer(TCP_SYN | TCP_ACK)
        self._say(TCP_ACK)

    def close(self) -> None:
        """Write both FINs."""
        self._say(TCP_FIN | TCP_ACK)
        self._answer(TCP_FIN | TCP_ACK)
        self._say(TCP_ACK)

    def send(self, data: bytes) -> None:
        """Write a few bytes, in segments of `MTU_PAYLOAD`, and the acknowledgement."""
        for row in self._late:
            self._recorder.rows(row, row[:0])
        self._late.clear()
        for start in range(0, len(data), MTU_PAYLOAD):
            self._say(TCP_ACK | TCP_PSH, data[start : start + MTU_PAYLOAD])
        self._answer(TCP_ACK)

    def send_block(self, data: Bytes, payload: int, disorder: Random | None) -> None:
        """Write bytes in segments of ``payload``, of which ``data`` is a multiple."""
        count = len(data) // payload
        frame = self._frame(self._flow, TCP_ACK, self._next, self._peer_next, bytes(payload))
        rows = self._recorder.frames(frame, count)
        head = self._recorder.head_size(frame)
        after = self._next + payload * np.arange(1, count + 1)
        _put(rows, head + SEQUENCE_AT, after - payload)
        rows[:, head + CHECKSUM_AT : head + CHECKSUM_AT + 2] = 0
        at = head + PAYLOAD_AT
        rows[:, at : at + payload] = data.reshape(count, payload)

        answer = self._frame(self._flow.reversed(), TCP_ACK, self._peer_next, 0, b"")
        acks = self._recorder.frames(answer, count // ACK_EVERY)
        _put(
            acks,
            self._recorder.head_size(answer) + SEQUENCE_AT + 4,
            after[ACK_EVERY - 1 :: ACK_EVERY],
        )
        self._next += len(data)
        if disorder is not None:
            rows = self._disorder(rows, disorder)
        self._recorder.rows(rows, acks)

    def _disorder(self, rows: Bytes, random: Random) -> Bytes:
        """Send late what an earlier burst lost, lose something, and mix up neighbours."""
        order = list(range(len(rows)))
        late, self._late = self._late, []
        if random.random() < 0.05:
            lost = order.pop(random.randrange(len(order)))
            # One in a hundred is not in the capture at all.
            if random.random() > 0.01:
                self._late.append(rows[lost : lost + 1])
        if random.random() < 0.05:
            at = random.randrange(len(order) - 1)
            order[at], order[at + 1] = order[at + 1], order[at]
        if random.random() < 0.02:
            order.append(random.choice(order))
        return np.vstack([rows[order], *late])

    def _say(self, flags: int, payload: bytes = b"") -> None:
        frame = self._frame(self._flow, flags, self._next, self._peer_next, payload)
        self._recorder.frame(frame)
        self._next += len(payload) + bool(flags & (TCP_SYN | TCP_FIN))

    def _answer(self, flags: int) -> None:
        flow = self._flow.reversed()
        self._recorder.frame(self._frame(flow, flags, self._peer_next, self._next, b""))
        self._peer_next += bool(flags & (TCP_SYN | TCP_FIN))

    def _frame(self, flow: FlowKey, flags: int, sequence: int, ack: int, payload: bytes) -> bytes:
        header = TcpHeader(flow, sequence, ack, flags, options=TIMESTAMP_OPTION)
        packet = tcp_packet(header, payload)
        return ethernet(packet, ethertype=EtherType.IPV4)


class DevicePackets:
    """The endless stream of one multifd channel; ``indexes`` holds the next idx of all."""

    def __init__(self, channel: int, data_size: int, random: Random, indexes: list[int]) -> None:
        self._init = MultiFDInit(id=channel).build()
        header = DeviceStateHeader(
            idstr=DEVICE.ljust(IDSTR_SIZE, b"\0"), next_packet_size=12 + data_size, idx=0
        ).build()
        self._idx_at = len(header) - 8
        packet = header + random.randbytes(data_size)
        self._per_chunk = max(1, MIB // len(packet))
        self._packet = np.frombuffer(packet, dtype=np.uint8)
        self._indexes = indexes
        self._chunks = self._read_chunks()
        self._rest = next(self._chunks)

    def take(self, count: int) -> Bytes:
        """Give the next bytes."""
        while len(self._rest) < count:
            self._rest = np.concatenate([self._rest, next(self._chunks)])
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def take_rest(self) -> bytes:
        """Give the bytes up to the end of a packet."""
        return self._rest.tobytes()

    def _read_chunks(self) -> Iterator[Bytes]:
        yield np.frombuffer(self._init, dtype=np.uint8)
        while True:
            rows = np.tile(self._packet, (self._per_chunk, 1))
            _put(rows, self._idx_at, self._indexes[0] + np.arange(self._per_chunk))
            self._indexes[0] += self._per_chunk
            yield rows.reshape(-1)


def write_capture(
    recorder: Recorder, kind: Kind, *, size: int, channels: int, main: bytes, seed: int
) -> None:
    """Write a capture of about ``size`` bytes."""
    random = Random(seed)
    connections = [Connection(recorder, index=index) for index in range(channels + 1)]
    indexes = [0]
    streams = [
        DevicePackets(channel, kind.data_size, random, indexes) for channel in range(channels)
    ]
    for connection in connections:
        connection.open()
    connections[0].send(main)
    turn = 0
    while recorder.size < size:
        channel = turn % channels
        payload = kind.payloads[turn // channels % len(kind.payloads)]
        count = max(BURST_BYTES // payload, 1)
        data = streams[channel].take(count * payload)
        connections[1 + channel].send_block(data, payload, random if kind.disorder else None)
        turn += 1
    for connection, stream in zip(connections[1:], streams, strict=True):
        connection.send(stream.take_rest())
    for connection in connections:
        connection.close()


def small_main_stream() -> bytes:
    """Build a main stream without any section."""
    parts = (FileHeader().build(), Configuration(name="pc-i440fx-10.0").build())
    return b"".join(parts) + bytes([SectionType.EOF])


def main_stream_of(path: Path) -> bytes:
    """Take the main stream out of a capture: the first stream that begins as one."""
    with open_capture(path) as source:
        streams: dict[int, list[bytes]] = {}
        for window in BulkStreams(source.view).windows():
            for flow, event in window.events:
                if isinstance(event, Run):
                    starts = [*map(int, event.starts), event.stop]
                    for index, offset in enumerate(map(int, event.offsets)):
                        length = starts[index + 1] - starts[index]
                        part = bytes(source.view[offset : offset + length])
                        streams.setdefault(flow, []).append(part)
    for parts in streams.values():
        if parts[0].startswith(b"QEVM"):
            return b"".join(parts)
    raise SystemExit(f"{path}: no main stream in there")


def parse_size(text: str) -> int:
    """Parse ``1500M`` and the like."""
    unit = UNITS.get(text[-1:].upper())
    return int(text[:-1]) * unit if unit else int(text)


def _put(rows: Bytes, at: int, values: NDArray[Any]) -> None:
    """Put a big-endian 32-bit number into each row."""
    numbers = (values & 0xFFFF_FFFF).astype(">u4")
    rows[:, at : at + 4] = numbers.view(np.uint8).reshape(-1, 4)


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--size", type=parse_size, default=1 << 30, help="for example 500M")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--main-from", type=Path, help="take the main stream from this capture")
    parser.add_argument("--output", type=Path, required=True, help="*.pcapng for that format")
    options = parser.parse_args()
    stream = main_stream_of(options.main_from) if options.main_from else small_main_stream()
    with options.output.open("wb") as file:
        recorder = Recorder(file, is_pcapng=options.output.suffix == ".pcapng")
        write_capture(
            recorder,
            KINDS[options.kind],
            size=options.size,
            channels=options.channels,
            main=stream,
            seed=options.seed,
        )


if __name__ == "__main__":
    main()
