# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP segments as arrays, those of a window of records at once.

The outcome is that of `ip.segment_of`: a test holds this module to it. Arrays take the plain
cases: IPv4 without options and IPv6 without extension headers, behind an Ethernet header (with
at most one VLAN tag), a Linux or BSD one, or none. Everything else goes to that function, one
record at a time.

No payload is touched: what is gathered are the first bytes of each frame.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mfdtool.packets.bulk_records import gather
from mfdtool.packets.ip import IPV4_SIZE, IPV6_SIZE, TCP_SIZE, IpProtocol, segment_of
from mfdtool.packets.link import (
    BSD_FAMILIES,
    BSD_SIZE,
    ETHERNET_SIZE,
    IP_TYPES,
    SLL2_SIZE,
    SLL_SIZE,
    VLAN_SIZE,
    VLAN_TYPES,
    LinkType,
    Skip,
)
from mfdtool.packets.values import Endpoint, FlowKey, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from mfdtool.packets.bulk_records import Bools, Ints, RecordColumns

HEAD: Final = SLL2_SIZE + IPV6_SIZE + TCP_SIZE
"""How much of a frame is looked at: the longest headers that arrays take."""

_FRAGMENT: Final = 0x3FFF
"""More fragments, or a fragment offset."""

_MULTIPLIERS: Final = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
"""Odd numbers that spread the bits of a flow's key (Knuth; xxHash)."""

_BSD_FAMILIES: Final = [
    int.from_bytes(family.to_bytes(4, order), "big")
    for family in sorted(BSD_FAMILIES)
    for order in ("little", "big")
]

