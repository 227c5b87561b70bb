# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a bisected migration, as a capture and as a test for somebody's own suite."""

from __future__ import annotations

import textwrap
from base64 import b85encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zlib import compress

from mfdtool.errors import ScheduleError
from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.items import Item
from mfdtool.fixtures.migration import Migration
from mfdtool.fixtures.segments import Network, transmit
from mfdtool.loader.events import Connect, Deliver, End
from mfdtool.packets import pcapng
from mfdtool.schedule.acts import Take
from mfdtool.schedule.observation import Observation, observations_of
from mfdtool.schedule.schedule import Schedule
from mfdtool.schedule.set_field import with_field
from mfdtool.stream.connections import ScalarStreams
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.migration import Decoder

if TYPE_CHECKING:
    from mfdtool.explore.bisect import Candidate
    from mfdtool.explore.signature import Signature

_SEGMENT: Final = 32 << 10
"""Payload bytes of a segment: below what any capture program cuts."""

_WIDTH: Final = 80


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What is left, packet by packet in the order of arrival.

    ``is_closed`` if the source closes its connections at the end.
    """

    items: tuple[Item, ...]
    is_closed: bool

    def capture(self, *comments: str) -> bytes:
        """Write it as pcapng, with comments about the whole."""
        network = Network(segment_size=_SEGMENT, open_ended=not self.is_closed)
        return pcapng_bytes(transmit(Migration(self.items), network), comments=comments)

    def observation(self) -> Observation | None:
        """Decode the capture as a command does; None if it is not one migration any more."""
        view = memoryview(self.capture())
        decoder = Decoder(keep_extents=True)
        frames: list[Frame] = []
        for window in ScalarStreams(view, pcapng.read(view)).windows():
            frames += decoder.feed(window)
        frames += decoder.finish()
        found = observations_of(frames, decoder.migrations)
        return found[0] if len(found) == 1 else None

    def test(self, signature: Signature, sentence: str, destination: tuple[str, ...]) -> str:
        """Write it as a pytest file that builds the migration and judges it.

        ``destination`` are the ``--destination`` and ``--profile`` words that it was judged with.
        """
        words = ", ".join(repr(word) for word in destination)
        kind = signature.kind
        rule = (
            f"        assert {kind.rule_id!r} in [found['rule'] for found in verdict['findings']]"
        )
        test = _TEST.format(
            words=words, outcome=kind.outcome.value, rule=rule.strip() if kind.rule else ""
        )
        return self._module(sentence, ("json", "subprocess", "sys"), test)

    def command_test(self, command: str, sentence: str, *, timeout: float | None) -> str:
        """Write it as a pytest file that builds the migration and asks a command.

        A command that takes longer than ``timeout`` seconds calls it bad.
        """
        test = _COMMAND_TEST.format(command=command, timeout=timeout)
        return self._module(sentence, ("os", "shlex", "signal", "subprocess"), test)

    def _module(self, sentence: str, modules: tuple[str, ...], test: str) -> str:
        imports = "\n".join(f"import {module}" for module in modules)
        rows = "\n".join(_row(item) for item in self.items)
        made = _MIGRATION.format(
            sentence=sentence, imports=imports, rows=rows, open_ended=not self.is_closed
        )
        return f"{made}\n\n{test}".rstrip() + "\n"


def reproduction_of(candidate: Candidate) -> Reproduction:
    """Give the bytes of what is left.

    Raises:
        ScheduleError: the capture lacks some of them.
    """
    ends = [
        entry
        for lane in candidate.trace.lanes
        for entry in lane.entries
        if isinstance(entry.event, Deliver) and isinstance(entry.event.item, End)
    ]
    return Reproduction(tuple(_items(candidate)), bool(ends))


def schedule_of(candidate: Candidate, observation: Observation) -> Schedule:
    """Give a candidate's schedule for its reproduction, in which nothing is moved any more."""
    schedule, acts = candidate.schedule, candidate.schedule.acts
    if acts is not None:
        acts = tuple(Take(act.lane) if isinstance(act, Take) else act for act in acts)
    return Schedule(observation.trace.digest, schedule.pace, acts)


