# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmdescription: JSON text at the end of the main stream that tells how long FULL bodies are.

The stream itself does not: a decoder that has the whole stream reads this first. There is one
device per FULL section, in stream order; what START, PART and END sections hold is not described.

A field's ``size`` counts everything that the field wrote, nested structs and their subsections
included, so nested descriptions are kept for display only. Some types (``vstruct``, ``tmp``,
``qtailq`` and the like) write their nested keys into the field's own object, once per element: such
keys repeat, all of them are ignored, and ``size``, which comes last, is right.

Names are written as :func:`mfdtool.wire.text.escape` does, so they equal those of the sections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mfdtool.errors import WireError
from mfdtool.wire.constants import SectionType
from mfdtool.wire.text import escape, unescape

if TYPE_CHECKING:
    from mfdtool.wire.codec import Buffer

DEFAULT_LIMIT: Final = 16 * 1024 * 1024
"""Most bytes of JSON text that are read; QEMU writes some 100 kB."""

MAX_DEPTH: Final = 64
"""Deepest nesting of structs and subsections that is read; QEMU needs less than ten."""

_HEADER_SIZE: Final = 5
SUBSECTION_FIXED_SIZE: Final = 1 + 1 + 4
"""Bytes of a subsection's header besides its name (vmstate.c:vmstate_subsection_save)."""

_SEARCH_STEP: Final = 64 * 1024

VARIABLE_TYPES: Final = frozenset({"capability", "qtailq", "qlist", "gtree"})
"""Types whose elements differ in length, so that the first does not speak for its array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDescription:
    """One field; ``array_len`` equal elements of ``size`` bytes each, if it is not None.

    ``index`` is the place in an array whose elements are described one by one. ``struct`` is set
    for type ``struct`` only.
    """

    name: str
    type: str
    size: int
    array_len: int | None = None
    index: int | None = None
    struct: StateDescription | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDescription:
    """A vmsd: the configuration, a struct or a subsection (vmstate.c:vmstate_save_state_v)."""

    vmsd_name: str
    version: int
    fields: tuple[FieldDescription, ...] = ()
    subsections: tuple[StateDescription, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescription:
    """One FULL section (savevm.c:vmstate_save).

    Old-style entries have no vmsd: ``vmsd_name`` and ``version`` are None, ``size`` is the body's
    length (savevm.c:vmstate_save_old_style). For the others ``size`` is None.
    """

    name: str
    instance_id: int
    vmsd_name: str | None = None
    version: int | None = None
    size: int | None = None
    fields: tuple[FieldDescription, ...] = ()
    subsections: tuple[StateDescription, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDescription:
    """The whole vmdescription; ``configuration`` is None if the stream had no such section."""

    page_size: int
    configuration: StateDescription | None
    devices: tuple[DeviceDescription, ...]


def body_size(device: DeviceDescription) -> int | None:
    """Give the length in bytes of a FULL section's body, footer not included.

    None if the description does not tell: an array is described by its first element, which says
    nothing about the others when their length varies. A wrong answer is possible in that case
    where no type gives it away; check that the footer is where it should be.
    """
    if device.size is not None:
        return device.size
    return _state_size(device.fields, device.subsections)


def body_sizes(description: VmDescription) -> dict[tuple[str, int], int | None]:
    """Give all devices' body sizes by idstr and instance_id, as FULL sections are headed."""
    return {(device.name, device.instance_id): body_size(device) for device in description.devices}


def parse_vmdescription(
    data: Buffer, *, channel: str = "", offset: int = 0, limit: int = DEFAULT_LIMIT
) -> VmDescription:
    """Read the JSON text ``data``, without the header in front.

    Raises:
        WireError: it is longer than ``limit``, not JSON, too deeply nested, or not what QEMU
            writes; the path names the place.
    """
    if len(data) > limit:
        raise WireError(
            f"vmdescription of {len(data)} bytes, {limit} allowed", offset=offset, channel=channel
        )
    try:
        document = json.loads(bytes(data).decode("utf-8"), parse_constant=_refuse_constant)
        return _Reader().description(document)
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = f"not JSON text: {error}"
    except _ShapeError as error:
        raise WireError(error.reason, path=error.path, offset=offset, channel=channel) from None
    raise WireError(reason, offset=offset, channel=channel)


def find_vmdescription(data: Buffer, *, limit: int = DEFAULT_LIMIT) -> tuple[int, int] | None:
    """Find the JSON text at the very end of a complete main stream: its start and stop.

    None if the stream does not end with a vmdescription of at most ``limit`` bytes. Only the end
    is read. The text holds no NUL, its length field does: the last NUL is near its start.
    """
    view = memoryview(data)
    nul = _last_nul(view, max(len(view) - limit - _HEADER_SIZE, 0))
    if nul is None:
        return None
    for start in range(nul + 1, min(nul + _HEADER_SIZE, len(view))):
        header = start - _HEADER_SIZE
        length = len(view) - start
        if (
            header >= 0
            and length <= limit
            and view[start] == ord("{")
            and view[header] == SectionType.VMDESCRIPTION
            and int.from_bytes(view[header + 1 : start], "big") == length
        ):
            return start, len(view)
    return None