_MAX_KEYS: Final = 1 << 14
"""Flows whose key is kept for later windows."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentColumns:
    """TCP segments in record order, one column per field of `Segment`.

    ``flow`` are indices into ``flows``.
    """

    flows: list[FlowKey]
    flow: Ints
    record: Ints
    time_ns: Ints
    sequence: Ints
    acknowledgement: Ints
    flags: Ints
    offset: Ints
    captured: Ints
    length: Ints

    def __len__(self) -> int:
        return len(self.record)

    def segment(self, index: int) -> Segment:
        """Give one of the segments."""
        return Segment(
            record=int(self.record[index]),
            time_ns=int(self.time_ns[index]),
            flow=self.flows[self.flow[index]],
            sequence=int(self.sequence[index]),
            acknowledgement=int(self.acknowledgement[index]),
            flags=int(self.flags[index]),
            offset=int(self.offset[index]),
            captured=int(self.captured[index]),
            length=int(self.length[index]),
        )


class SegmentReader:
    """Finds the TCP segments of one capture, window by window.

    Attributes:
        skipped: how many records gave no segment, and why.
    """

    def __init__(self, buffer: memoryview) -> None:
        self.skipped: Counter[Skip] = Counter()
        self._buffer = buffer
        self._keys: dict[bytes, FlowKey] = {}

    def read(self, records: RecordColumns) -> SegmentColumns:
        """Give the segments in these records."""
        heads = gather(self._buffer, records.offset, HEAD)
        ip_at = _find_ip(heads, records)
        left = np.ones(len(records), dtype=np.bool_)
        parts: list[SegmentColumns] = []
        for at in _distinct(ip_at):
            if at == _UNKNOWN:
                continue
            for version in _VERSIONS:
                table = heads.view(_layout(at, version))
                tcp = _is_plain_tcp(table, records.captured, version, at=at) & (ip_at == at)
                if tcp.any():
                    parts.append(
                        self._segments(table, records, np.flatnonzero(tcp), version, at=at)
                    )
                    left &= ~tcp
        if left.any():
            parts.append(self._read_one_by_one(records, np.flatnonzero(left)))
        return _merge(parts)

    def _segments(
        self,
        table: NDArray[Any],
        records: RecordColumns,
        rows: Ints,
        version: _Version,
        *,
        at: int,
    ) -> SegmentColumns:
        """Give the segments of records of one kind."""
        whole = len(rows) == len(records)
        table = table if whole else table[rows]
        record, start, captured, time_ns = (
            column if whole else column[rows]
            for column in (
                np.arange(records.first, records.first + len(records)),
                records.offset,
                records.captured,
                records.time_ns,
            )
        )
        end, payload = _extent(table, version, at=at)
        flows, flow = self._flows(table["key"])
        return SegmentColumns(
            flows=flows,
            flow=flow,
            record=record,
            time_ns=time_ns,
            sequence=table["sequence"].astype(np.int64),
            acknowledgement=table["acknowledgement"].astype(np.int64),
            flags=table["flags"].astype(np.int64),
            offset=start + np.minimum(payload, captured),
            captured=np.maximum(np.minimum(end, captured) - payload, 0),
            length=end - payload,
        )

    def _flows(self, keys: NDArray[np.void]) -> tuple[list[FlowKey], Ints]:
        """Number the flows of addresses and ports as they are in the packets.

        Sorting by a 16-bit hash takes a few passes over the data; where it falls together for
        two flows, one flow has several numbers.
        """
        words = np.ascontiguousarray(keys).view(np.uint32).reshape(len(keys), -1)
        columns = words.T
        mixed = np.zeros(len(keys), dtype=np.uint32)
        for index, column in enumerate(columns):
            mixed = (mixed ^ column) * np.uint32(_MULTIPLIERS[index % len(_MULTIPLIERS)])
        order = (mixed >> np.uint32(16)).astype(np.uint16).argsort(kind="stable")
        differs = np.zeros(len(keys), dtype=np.bool_)
        for column in columns:
            ordered = column[order]
            differs[1:] |= ordered[1:] != ordered[:-1]
        numbers = np.empty(len(keys), dtype=np.int64)
        numbers[order] = differs.cumsum()
        firsts = order[np.flatnonzero(differs)].tolist()
        firsts.insert(0, int(order[0]))
        return [self._key(keys[first].tobytes()) for first in firsts], numbers

    def _key(self, packed: bytes) -> FlowKey:
        """Unpack the addresses and ports of a flow."""
        key = self._keys.get(packed)
        if key is None:
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            size = len(packed) // 2 - 2
            ports = (int.from_bytes(packed[at : at + 2], "big") for at in (2 * size, 2 * size + 2))
            addresses = packed[:size], packed[size : 2 * size]
            source, destination = map(Endpoint, addresses, ports)
            key = self._keys[packed] = FlowKey(source, destination)
        return key

    def _read_one_by_one(self, records: RecordColumns, rows: Ints) -> SegmentColumns:
        segments: list[Segment] = []
        for row in rows.tolist():
            found = segment_of(records.record(row), self._buffer)
            if isinstance(found, Skip):
                self.skipped[found] += 1
            else:
                segments.append(found)
        numbers: dict[FlowKey, int] = {}
        flow = [numbers.setdefault(segment.flow, len(numbers)) for segment in segments]
        columns = {
            field: np.array([getattr(segment, field) for segment in segments], dtype=np.int64)
            for field in _COLUMNS
        }
        return SegmentColumns(list(numbers), np.array(flow, dtype=np.int64), **columns)


class _Version(NamedTuple):
    """An IP version: its first byte, its header's size, and where in it things are.

    ``key`` is where both addresses begin, which the ports follow at once. The length says what
    comes behind the first ``uncounted`` bytes.
    """

    first: int
    mask: int
    size: int
    key: int
    length: int
    uncounted: int
    protocol: int
    fragment: int | None


_VERSIONS: Final = (
    _Version(
        first=0x45,
        mask=0xFF,
        size=IPV4_SIZE,
        key=12,
        length=2,
        uncounted=0,
        protocol=9,
        fragment=6,
    ),
    _Version(
        first=0x60,
        mask=0xF0,
        size=IPV6_SIZE,
        key=8,
        length=4,
        uncounted=IPV6_SIZE,
        protocol=6,
        fragment=None,
    ),
)

_COLUMNS: Final = tuple(
    field.name for field in fields(SegmentColumns) if field.name not in ("flows", "flow")
)

_UNKNOWN: Final = -1


@lru_cache
def _layout(at: int, version: _Version) -> np.dtype[np.void]:
    """Describe a frame's head with the IP packet at ``at``."""
    tcp = at + version.size
    places = {
        "first": ("u1", at),
        "length": (">u2", at + version.length),
        "protocol": ("u1", at + version.protocol),
        "key": (f"V{version.size + 4 - version.key}", at + version.key),
        "sequence": (">u4", tcp + 4),
        "acknowledgement": (">u4", tcp + 8),
        "data_offset": ("u1", tcp + 12),
        "flags": ("u1", tcp + 13),
    }
    if version.fragment is not None:
        places["fragment"] = (">u2", at + version.fragment)
    return _dtype(places)


def _dtype(places: dict[str, tuple[str, int]]) -> np.dtype[np.void]:
    """Make the type of a head from the fields' types and places."""
    return np.dtype(
        {
            "names": list(places),
            "formats": [kind for kind, _ in places.values()],
            "offsets": [offset for _, offset in places.values()],
            "itemsize": HEAD,
        }
    )


def _extent(table: NDArray[Any], version: _Version, *, at: int) -> tuple[Ints, Ints]:
    """Give where in the frames the packets end, and where the payload begins."""
    end = table["length"].astype(np.int64) + (at + version.uncounted)
    payload = (table["data_offset"] >> 4).astype(np.int64) * 4 + (at + version.size)
    return end, payload


