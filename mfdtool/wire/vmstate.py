# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's body in a FULL section, field by field, as its vmdescription says.

::

    body       := field* subsection*
    field      := bytes, as many as the description says; a struct is a body of its own
    subsection := 0x05 counted-name be32-version field* subsection*

The bytes have no tags (vmstate.c:vmstate_save_state_v). Whether the description is this body's is
known at the end only: all bytes must have been used. Where they are not, nothing is guessed: what
lies behind the place up to which the description can be trusted stays undecoded.

One entry of the description can stand for an array (``array_len``), described by its first
element. Numbers are all as long as the first one. Structs with arrays of their own are not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from mfdtool.errors import WireError
from mfdtool.wire.constants import SectionType
from mfdtool.wire.main_stream import SubsectionHeader
from mfdtool.wire.text import unescape
from mfdtool.wire.vmdesc import SUBSECTION_FIXED_SIZE, VARIABLE_TYPES

if TYPE_CHECKING:
    from mfdtool.wire.vmdesc import DeviceDescription, FieldDescription, StateDescription

Range: TypeAlias = tuple[int, int]
"""Start and stop of bytes of a body."""

_STOP: Final = itemgetter(1)

NULL_POINTER: Final = b"0"
"""What stands for a null pointer in an array of pointers (vmstate-types.c:put_nullptr)."""

_CAPABILITY: Final = "capability"
_SUBSECTION_LIMIT: Final = 1 + 1 + 255 + 4
_SUBSECTION_START: Final = bytes([SectionType.SUBSECTION])

STEPS: Final = 1 << 20
"""Most elements, structs and subsections of a body; real ones have some thousand."""

_STEPS_FREE: Final = 256
_STEPS_PER_BYTE: Final = 4
"""Real fields have a byte at least; descriptions may come from anywhere, and say that a million
structs have none."""


