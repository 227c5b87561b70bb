# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of all devices of a main stream as one JSON object.

The shape, down to the blanks, is that of QEMU's ``scripts/analyze-migration.py -d state``: a
member ``"idstr (section id)"`` for each section, in stream order. Sections are written as soon as
they end, so memory does not grow with the stream. VFIO devices, for which the script has nothing,
come last: their markers are spread over the whole stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mfdtool.errors import WireError
from mfdtool.stream.extraction import Extractor, Pieces
from mfdtool.stream.field_values import marker_name
from mfdtool.stream.frames import Frame, Kind, Section
from mfdtool.stream.span import Span
from mfdtool.stream.values import MarkerRecord, RamRecord
from mfdtool.stream.vmstate import DeviceState, named_fields
from mfdtool.stream.vmstate_bodies import BODY_LIMIT
from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE, VFIOMarker
from mfdtool.wire.vfio import DeviceStateHeader, locate_config

if TYPE_CHECKING:
    from mfdtool.stream.migration import Migration

UNDECODED: Final = "(undecoded)"
"""Name of what no field claims; QEMU's own names have no parentheses."""

CONFIG_LIMIT: Final = 1 << 20
"""Longest config of a VFIO device that is shown; real ones have some thousand bytes."""

_MARKS_LISTED: Final = 64
_INDENT: Final = 4
_KINDS: Final[Mapping[Kind, str]] = {
    Kind.MAIN_SECTION_START: "start",
    Kind.MAIN_SECTION_PART: "part",
    Kind.MAIN_SECTION_END: "end",
    Kind.MAIN_SECTION_FULL: "full",
}
_LOST: Final = frozenset({Kind.GAP, Kind.UNDECODED})
_EMPTY_THERE: Final = frozenset({"spapr/htab", "s390-storage_attributes"})
"""Handlers whose sections QEMU's script reads, and then shows as an empty string."""


@dataclass(slots=True)
class _Markers:
    """What the markers of one name in one type of section sum up to."""

    count: int = 0
    size: int = 0


@dataclass(slots=True)
class _VfioDevice:
    """What is known of a VFIO device's state."""

    key: str
    markers: dict[tuple[str, str], _Markers] = field(default_factory=dict)
    packets: int = 0
    packet_bytes: int = 0
    config: bytes | None = None

    def mark(self, section: str, marker: str, size: int) -> None:
        """Count a marker; hostile streams may have any number of different ones."""
        if (section, marker) not in self.markers and len(self.markers) >= _MARKS_LISTED:
            marker = "other"
        marks = self.markers.setdefault((section, marker), _Markers())
        marks.count += 1
        marks.size += size

    def value(self) -> dict[str, Any]:
        """Give what is written of the device."""
        markers = [
            {"section": section, "marker": marker, "count": marks.count, "size": _hex(marks.size)}
            for (section, marker), marks in self.markers.items()
        ]
        value: dict[str, Any] = {"markers": markers}
        if self.packets:
            value["multifd"] = {"packets": self.packets, "size": _hex(self.packet_bytes)}
        if self.config is not None:
            value["config"] = self.config.hex(" ")
        return value


