# SPDX-License-Identifier: GPL-2.0-or-later
"""The proxy between real sockets: what arrives, what is recorded, and what happens in trouble."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, Final

import pytest

from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.fixtures.segments import transmit
from mfdtool.live.addresses import Address, TcpAddress, UnixAddress, connect
from mfdtool.live.proxy import pump, server, writer
from mfdtool.live.proxy.chunks import CHUNK
from mfdtool.live.proxy.recording import OnFull, RecordingOptions
from mfdtool.live.proxy.server import ProxyOptions
from mfdtool.packets.info import CaptureInfo
from mfdtool.packets.pcapng import read
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.connections import Opened, Opening, ScalarStreams
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.phases import Phase
from mfdtool.stream.reader import pieces_of
from mfdtool.stream.span import End, EndReason, Gap, Run
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.multifd import MultiFDInit
from tests.support.decoding import decode_scalar
from tests.support.proxying import LOCAL, LONG, Destination, running, send_all, wait_for

SECRET: Final = b"guest secret "
PLAN: Final = Plan(channels=3, devices=[Device(buffers=[SECRET * 7000, SECRET, SECRET * 90_000])])
MIGRATION: Final = assemble(PLAN)
STREAMS: Final = {name: MIGRATION.stream(name) for name in MIGRATION.connections}
RESET: Final = struct.pack("ii", 1, 0)


def options(**changes: Any) -> ProxyOptions:
    return ProxyOptions(**{"listen": LOCAL, "to": LOCAL, "stays": True, **changes})


def recorded(path: Path) -> tuple[list[tuple[bytes, int, EndReason | None]], CaptureInfo]:
    """Each client's stream as the file has it: bytes (gaps as nothing), missing, how it ended."""
    info = CaptureInfo()
    data = memoryview(path.read_bytes())
    streams = ScalarStreams(data, read(data, path=str(path), info=info))
    found: dict[int, list[Any]] = {}
    clients = set()
    for window in streams.windows():
        for flow, event in window.events:
            entry = found.setdefault(flow, [bytearray(), 0, None])
            if isinstance(event, Opened):
                # Where the disk was full a connection's beginning may be missing.
                if event.opening is not Opening.SYN_ACK:
                    clients.add(flow)
            elif isinstance(event, Run):
                for view in pieces_of(event, event.start, event.stop):
                    entry[0] += view
            elif isinstance(event, Gap):
                entry[1] += event.stop - event.start
            elif isinstance(event, End):
                entry[2] = event.reason
    return [
        (bytes(entry[0]), entry[1], entry[2])
        for flow, entry in sorted(found.items())
        if flow in clients
    ], info