def _last_nul(view: memoryview, lowest: int) -> int | None:
    stop = len(view)
    while stop > lowest:
        start = max(stop - _SEARCH_STEP, lowest)
        found = bytes(view[start:stop]).rfind(0)
        if found >= 0:
            return start + found
        stop = start
    return None


def _state_size(
    fields: tuple[FieldDescription, ...], subsections: tuple[StateDescription, ...]
) -> int | None:
    total = 0
    for field in fields:
        count = 1 if field.array_len is None else field.array_len
        if count > 1 and _varies(field):
            return None
        total += count * field.size
    for subsection in subsections:
        size = _state_size(subsection.fields, subsection.subsections)
        if size is None:
            return None
        total += SUBSECTION_FIXED_SIZE + len(unescape(subsection.vmsd_name)) + size
    return total


def _varies(field: FieldDescription) -> bool:
    """Whether elements of an array of such fields can differ in length."""
    if field.type in VARIABLE_TYPES:
        return True
    if field.struct is None:
        return False
    return bool(field.struct.subsections) or any(_varies(part) for part in field.struct.fields)


# JSON to values. Keys that are not known are ignored: later releases may add some.


class _ShapeError(Exception):
    """The JSON text is fine, what it says is not a vmdescription."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


class _Reader:
    """Makes values of JSON objects, and knows how deep it is."""

    def __init__(self) -> None:
        self._depth = 0

    def description(self, document: object) -> VmDescription:
        top = _object(document, "")
        configuration = top.get("configuration")
        return VmDescription(
            page_size=_integer(top, "page_size", ""),
            configuration=None
            if configuration is None
            else self._state(configuration, "configuration"),
            devices=tuple(self._device(item, path) for item, path in _items(top, "devices", "")),
        )

    def _device(self, document: object, path: str) -> DeviceDescription:
        values = _object(document, path)
        has_vmsd = "vmsd_name" in values
        return DeviceDescription(
            name=_string(values, "name", path),
            instance_id=_integer(values, "instance_id", path),
            vmsd_name=_string(values, "vmsd_name", path) if has_vmsd else None,
            version=_integer(values, "version", path) if has_vmsd else None,
            size=None if has_vmsd else _integer(values, "size", path),
            fields=self._fields(values, path),
            subsections=self._subsections(values, path),
        )

    def _state(self, document: object, path: str) -> StateDescription:
        values = _object(document, path)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _ShapeError(f"more than {MAX_DEPTH} structs inside each other", path)
        state = StateDescription(
            vmsd_name=_string(values, "vmsd_name", path),
            version=_integer(values, "version", path),
            fields=self._fields(values, path),
            subsections=self._subsections(values, path),
        )
        self._depth -= 1
        return state

    def _fields(self, values: Mapping[str, Any], path: str) -> tuple[FieldDescription, ...]:
        return tuple(self._field(item, where) for item, where in _items(values, "fields", path))

    def _subsections(self, values: Mapping[str, Any], path: str) -> tuple[StateDescription, ...]:
        return tuple(
            self._state(item, where) for item, where in _items(values, "subsections", path)
        )

    def _field(self, document: object, path: str) -> FieldDescription:
        values = _object(document, path)
        struct = values.get("struct")
        return FieldDescription(
            name=_string(values, "name", path),
            type=_string(values, "type", path),
            size=_integer(values, "size", path),
            array_len=_integer(values, "array_len", path) if "array_len" in values else None,
            index=_integer(values, "index", path) if "index" in values else None,
            struct=None if struct is None else self._state(struct, f"{path}.struct"),
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _ShapeError("not an object", path)
    return value


def _items(values: Mapping[str, Any], name: str, path: str) -> list[tuple[object, str]]:
    """Give a list's elements and their paths; none if the list is not there."""
    where = _join(path, name)
    value = values.get(name, [])
    if not isinstance(value, list):
        raise _ShapeError("not an array", where)
    return [(item, f"{where}[{index}]") for index, item in enumerate(value)]


def _integer(values: Mapping[str, Any], name: str, path: str) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _ShapeError("not an unsigned 63-bit integer", _join(path, name))
    return value


def _string(values: Mapping[str, Any], name: str, path: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        raise _ShapeError("not a string", _join(path, name))
    return escape(value.encode("utf-8", "surrogatepass"))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