class Encoding(Enum):
    """What the bytes of a field are."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    BOOLEAN = "boolean"
    NULL = "null pointer"
    TEXT = "counted string"
    BYTES = "bytes"


ENCODINGS: Final[Mapping[str, Encoding]] = MappingProxyType(
    {
        "bool": Encoding.BOOLEAN,
        "int8": Encoding.SIGNED,
        "int16": Encoding.SIGNED,
        "int32": Encoding.SIGNED,
        "int32 equal": Encoding.SIGNED,
        "int32 le": Encoding.SIGNED,
        "int64": Encoding.SIGNED,
        "int64 equal": Encoding.SIGNED,
        "uint8": Encoding.UNSIGNED,
        "uint8 equal": Encoding.UNSIGNED,
        "uint16": Encoding.UNSIGNED,
        "uint16 equal": Encoding.UNSIGNED,
        "uint32": Encoding.UNSIGNED,
        "uint32 equal": Encoding.UNSIGNED,
        "uint64": Encoding.UNSIGNED,
        "timer": Encoding.SIGNED,
        "fd": Encoding.SIGNED,
        "nullptr": Encoding.NULL,
        _CAPABILITY: Encoding.TEXT,
    }
)
"""Types by the names of vmstate-types.c; all others are bytes to us. Integers are big-endian,
``int32 le`` too: its name speaks of a comparison (vmstate-types.c:vmstate_info_int32_le)."""


_FIXED_TYPES: Final = frozenset(
    {"struct", *(name for name, encoding in ENCODINGS.items() if encoding is not Encoding.TEXT)}
)
"""Types that are equally long in all elements of an array; buffers need not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateField:
    """One field: ``count`` elements of ``size`` bytes each, or one thing if ``count`` is None.

    ``start`` counts from the start of the body. ``index`` is the place in an array whose elements
    are described one by one.
    """

    name: str
    type: str
    start: int
    size: int
    count: int | None = None
    index: int | None = None

    @property
    def stop(self) -> int:
        """The position behind the field."""
        return self.start + self.size * (1 if self.count is None else self.count)

    @property
    def encoding(self) -> Encoding:
        """What the bytes are."""
        return ENCODINGS.get(self.type, Encoding.BYTES)

    def elements(self) -> Iterator[Range]:
        """Give where each element is."""
        for index in range(1 if self.count is None else self.count):
            start = self.start + index * self.size
            yield start, start + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class StateStruct:
    """A struct; ``index`` is its place if it is an element of an array."""

    name: str
    start: int
    stop: int
    index: int | None = None
    items: tuple[StateNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSubsection:
    """A subsection; its fields begin behind a header of ``header_size`` bytes."""

    name: str
    version: int
    start: int
    header_size: int
    stop: int
    items: tuple[StateNode, ...] = ()


StateNode: TypeAlias = StateField | StateStruct | StateSubsection


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecoded:
    """Bytes of a body that no field claims, and why."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBody:
    """A body taken apart; ``undecoded`` is what is left at its end, None if nothing is."""

    items: tuple[StateNode, ...]
    undecoded: Undecoded | None = None

    def fields(self) -> Iterator[StateField]:
        """Give the fields of all structs and subsections, in stream order."""
        return _fields(self.items)

    def claims(self) -> Iterator[Range]:
        """Give the range of each field, subsection header and undecoded rest, in stream order."""
        yield from _claims(self.items)
        if self.undecoded is not None:
            yield self.undecoded.start, self.undecoded.stop


def number_of(field: StateField, raw: bytes) -> int:
    """Give the value of an element of an integer field."""
    return int.from_bytes(raw, signed=field.encoding is Encoding.SIGNED)


def is_missing(holes: Sequence[Range], where: Range) -> bool:
    """Tell whether some of a range is in one of the holes, which must be in order."""
    start, stop = where
    at = bisect_right(holes, start, key=_STOP)
    return at < len(holes) and holes[at][0] < stop


def decode_body(
    device: DeviceDescription, data: bytes, *, version_id: int, holes: Sequence[Range] = ()
) -> StateBody:
    """Take a FULL section's body apart; what does not fit its description stays undecoded.

    ``version_id`` is that of the section's header. ``holes`` are the ranges of ``data``, in order,
    that are filler for bytes that nobody has: what had to be read there is taken as described.
    """
    if device.size is not None:
        # An old-style body: nothing in it is described, and it may have any length.
        whole = StateField(name="data", type="buffer", start=0, size=len(data))
        return StateBody(items=(whole,))
    if device.version != version_id:
        reason = f"version {version_id}; the vmdescription is of version {device.version}"
        return _rejected(data, reason)
    walk = _Walk(data, holes)
    try:
        walk.state(device.vmsd_name or "", device.fields, device.subsections)
        if walk.position < len(data):
            left = len(data) - walk.position
            walk.misfit(f"{left} more than the vmdescription has fields for")
    except _MisfitError as error:
        return _trusted(walk, error)
    return StateBody(items=tuple(walk.items))


def _rejected(data: bytes, reason: str) -> StateBody:
    rest = Undecoded(start=0, stop=len(data), reason=reason) if data else None
    return StateBody(items=(), undecoded=rest)


def _trusted(walk: _Walk, error: _MisfitError) -> StateBody:
    """Keep the fields in front of the place from which on the description may be wrong."""
    size = len(walk.data)
    items = tuple(_before(walk.items, error.trusted))
    start = max((item.stop for item in items), default=0)
    return StateBody(items=items, undecoded=Undecoded(start=start, stop=size, reason=error.reason))


def _before(items: Iterable[StateNode], stop: int) -> Iterator[StateNode]:
    for item in items:
        if item.stop > stop:
            return
        yield item


def _fields(items: Iterable[StateNode]) -> Iterator[StateField]:
    for item in items:
        if isinstance(item, StateField):
            yield item
        else:
            yield from _fields(item.items)


def _claims(items: Iterable[StateNode]) -> Iterator[Range]:
    for item in items:
        if isinstance(item, StateField):
            yield item.start, item.stop
            continue
        if isinstance(item, StateSubsection):
            yield item.start, item.start + item.header_size
        yield from _claims(item.items)


class _MisfitError(Exception):
    """The description is not this body's; what ends at or before ``trusted`` is right anyhow."""

    def __init__(self, reason: str, trusted: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trusted = trusted


class _Walk:
    """A cursor in a body, and what it has passed.

    Attributes:
        data: the body.
        position: the cursor.
        items: what was decoded at the level where the cursor is.
    """

    def __init__(self, data: bytes, holes: Sequence[Range]) -> None:
        self.data = data
        self.position = 0
        self.items: list[StateNode] = []
        self._holes = holes
        self._doubt: int | None = None
        self._varies: dict[int, bool] = {}
        self._left = min(_STEPS_FREE + _STEPS_PER_BYTE * len(data), STEPS)

    def misfit(self, reason: str) -> NoReturn:
        """Give up: not all is as described; what lies before the first doubt is.

        Raises:
            _MisfitError: always.
        """
        raise _MisfitError(reason, self._doubt or 0)

    def state(
        self,
        vmsd_name: str,
        fields: Sequence[FieldDescription],
        subsections: Sequence[StateDescription],
    ) -> None:
        """Decode a struct's fields, then those of its subsections that are there."""
        for field in fields:
            self._field(field)
        for subsection in subsections:
            self._subsection(subsection)
        unknown = self._header(unescape(f"{vmsd_name}/"))
        if unknown is not None:
            # A name at the right place tells that all before it is right.
            self._doubt = self.position
            self.misfit(f"subsection {unknown.name} is not in the vmdescription")

    def _field(self, field: FieldDescription) -> None:
        self._spend()
        count = field.array_len
        if field.type == _CAPABILITY:
            for index in range(1 if count is None else count):
                self._capability(field, field.index if count is None else index)
        elif field.struct is None:
            self._plain(field)
        elif count is None:
            self._struct(field, field.struct, field.index)
        else:
            self._structs(field, field.struct, count)

    def _plain(self, field: FieldDescription) -> None:
        count = 1 if field.array_len is None else field.array_len
        start = self.position
        if count > 1:
            self._doubt_elements(field)
            self._spend(count)
        self._advance(count * field.size, field.name)
        self.items.append(
            StateField(
                name=field.name,
                type=field.type,
                start=start,
                size=field.size,
                count=field.array_len,
                index=field.index,
            )
        )

    def _capability(self, field: FieldDescription, index: int | None) -> None:
        self._spend()
        start = self.position
        if start >= len(self.data) or is_missing(self._holes, (start, start + 1)):
            self.misfit(f"no length of {field.name}")
        size = 1 + self.data[start]
        self._advance(size, field.name)
        self.items.append(
            StateField(name=field.name, type=field.type, start=start, size=size, index=index)
        )

    def _structs(self, field: FieldDescription, struct: StateDescription, count: int) -> None:
        for index in range(count):
            self._spend()
            if index:
                self._doubt_elements(field)
            self._struct(field, struct, index)

    def _doubt_elements(self, field: FieldDescription) -> None:
        """Note what may go wrong from here on, since only the first element is described."""
        if not field.size:
            self.misfit(f"array {field.name} of elements without bytes")
        if self._doubt is None:
            if id(field) not in self._varies:
                self._varies[id(field)] = _can_vary(field)
            if self._varies[id(field)]:
                self._doubt = self.position

    def _struct(self, field: FieldDescription, struct: StateDescription, index: int | None) -> None:
        start = self.position
        items = self._inside(struct)
        self.items.append(
            StateStruct(name=field.name, start=start, stop=self.position, index=index, items=items)
        )

    def _subsection(self, described: StateDescription) -> None:
        """Decode a subsection if it is there; one that was not needed is not."""
        self._spend()
        start = self.position
        name, version = described.vmsd_name, described.version
        raw_name = unescape(name)
        header_size = SUBSECTION_FIXED_SIZE + len(raw_name)
        if not is_missing(self._holes, (start, start + header_size)):
            header = self._header(raw_name)
            if header is None or header.name != name:
                return
            if header.version_id != version:
                reason = f"of version {header.version_id}; the vmdescription is of {version}"
                self._doubt = start
                self.misfit(f"subsection {name} is {reason}")
            self._doubt = None
        self._advance(header_size, name)
        items = self._inside(described)
        self.items.append(
            StateSubsection(
                name=name,
                version=version,
                start=start,
                header_size=header_size,
                stop=self.position,
                items=items,
            )
        )

    def _inside(self, state: StateDescription) -> tuple[StateNode, ...]:
        """Decode a struct at the cursor, and give its parts.

        What lies around it stays reachable, for `misfit` to keep what is right.
        """
        outer, self.items = self.items, []
        try:
            self.state(state.vmsd_name, state.fields, state.subsections)
            return tuple(self.items)
        finally:
            self.items = outer

    def _spend(self, steps: int = 1) -> None:
        """Count steps; there are as many as elements, unless the description is absurd."""
        self._left -= steps
        if self._left < 0:
            self.misfit("the vmdescription has too many fields for such a body")

    def _advance(self, size: int, name: str) -> None:
        if self.position + size > len(self.data):
            self.misfit(f"{name} ends behind the body's end")
        self.position += size

    def _header(self, name: bytes) -> SubsectionHeader | None:
        """Give the header at the cursor of a subsection whose name begins so; None if none is."""
        start = self.position
        if not self.data.startswith(_SUBSECTION_START, start):
            return None
        if not self.data.startswith(name, start + 2):
            return None
        try:
            header, _ = SubsectionHeader.parse_prefix(self.data[start : start + _SUBSECTION_LIMIT])
        except WireError:
            return None
        return header


def _can_vary(field: FieldDescription) -> bool:
    """Whether elements of an array can differ in length from the first, which is described."""
    if field.struct is None:
        return field.type in VARIABLE_TYPES
    parts = field.struct.fields
    return bool(field.struct.subsections) or any(
        part.array_len is not None or part.type not in _FIXED_TYPES or _can_vary(part)
        for part in parts
    )