def test_a_migration_arrives_and_is_recorded_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    answer = MIGRATION.stream("return-path")
    with running(path, options(), destination=Destination(answer=answer)) as setup:
        assert send_all(setup, STREAMS) == [answer] * len(STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert not setup.recording.losses
    streams, info = recorded(path)
    assert sorted(data for data, _, _ in streams) == sorted(STREAMS.values())
    assert {(missing, end) for _, missing, end in streams} == {(0, EndReason.FIN)}
    assert info.dropped == 0
    texts = [comment.text for comment in info.comments]
    assert sum("forwarded to tcp:127.0.0.1:" in text for text in texts) == len(STREAMS)
    assert any(text.endswith("machine type pc-i440fx-10.0") for text in texts)
    frames = decode_scalar(path.read_bytes())
    assert not any(frame.missing or frame.kind is Kind.UNDECODED for frame in frames)
    times = [frame.time_last for frame in frames]
    assert 0 < min(times) <= time.time_ns()
    assert setup.proxy.totals.migrations == 1
    progress = setup.proxy.progress()
    assert progress.phase is Phase.COMPLETION
    assert progress.device_packets == len(MIGRATION.device_packets())
    assert progress.moved == sum(map(len, STREAMS.values())) + len(answer) * len(STREAMS)


@pytest.mark.parametrize("digest", [False, True])
def test_redacted_there_are_headers_and_lengths_only(tmp_path: Path, *, digest: bool) -> None:
    path = tmp_path / "run.pcapng"
    with running(path, options(redact=True, digest=digest)) as setup:
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert not setup.recording.losses
    content = path.read_bytes()
    assert SECRET[:6] not in content
    assert len(content) < 40_000
    streams, info = recorded(path)
    # Every position is accounted for, seen or not.
    assert sorted(len(data) + missing for data, missing, _ in streams) == sorted(
        map(len, STREAMS.values())
    )
    assert described(content) == without_return_path(EXPECTED)
    digests = [text for text in (each.text for each in info.comments) if "sha256" in text]
    if digest:
        for buffer in PLAN.devices[0].buffers:
            assert f"sha256 {sha256(buffer).hexdigest()} of {len(buffer)} bytes" in digests
    else:
        assert not digests


def describe(frame: Frame) -> tuple[object, ...]:
    """What a decoder that lacks the payload must still tell."""
    value = frame.value
    if isinstance(value, DeviceState):
        # Redaction leaves bodies out.
        value = replace(value, holes=())
    return (frame.kind, str(frame.channel), frame.offset, frame.length, value)


def described(capture: bytes) -> set[tuple[object, ...]]:
    """All frames of a capture but its gaps."""
    return {describe(frame) for frame in decode_scalar(capture) if frame.kind is not Kind.GAP}


def without_return_path(frames: set[tuple[object, ...]]) -> set[tuple[object, ...]]:
    """What a destination that never answers leaves."""
    return {frame for frame in frames if frame[1] != "return-path"}


EXPECTED: Final = described(pcapng_bytes(transmit(MIGRATION)))


@pytest.mark.parametrize("redact", [False, True])
def test_whatever_the_pieces(tmp_path: Path, *, redact: bool) -> None:
    for size in (1000, 4097):
        path = tmp_path / "run.pcapng"
        with running(path, options(redact=redact)) as setup:
            send_all(setup, STREAMS, piece=size)
        assert sorted(setup.destination.received) == sorted(STREAMS.values())
        assert sum(len(d) + m for d, m, _ in recorded(path)[0]) == sum(map(len, STREAMS.values()))


@pytest.mark.parametrize("redact", [False, True])
def test_what_is_no_migration_passes_unchanged(tmp_path: Path, *, redact: bool) -> None:
    path = tmp_path / "run.pcapng"
    streams = {"a": Random(1).randbytes(600_000), "b": b"QE", "c": b"\x16\x03" + b"t" * 9000}
    with running(path, options(redact=redact), destination=Destination(answer=b"bye")) as setup:
        assert send_all(setup, streams, piece=7777) == [b"bye"] * 3
    assert sorted(setup.destination.received) == sorted(streams.values())
    found = recorded(path)[0]
    assert sum(len(data) + missing for data, missing, _ in found) == 609_004
    if redact:
        assert sum(len(data) for data, _, _ in found) == 4


@pytest.mark.parametrize(
    "pair",
    [("unix", "tcp"), ("tcp", "unix"), ("unix", "unix"), ("ipv6", "tcp"), ("ipv6", "ipv6")],
)
@pytest.mark.parametrize("redact", [False, True])
def test_addresses_of_all_kinds(tmp_path: Path, pair: tuple[str, str], *, redact: bool) -> None:
    def address(kind: str, name: str) -> Address:
        if kind == "unix":
            return UnixAddress(str(tmp_path / name))
        return TcpAddress("::1" if kind == "ipv6" else "127.0.0.1", 0)

    path = tmp_path / "run.pcapng"
    near, far = address(pair[0], "near"), address(pair[1], "far")
    with running(path, options(listen=near, redact=redact), destination=Destination(far)) as setup:
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert described(path.read_bytes()) == without_return_path(EXPECTED)
    assert not (tmp_path / "near").exists()


def test_half_close_and_the_end_after_the_first_migration(tmp_path: Path) -> None:
    destination = Destination(answer=b"after the end of the question")
    with running(tmp_path / "run.pcapng", options(stays=False), destination=destination) as setup:
        assert not setup.proxy.wait(0)
        assert send_all(setup, STREAMS) == [b"after the end of the question"] * len(STREAMS)
        assert setup.proxy.wait(LONG), "nothing left to do"


def test_a_second_migration_through_the_same_proxy(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    with running(path, options()) as setup:
        send_all(setup, STREAMS)
        wait_for(lambda: setup.proxy.progress().open == 0)
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted([*STREAMS.values()] * 2)
    frames = decode_scalar(path.read_bytes())
    assert {frame.channel.migration for frame in frames} == {0, 1}
    assert not any(frame.missing for frame in frames)


def test_255_channels(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    streams = {"main": STREAMS["main"]}
    for number in range(255):
        streams[str(number)] = MultiFDInit(id=number).build()
    with running(path, options()) as setup:
        send_all(setup, streams)
    assert sorted(setup.destination.received) == sorted(streams.values())
    found = recorded(path)[0]
    assert sorted(data for data, _, _ in found) == sorted(streams.values())
    assert {end for _, _, end in found} == {EndReason.FIN}


def test_100_strays_do_not_reach_the_destination(tmp_path: Path) -> None:
    with running(tmp_path / "run.pcapng", options(stays=False)) as setup:
        for number in range(100):
            stray = setup.connect()
            if number % 2:
                stray.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stray.close()
        send_all(setup, STREAMS)
        wait_for(lambda: setup.proxy.totals.strays == 100)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())


def test_a_silent_connection_is_forwarded_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_BYTES", 0.05)
    with running(tmp_path / "run.pcapng", options()) as setup, setup.connect() as silent:
        wait_for(lambda: setup.proxy.totals.connections == 1)
        silent.sendall(b"late")
    assert setup.destination.received == [b"late"]


def test_only_qemu(tmp_path: Path) -> None:
    with running(tmp_path / "run.pcapng", options(only_qemu=True)) as setup:
        with setup.connect() as other:
            other.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                other.recv(1)
        send_all(setup, STREAMS)
        assert setup.proxy.totals.refused == 1
    assert sorted(setup.destination.received) == sorted(STREAMS.values())


def test_no_destination(tmp_path: Path) -> None:
    said: list[str] = []
    destination = Destination()
    with running(tmp_path / "run.pcapng", options(), destination=destination) as setup:
        setup.proxy.report = said.append
        destination.close()
        for _ in range(2):
            with setup.connect() as client:
                client.sendall(b"QEVM")
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        wait_for(lambda: setup.proxy.totals.unreachable == 2)
    assert said == [f"cannot connect to {destination.address}: Connection refused"]


@pytest.mark.parametrize("redact", [False, True])
def test_a_reset_by_the_source_reaches_the_destination(tmp_path: Path, *, redact: bool) -> None:
    path = tmp_path / "run.pcapng"
    with running(path, options(redact=redact)) as setup:
        client = setup.connect()
        client.sendall(STREAMS["multifd-0"][:1000])
        wait_for(lambda: setup.proxy.progress().moved == 1000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        wait_for(lambda: len(setup.destination.received) == 1)
    assert setup.destination.failures == [errno.ECONNRESET]
    assert [end for _, _, end in recorded(path)[0]] == [EndReason.RST]


@pytest.mark.parametrize("redact", [False, True])
def test_a_reset_by_the_destination_reaches_the_source(tmp_path: Path, *, redact: bool) -> None:
    path = tmp_path / "run.pcapng"
    with running(path, options(redact=redact), destination=Destination(limit=500)) as setup:
        with setup.connect() as client, pytest.raises(OSError, match=r"reset|Broken pipe"):
            client.sendall(STREAMS["multifd-0"] + bytes(64 << 20))
        wait_for(lambda: setup.proxy.progress().open == 0)
    data = path.read_bytes()
    assert any(flags & 4 for flags in tcp_flags(data)), "a RST is in the file"


def tcp_flags(data: bytes) -> Iterator[int]:
    for record in read(memoryview(data)):
        yield data[record.offset + 33]


def test_a_source_that_is_gone_before_it_is_forwarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pcapng"
    with running(path, options()) as setup:
        client = setup.connect()

        def late(*arguments: Any, **named: Any) -> socket.socket:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return connect(*arguments, **named)

        monkeypatch.setattr(server, "connect", late)
        port = client.getsockname()[1]
        client.sendall(b"QEVM")
        wait_for(lambda: setup.proxy.totals.connections == 1 and not setup.proxy.progress().open)
    assert any(flags & 4 for flags in tcp_flags(path.read_bytes())), "a RST is in the file"
    assert f"127.0.0.1:{port} to tcp:".encode() in path.read_bytes()


def test_a_destination_that_hangs_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def hung_up(*arguments: Any, **named: Any) -> socket.socket:
        ours, theirs = socket.socket(), socket.create_server(("127.0.0.1", 0))
        with theirs:
            ours.connect(theirs.getsockname())
            accepted, _ = theirs.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            accepted.close()
        return ours

    monkeypatch.setattr(server, "connect", hung_up)
    with running(tmp_path / "run.pcapng", options()) as setup:
        setup.proxy.report = said.append
        with setup.connect() as client:
            client.sendall(b"QEVM")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        wait_for(lambda: setup.proxy.totals.unreachable == 1)
    assert said == [
        f"{setup.destination.address}: the destination hung up at once:"
        " Transport endpoint is not connected"
    ]


@pytest.mark.parametrize("started", [0, 1])
def test_no_thread_for_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    """One connection is refused, and the next one forwarded."""
    said: list[str] = []
    left = [started]

    class Scarce(Thread):
        def start(self) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise RuntimeError("can't start new thread")
            super().start()

    with running(tmp_path / "run.pcapng", options()) as setup:
        setup.proxy.report = said.append
        monkeypatch.setattr(server, "Thread", Scarce)
        with setup.connect() as client, suppress(OSError):
            client.sendall(b"QEVM")
            assert not client.recv(1)
        wait_for(lambda: bool(said) and setup.proxy.progress().open == 0)
        send_all(setup, STREAMS)
    assert said == ["cannot serve a connection: can't start new thread"]
    assert set(STREAMS.values()) <= set(setup.destination.received)


@pytest.mark.parametrize("redact", [False, True])
def test_a_stalled_reader_holds_its_own_channel_only(tmp_path: Path, *, redact: bool) -> None:
    go_on = Event()
    stalled = MultiFDInit(id=9).build() + bytes(200) + b"x" * (64 << 20)
    with running(
        tmp_path / "run.pcapng", options(redact=redact), destination=Destination(stall=go_on)
    ) as setup:
        setup.destination.stalls = stalled[:64]
        client = setup.connect()
        sender = Thread(target=client.sendall, args=(stalled,), daemon=True)
        sender.start()
        wait_for(lambda: setup.proxy.progress().moved >= 64)
        send_all(setup, STREAMS)
        assert sender.is_alive(), "the source feels the stalled reader"
        go_on.set()
        sender.join(LONG)
        client.close()
    assert stalled in setup.destination.received
    assert not setup.recording.losses


def test_the_rate_is_limited(tmp_path: Path) -> None:
    begun = time.monotonic()
    with running(tmp_path / "run.pcapng", options(limit_rate=4e6)) as setup:
        send_all(setup, {"a": bytes(1 << 20)})
    assert time.monotonic() - begun > 0.2
    assert setup.destination.received == [bytes(1 << 20)]


def test_an_abort_does_not_wait_for_a_rate(tmp_path: Path) -> None:
    """The second piece of 4 KiB is due in more than an hour."""
    with running(tmp_path / "run.pcapng", options(limit_rate=1)) as setup:
        client = setup.connect()
        client.sendall(bytes(9000))
        wait_for(lambda: setup.proxy.progress().moved > 0)
        setup.proxy.abort()
        assert setup.proxy.wait(LONG)
        client.close()


def test_an_abort_ends_everything(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    with running(path, options()) as setup:
        client = setup.connect()
        client.sendall(STREAMS["main"][:100])
        wait_for(lambda: setup.proxy.progress().moved == 100)
        assert setup.proxy.progress().channels == {ChannelKind.MAIN: 1}
        setup.proxy.stop()
        assert not setup.proxy.wait(0.05), "the connection goes on"
        setup.proxy.abort()
        assert setup.proxy.wait(LONG)
        client.close()
    assert recorded(path)[0][0][0] == STREAMS["main"][:100]


def test_an_abort_ends_a_connection_that_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = socket.socket.accept
    with running(tmp_path / "run.pcapng", options()) as setup:

        def accept_late(listener: socket.socket) -> tuple[socket.socket, Any]:
            accepted = accept(listener)
            setup.proxy.abort()
            return accepted

        monkeypatch.setattr(socket.socket, "accept", accept_late)
        with setup.connect() as client, suppress(ConnectionResetError):
            client.settimeout(LONG)
            assert client.recv(1) == b""


# A recorder in trouble


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let nothing be written from the second megabyte on; give what makes room again."""
    real = os.pwritev
    room = [1 << 20]

    def pwritev(file: int, buffers: Sequence[Any], offset: int) -> int:
        data = b"".join(bytes(buffer) for buffer in buffers)[: max(room[0] - offset, 0)]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, [data], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(writer, "RETRY", 0.01)
    return lambda: room.__setitem__(0, 1 << 40)


BULK: Final = {str(n): MultiFDInit(id=n).build() + bytes([n]) * (16 << 20) for n in range(3)}


def test_a_full_disk_does_not_stop_the_migration(
    tmp_path: Path, full_disk: Callable[[], None]
) -> None:
    del full_disk
    path = tmp_path / "run.pcapng"
    with running(path, options()) as setup:
        send_all(setup, BULK)
    assert sorted(setup.destination.received) == sorted(BULK.values())
    losses = setup.recording.losses
    assert losses.frames > 0
    assert losses.reason == "No space left on device"
    found, info = recorded(path)
    assert sum(len(data) for data, _, _ in found) + losses.bytes == sum(map(len, BULK.values()))
    assert info.dropped == losses.frames
    assert str(losses) in [comment.text for comment in info.comments]


def test_a_full_disk_holds_the_migration_if_that_is_wanted(
    tmp_path: Path, full_disk: Callable[[], None]
) -> None:
    path = tmp_path / "run.pcapng"
    kept = RecordingOptions(on_full=OnFull.BLOCK, buffer=2 * CHUNK)
    with running(path, options(), kept) as setup:
        sender = Thread(target=send_all, args=(setup, BULK), daemon=True)
        sender.start()
        wait_for(lambda: setup.proxy.progress().moved > 1 << 19)
        sender.join(0.2)
        assert sender.is_alive()
        full_disk()
        sender.join(LONG)
        assert not sender.is_alive()
    assert not setup.recording.losses
    assert sorted(data for data, _, _ in recorded(path)[0]) == sorted(BULK.values())


def test_a_hanging_disk_does_not_stop_the_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    hangs, go_on = Event(), Event()

    def pwritev(file: int, buffers: Sequence[Any], offset: int) -> int:
        hangs.set()
        assert go_on.wait(2 * LONG)
        return real(file, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    path = tmp_path / "run.pcapng"
    small = RecordingOptions(buffer=4 * CHUNK)
    with running(path, options(), small, is_patient=False) as setup:
        send_all(setup, BULK)
        assert hangs.wait(LONG)
        go_on.set()
    assert sorted(setup.destination.received) == sorted(BULK.values())
    losses = setup.recording.losses
    assert losses.cut > 0
    assert losses.frames == 0
    assert losses.reason == "the file is slower than the migration"
    found, _ = recorded(path)
    # What is not there is known to be missing, to the byte.
    assert sum(missing for _, missing, _ in found) == losses.bytes
    assert sorted(len(data) + missing for data, missing, _ in found) == sorted(
        map(len, BULK.values())
    )


@pytest.mark.parametrize(
    ("name", "redact"),
    [("Follower.follow", False), ("Follower.feed", True), ("Follower.take_parts", True)],
)
def test_a_mistake_in_the_recorder_does_not_stop_the_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, redact: bool
) -> None:
    owner, _, method = name.partition(".")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(getattr(pump, owner), method, fail)
    with running(tmp_path / "run.pcapng", options(redact=redact)) as setup:
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert "the recorder failed: RuntimeError('a mistake')" in str(setup.recording.losses)


def test_a_mistake_in_the_writer_does_not_stop_the_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    with running(tmp_path / "run.pcapng", options()) as setup:
        monkeypatch.setattr(writer.Entry, "block", fail)
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    losses = setup.recording.losses
    assert losses.frames > 0
    assert "a mistake" in losses.reason


def test_sockets_that_cannot_be_spliced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def splice(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "splice", splice)
    with running(tmp_path / "run.pcapng", options(redact=True)) as setup:
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert SECRET[:6] not in (tmp_path / "run.pcapng").read_bytes()