def _is_plain_tcp(table: NDArray[Any], captured: Ints, version: _Version, *, at: int) -> Bools:
    """Tell which of the frames hold a TCP segment that arrays can take."""
    good: Bools = (table["first"] & version.mask) == version.first
    if not good.any():
        return good
    end, payload = _extent(table, version, at=at)
    good &= (table["protocol"] == IpProtocol.TCP) & (table["length"] != 0)
    good &= captured >= at + version.size + TCP_SIZE
    good &= (payload >= at + version.size + TCP_SIZE) & (payload <= end)
    if version.fragment is not None:
        good &= (table["fragment"] & _FRAGMENT) == 0
    return good


def _find_ip(heads: NDArray[np.void], records: RecordColumns) -> Ints:
    """Give where in each frame the IP packet is; _UNKNOWN leaves the frame to the scalar way."""
    ip_at = np.full(len(heads), _UNKNOWN, dtype=np.int64)
    for linktype in _distinct(records.linktype):
        if linktype in _RAW:
            found = np.zeros(len(heads), dtype=np.int64)
        elif linktype in _ETHERTYPE_AT:
            found = _find_by_ethertype(heads, *_ETHERTYPE_AT[linktype])
        elif linktype in (LinkType.NULL, LinkType.LOOP):
            known = np.isin(_field(heads, ">u4", 0), _BSD_FAMILIES)
            found = np.where(known, BSD_SIZE, _UNKNOWN)
        else:
            continue
        ip_at = np.where(records.linktype == linktype, found, ip_at)
    return ip_at


def _find_by_ethertype(heads: NDArray[np.void], type_at: int, size: int) -> Ints:
    ethertype = _field(heads, ">u2", type_at)
    is_ip = _is_one_of(ethertype, IP_TYPES)
    if is_ip.all():
        return np.full(len(heads), size, dtype=np.int64)
    tagged = _is_one_of(ethertype, VLAN_TYPES)
    if size + VLAN_SIZE + IPV6_SIZE + TCP_SIZE <= HEAD:
        tagged &= _is_one_of(_field(heads, ">u2", size + 2), IP_TYPES)
    else:
        tagged[:] = False
    return np.where(is_ip, size, np.where(tagged, size + VLAN_SIZE, _UNKNOWN))


_RAW: Final = frozenset(
    {LinkType.RAW, LinkType.RAW_BSD, LinkType.RAW_OPENBSD, LinkType.IPV4, LinkType.IPV6}
)
_ETHERTYPE_AT: Final[dict[int, tuple[int, int]]] = {
    LinkType.ETHERNET: (12, ETHERNET_SIZE),
    LinkType.LINUX_SLL: (14, SLL_SIZE),
    LinkType.LINUX_SLL2: (0, SLL2_SIZE),
}
"""Where the protocol number is, and how long the link header is."""


def _field(heads: NDArray[np.void], kind: str, at: int) -> NDArray[Any]:
    """See one number in each head."""
    column: NDArray[Any] = heads.view(_dtype({"field": (kind, at)}))["field"]
    return column


def _is_one_of(column: NDArray[Any], values: Iterable[int]) -> Bools:
    found: Bools = np.zeros(len(column), dtype=np.bool_)
    for value in values:
        found |= column == value
    return found


def _distinct(column: Ints) -> list[int]:
    """List the values in a column, nearly always one."""
    if not len(column):
        return []
    first = int(column[0])
    if (column == first).all():
        return [first]
    values: list[int] = np.unique(column).tolist()
    return values


def _merge(parts: list[SegmentColumns]) -> SegmentColumns:
    """Put segments together in record order, and name each flow once."""
    flows: dict[FlowKey, int] = {}
    numbers = [_renumber(part, flows) for part in parts]
    if len(parts) == 1:
        return replace(parts[0], flows=list(flows), flow=numbers[0])
    columns = {
        field: np.concatenate([_NONE, *(getattr(part, field) for part in parts)])
        for field in _COLUMNS
    }
    order = columns["record"].argsort(kind="stable")
    columns = {field: column[order] for field, column in columns.items()}
    return SegmentColumns(list(flows), np.concatenate([_NONE, *numbers])[order], **columns)


def _renumber(part: SegmentColumns, flows: dict[FlowKey, int]) -> Ints:
    """Give a part's flow column with the numbers of ``flows``, which is extended."""
    table = [flows.setdefault(key, len(flows)) for key in part.flows]
    if table == list(range(len(table))):
        return part.flow
    return np.array(table, dtype=np.int64)[part.flow]


_NONE: Final = np.empty(0, dtype=np.int64)