class VmStateExtractor(Extractor):
    """Writes the state of all devices of a migration's main stream."""

    def __init__(self, migration: int) -> None:
        super().__init__(migration)
        self._vfio: dict[tuple[str, int], _VfioDevice] = {}
        self._keys: dict[str, int] = {}
        self._current: Section | None = None
        self._type = ""
        self._value: dict[str, Any] | str | None = None
        self._written = False
        self._bodies: dict[str, dict[str, _Markers]] = {}
        self._undescribed = 0
        self._ended = False

    def add(self, frame: Frame) -> Pieces:
        """Give the section that ends with a frame."""
        if isinstance(frame.value, DeviceStateHeader):
            self._packet(frame, frame.value)
        elif frame.channel.name != "main":
            return
        elif frame.kind in _KINDS:
            yield from self._end()
            self._begin(frame)
        elif frame.kind in {Kind.MAIN_SECTION_FOOTER, Kind.MAIN_EOF}:
            self._ended |= frame.kind is Kind.MAIN_EOF
            yield from self._end()
        elif frame.kind in _LOST:
            self._lost(frame)
        elif self._current is not None:
            self._body(frame, self._current)

    def finish(self, migration: Migration | None) -> Pieces:
        """Give what can be told at the end only."""
        yield from self._end()
        for key, types in self._bodies.items():
            listed = [
                {"section": kind, "count": each.count, "size": _hex(each.size)}
                for kind, each in types.items()
            ]
            yield from self._member(key, {"bodies": listed})
        for device in self._vfio.values():
            yield from self._member(device.key, device.value())
        if self._undescribed:
            self.remarks.problem(
                "sections that are not in the vmdescription, or there is none, their bytes written"
                f" as they are: {self._undescribed}"
            )
        if self._written:
            yield b"\n}\n"
            if not self._ended:
                self.remarks.problem("main has no end: more sections may have followed")

    def wanted(self) -> str:
        """Say that there is no section."""
        return "no sections: the main stream was not captured"

    # Sections

    def _begin(self, frame: Frame) -> None:
        self._current = frame.section
        self._type = _KINDS[frame.kind]
        self._value = None
        if frame.section is not None and self._type == "full" and not _is_vfio(frame.section):
            self._value = {}
        elif self._type == "start" and self._current and self._current.idstr in _EMPTY_THERE:
            self._value = ""

    def _body(self, frame: Frame, section: Section) -> None:
        """Take a frame of a section's body."""
        value = frame.value
        if isinstance(value, MarkerRecord):
            self._marker(frame, value, section)
        elif isinstance(value, RamRecord):
            if value.entries:
                sizes = {entry.idstr: f"0x{entry.used_length:016x}" for entry in value.entries}
                self._value = {"section sizes": sizes}
        elif isinstance(value, DeviceState):
            self._value = self._device(frame, value, section)
        elif frame.kind is Kind.MAIN_OPAQUE and self._type == "full":
            self._value = self._undecoded(frame, section)
        elif frame.kind is Kind.MAIN_OPAQUE and section.idstr not in _EMPTY_THERE:
            types = self._bodies.setdefault(_key(section), {})
            each = types.setdefault(self._type, _Markers())
            each.count += 1
            each.size += frame.length
        if frame.missing:
            self.remarks.problem(f"{_where(frame, section)}: {_missing(frame)}")

    def _undecoded(self, frame: Frame, section: Section) -> dict[str, Any]:
        self._undescribed += 1
        if frame.length > BODY_LIMIT:
            self.remarks.problem(f"{_where(frame, section)}: {frame.length} bytes are not shown")
            return {UNDECODED: None}
        return {UNDECODED: frame.data().hex(" ")}

    def _device(self, frame: Frame, state: DeviceState, section: Section) -> dict[str, Any]:
        body = state.decode()
        value = named_fields(state, body)
        rest = body.undecoded
        if rest is not None:
            value[UNDECODED] = state.data[rest.start : rest.stop].hex(" ")
            where = f"bytes {rest.start}-{rest.stop - 1}"
            self.remarks.problem(f"{_where(frame, section)}: {where} undecoded: {rest.reason}")
        return value

    def _end(self) -> Pieces:
        """Give the current section, if it is one that stands for itself."""
        section, value = self._current, self._value
        self._current = self._value = None
        if section is not None and value is not None:
            yield from self._member(_key(section), value)

    def _member(self, key: str, value: dict[str, Any] | str) -> Pieces:
        times = self._keys[key] = self._keys.get(key, 0) + 1
        if times > 1:
            self.remarks.problem(f"{key} comes {times} times")
            key = f"{key} #{times}"
        start = ",\n" if self._written else "{\n"
        self._written = self.found = True
        yield f"{start}{_text(key, value)}".encode()

    def _lost(self, frame: Frame) -> None:
        where = f"main: bytes {frame.offset}-{frame.end - 1}"
        self.remarks.problem(f"{where} {'missing' if frame.missing else 'undecoded'}")

    # VFIO

    def _marker(self, frame: Frame, record: MarkerRecord, section: Section) -> None:
        device = self._of(section.idstr, section.instance_id, _key(section))
        name = marker_name(record.marker) or f"{record.marker:#x}"
        device.mark(self._type, name, record.data_length)
        if record.marker == VFIOMarker.DEV_CONFIG_STATE and frame.payload is not None:
            self._config(device, frame, frame.payload, _where(frame, section))

    def _packet(self, frame: Frame, header: DeviceStateHeader) -> None:
        """Take a device's packet of a multifd channel."""
        payload = frame.payload
        if payload is None:
            return
        idstr = header.idstr_text
        device = self._of(idstr, header.instance_id, idstr)
        device.packets += 1
        device.packet_bytes += payload.stop - payload.start - VFIO_PACKET_HEADER_SIZE
        where = f"{device.key}, {frame.channel.name} #{frame.number}"
        if frame.missing:
            self.remarks.problem(f"{where}: {_missing(frame)}")
        if header.is_config:
            self._config(
                device, frame, Span(payload.start + VFIO_PACKET_HEADER_SIZE, payload.stop), where
            )

    def _config(self, device: _VfioDevice, frame: Frame, span: Span, where: str) -> None:
        """Keep a device's config; the markers around it, in a packet, are left out."""
        if device.config is not None or span.stop - span.start > CONFIG_LIMIT:
            self.remarks.problem(f"{where}: a config that is not shown")
            return
        device.config = frame.data(span)
        if not isinstance(frame.value, DeviceStateHeader):
            return
        try:
            bounds = locate_config(device.config)
        except WireError as error:
            self.remarks.problem(f"{where}: markers around the config: {error.reason}")
        else:
            device.config = device.config[bounds.start : bounds.stop]

    def _of(self, idstr: str, instance_id: int, key: str) -> _VfioDevice:
        """Give what is known of a device; the main stream names it by its section, too."""
        device = self._vfio.setdefault((idstr, instance_id), _VfioDevice(key))
        if device.key == idstr:
            device.key = key
        return device


def _key(section: Section) -> str:
    return f"{section.idstr or '(unknown)'} ({section.section_id})"


def _where(frame: Frame, section: Section) -> str:
    return f"{_key(section)}, main #{frame.number}"


def _missing(frame: Frame) -> str:
    return f"{frame.missing} of {frame.length} bytes are missing"


def _is_vfio(section: Section) -> bool:
    return section.idstr == "vfio" or section.idstr.endswith("/vfio")


def _hex(number: int) -> str:
    return f"0x{number:x}"


def _text(key: str, value: dict[str, Any] | str) -> str:
    """Write a member of the outermost object, indented."""
    text = json.dumps({key: value}, indent=_INDENT, separators=(",", ": "))
    return text[2:-2]
