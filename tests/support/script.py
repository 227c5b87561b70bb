# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures as scripts: who connects, who sends what, in which order."""

from __future__ import annotations

from typing import Final

from mfdtool.packets.values import Endpoint, FlowKey
from mfdtool.stream.connections import FlowEvent, Opened, Opening, Window
from mfdtool.stream.frames import Frame
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import End, EndReason, Gap, Run, run_of

SERVER: Final = Endpoint(bytes([127, 0, 0, 1]), 4444)
CLIENT: Final = Endpoint(bytes([127, 0, 0, 1]), 40_000)


class Script:
    """A capture in the making; each call is one record."""

    def __init__(self) -> None:
        self.record = 0
        self._events: list[tuple[int, FlowEvent]] = []
        self._fed: dict[int, int] = {}
        self._keys: dict[int, FlowKey] = {}

    def connect(
        self, server: Endpoint = SERVER, *, opening: Opening = Opening.SYN, data: bytes = b""
    ) -> int:
        """Open a connection; give the flow of the side that connects."""
        flow = 2 * len(self._keys)
        client = Endpoint(CLIENT.address, CLIENT.port + flow)
        self._keys[flow] = FlowKey(client, server)
        self._open(flow, opening)
        if data:
            self.send(flow, data)
        return flow

    def send(self, flow: int, data: bytes, *, pieces: int = 1) -> None:
        """Send bytes, in so many records."""
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            part = data[at : at + size]
            start = self._fed[flow]
            record = self._next()
            run = run_of(part, start=start, record=record, time_ns=10 * record)
            self._fed[flow] = run.stop
            self._note(flow, run)

    def answer(self, flow: int, data: bytes, *, opening: Opening = Opening.SYN_ACK) -> None:
        """Send bytes the other way."""
        if flow ^ 1 not in self._fed:
            self._open(flow ^ 1, opening)
        self.send(flow ^ 1, data)

    def lose(self, flow: int, count: int) -> None:
        """Let the capture lack some bytes."""
        start = self._fed[flow]
        self._fed[flow] = start + count
        self._note(flow, Gap(start, start + count, "segment missing"))

    def close(self, flow: int, reason: EndReason = EndReason.FIN) -> None:
        """End a flow."""
        record = self._next()
        self._note(flow, End(self._fed.pop(flow), reason, record, 10 * record))

    def play(self, decoder: Decoder, *, every: int = 1) -> list[Frame]:
        """Decode in windows of ``every`` events; flows that are open end with the capture."""
        for flow in sorted(self._fed):
            self.close(flow, EndReason.CAPTURE)
        frames: list[Frame] = []
        for at in range(0, len(self._events), every):
            chosen = self._events[at : at + every]
            events = tuple(event for _, event in chosen)
            frames += decoder.feed(Window(events, chosen[-1][0], None))
        return frames + decoder.finish()

    def _open(self, flow: int, opening: Opening) -> None:
        key = self._keys[flow & ~1]
        key = key.reversed() if flow & 1 else key
        record = self._next()
        self._fed[flow] = 0
        self._note(flow, Opened(key, opening, record, 10 * record))

    def _next(self) -> int:
        self.record += 1
        return self.record

    def _note(self, flow: int, event: Opened | Run | Gap | End) -> None:
        self._events.append((self.record, FlowEvent(flow, event)))