def _items(candidate: Candidate) -> Iterator[Item]:
    shrunk = candidate.shrunk
    spans = [
        _frames_of_entries(candidate, lane.name, number)
        for number, lane in enumerate(candidate.trace.lanes)
    ]
    channels = candidate.observation.migration.channels
    lengths = {channel.name: channel.stream.length for channel in channels}
    trace, schedule = candidate.trace, candidate.schedule
    for at, (_, entry) in zip(schedule.places(trace), schedule.arrivals(trace), strict=True):
        if at is None or entry is None:
            continue
        lane, place = at
        origin = shrunk.origin[lane][place]
        idx = shrunk.idx.get(origin)
        for frame in spans[lane].get(origin[1], ()):
            data = _bytes_of(frame, lengths[frame.channel.name], idx)
            yield Item(entry.channel, frame.kind, (), data)


def _frames_of_entries(candidate: Candidate, name: str, number: int) -> dict[int, list[Frame]]:
    """Give the frames whose bytes each entry of a channel consists of, by its place."""
    observation = candidate.observation
    lane = observation.trace.lanes[number]
    frames = observation.by_channel.get(name, ())
    starts: dict[int, int] = {}
    for place, entry in enumerate(lane.entries):
        is_main = lane.is_main and isinstance(entry.event, Connect)
        if entry.number is not None and not is_main:
            starts.setdefault(entry.number, place)
    spans: dict[int, list[Frame]] = {}
    place = -1
    for frame in frames:
        if frame.number is not None:
            place = starts.get(frame.number, place)
        if place >= 0:
            spans.setdefault(place, []).append(frame)
    return spans


def _bytes_of(frame: Frame, length: int, idx: int | None) -> bytes:
    """Give a frame's bytes, which end with the ``length`` bytes of its channel.

    Raises:
        ScheduleError: the capture lacks some of them.
    """
    data = frame.data()
    if frame.offset + len(data) < min(frame.end, length) or frame.kind is Kind.GAP:
        where = f"{frame.channel.name}#{frame.number}"
        raise ScheduleError(f"{where} is not whole in the capture, so it cannot be sent again")
    return data if idx is None else with_field(frame, data, "idx", str(idx))


def _row(item: Item) -> str:
    packed = b85encode(compress(item.payload, 9)).decode("ascii")
    lines = textwrap.wrap(packed, _WIDTH) or [""]
    text = "\n".join(f'        b"{line}"' for line in lines)
    return f'    (\n        "{item.channel}",\n        "{item.kind.value}",\n{text},\n    ),'


_MIGRATION: Final = """{sentence!r}

{imports}
from base64 import b85decode
from zlib import decompress

from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.items import Item
from mfdtool.fixtures.migration import Migration
from mfdtool.fixtures.segments import Network, transmit
from mfdtool.stream.frames import Kind

# Channel, kind and bytes (deflated, base 85) of each packet, in the order of arrival.
PACKETS = (
{rows}
)


NETWORK = Network(segment_size=32768, open_ended={open_ended})


def migration():
    return Migration(
        tuple(
            Item(channel, Kind(kind), (), decompress(b85decode(data)))
            for channel, kind, data in PACKETS
        )
    )
"""

_TEST: Final = """def test_what_the_destination_makes_of_it(tmp_path):
    capture = tmp_path / "cause.pcapng"
    capture.write_bytes(pcapng_bytes(transmit(migration(), NETWORK)))
    command = [sys.executable, "-m", "mfdtool", "replay", str(capture), "--json", {words}]
    result = subprocess.run(command, capture_output=True, check=False)
    verdict = json.loads(result.stdout)
    assert verdict["outcome"] == "{outcome}"
    {rule}
"""

_COMMAND_TEST: Final = """COMMAND = {command!r}


def test_that_it_is_still_bad(tmp_path):
    capture = tmp_path / "cause.pcapng"
    capture.write_bytes(pcapng_bytes(transmit(migration(), NETWORK)))
    line = f"{{COMMAND}} {{shlex.quote(str(capture))}}"
    with subprocess.Popen(line, shell=True, start_new_session=True) as process:
        try:
            status = process.wait({timeout})
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = 1
    assert 0 < status < 128
    assert status != 125, "the command cannot say"
"""
