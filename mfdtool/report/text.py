# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as lines for people: time, channel, number, kind, and what matters of it.

Words are QEMU's names of the fields; what is normal (instance 0, version 0) is not mentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mfdtool.stream import fields
from mfdtool.stream.frames import Frame, Kind
from mfdtool.wire.constants import VFIO_STATE_FLAGS, RamFlag, VFIOStateFlag, flag_names
from mfdtool.wire.vendors.vendor import pci_text

if TYPE_CHECKING:
    from mfdtool.stream.field import Scalar

_CHANNEL_WIDTH: Final = 12
_BLOCKS_LISTED: Final = 3
_NUMBER_WIDTH: Final = 6
_KIND_WIDTH: Final = 14
_CONFIG_STATE: Final = VFIOStateFlag.CONFIG_STATE.value
_MEM_SIZE: Final = RamFlag.MEM_SIZE.value
_YELLOW: Final = "\x1b[33m"
_CYAN: Final = "\x1b[36m"
_RESET: Final = "\x1b[0m"
_DEVICE_KINDS: Final = frozenset({Kind.MULTIFD_DEVICE_STATE, Kind.VFIO_MARKER})
_BROKEN_KINDS: Final = frozenset({Kind.GAP, Kind.UNDECODED})


class TextLines:
    """Writes a line for each frame; times count from the first frame that it was told of."""

    header: Final = ""

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour
        self._origin = -1

    def begin(self, first: Frame) -> None:
        """Take the first frame of the input, from which times count."""
        self._origin = first.time_first

    def write(self, frame: Frame) -> str:
        """Give a frame's line, with its end."""
        number = "" if frame.number is None else f"#{frame.number}"
        line = (
            f"{self._time(frame):>12}  {_channel(frame):{_CHANNEL_WIDTH}} {number:{_NUMBER_WIDTH}} "
            f"{_short_kind(frame):{_KIND_WIDTH}} {summary(frame)}"
        ).rstrip()
        colour = self._colour_of(frame)
        return f"{colour}{line}{_RESET}\n" if colour else f"{line}\n"

    def _time(self, frame: Frame) -> str:
        if frame.time_last < 0 or self._origin < 0:
            return "-"
        microseconds = (frame.time_last - self._origin) // 1000
        sign = "-" if microseconds < 0 else ""
        seconds, rest = divmod(abs(microseconds), 1_000_000)
        return f"{sign}{seconds}.{rest:06d}"

    def _colour_of(self, frame: Frame) -> str:
        if not self._colour:
            return ""
        if frame.missing or frame.kind in _BROKEN_KINDS:
            return _YELLOW
        return _CYAN if frame.kind in _DEVICE_KINDS else ""


def summary(frame: Frame) -> str:
    """Say what a frame is, without its kind, in a few words."""
    named = fields.values(frame, objects=False)
    text = _SUMMARIES[frame.kind](named)
    if frame.missing and frame.kind not in _BROKEN_KINDS:
        text += f" [{frame.missing} of {frame.length} bytes missing: {frame.reason}]"
    return text


def _channel(frame: Frame) -> str:
    """Name the channel; the migration too, unless it is the first."""
    migration, name = frame.channel.migration, frame.channel.name
    return f"{migration}:{name}" if migration else name


def _short_kind(frame: Frame) -> str:
    return frame.kind.value.rpartition(".")[2]


# What is said of each kind; the argument is what `fields.values` gives.

_Named = Mapping[str, "Scalar"]


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _unless(named: _Named, name: str, usual: Scalar, word: str = "") -> str:
    """Mention a field if it is there and not what it usually is."""
    value = named.get(name, usual)
    return "" if value == usual else f"{word or name} {value}"


def _bytes(value: Scalar) -> str:
    return "1 byte" if value == 1 else f"{value} bytes"


def _init(named: _Named) -> str:
    return f"id {named['id']} uuid {named['uuid']}"


def _ram_packet(named: _Named) -> str:
    block = named.get("ramblock", "")
    return _join(
        f"packet_num {named['packet_num']}",
        str(block),
        f"normal_pages {named['normal_pages']}",
        f"zero_pages {named['zero_pages']}",
        str(named.get("compression", "")),
        f"data {_bytes(named['data_length'])}" if named["data_length"] else "",
    )


def _sync(named: _Named) -> str:
    return _join(
        f"packet_num {named['packet_num']}",
        str(named.get("compression", "")),
        _unless(named, "data_length", 0, "data"),
    )


def _device_state(named: _Named) -> str:
    what = [str(named["idstr"]), _unless(named, "instance_id", 0, "instance")]
    if "idx" not in named:
        return _join(*what, f"next_packet_size {named['next_packet_size']}: no VFIO header")
    flags = _int(named["flags"])
    unknown = flags & ~_CONFIG_STATE
    return _join(
        *what,
        f"idx {named['idx']}",
        _unless(named, "version", 0),
        f"flags {flag_names(flags, VFIO_STATE_FLAGS)}" if unknown else "",
        "config" if named["is_config"] else "data",
        _bytes(named["data_length"]),
        _pci(named),
    )


def _configuration(named: _Named) -> str:
    capabilities = named["capabilities"]
    assert isinstance(capabilities, list)
    return _join(
        str(named["machine"]),
        _unless(named, "target_page_bits", None),
        f"capabilities {','.join(capabilities)}" if capabilities else "",
        _unless(named, "uuid", None),
    )


def _section(named: _Named) -> str:
    return _join(
        f"{named['section_id']:<4}" if "section_id" in named else "",
        str(named.get("idstr", "(its START was not captured)")),
        _unless(named, "instance_id", 0, "instance"),
    )


def _section_header(named: _Named) -> str:
    return f"{_section(named)} version {named['version_id']}"


def _opaque(named: _Named) -> str:
    version = f"version {named['version_id']} " if "version_id" in named else ""
    text = f"{_section(named)} {version}{_bytes(named['data_length'])}"
    if "field_count" not in named:
        return text
    count = named["field_count"]
    text += f" in {count} field{'' if count == 1 else 's'}"
    undecoded = named.get("undecoded", [])
    assert isinstance(undecoded, list)
    for rest in undecoded:
        text += f", {_bytes(rest['length'])} undecoded: {rest['reason']}"
    return text


def _command(named: _Named) -> str:
    details = ("value", "page_size", "package_length", "block_name")
    return _join(
        str(named.get("command", f"unknown command {named['cmd']}")),
        *(_unless(named, name, None) for name in details),
        _unless(named, "payload_length", 0),
    )


def _ram_record(named: _Named) -> str:
    kind = str(named["record_type"])
    if not _int(named["flags"]) & _MEM_SIZE:
        if "ramblock" not in named:
            return kind
        return f"{kind} {named['ramblock']} addr {_int(named['addr']):#x}"
    blocks = named.get("blocks", [])
    assert isinstance(blocks, list)
    listed = [f"{block['idstr']} {block['used_length']}" for block in blocks[:_BLOCKS_LISTED]]
    if len(blocks) > len(listed):
        listed.append("...")
    return f"{kind} {named['addr']} bytes in {len(blocks)} blocks: {', '.join(listed)}"


def _marker(named: _Named) -> str:
    size = named["data_length"]
    return _join(
        str(named.get("idstr", "")),
        str(named.get("marker", f"unknown marker {named['value']}")),
        _bytes(size) if size else "",
        _pci(named),
    )


def _pci(named: _Named) -> str:
    """Name the device that a config is of, as ``lspci`` does."""
    if "pci_vendor_id" not in named:
        return ""
    vendor, device = (int(str(named[f"pci_{name}_id"]), 16) for name in ("vendor", "device"))
    return f"pci {pci_text((vendor, device))}"


def _message(named: _Named) -> str:
    return _join(
        str(named.get("type", "")),
        _unless(named, "value", None),
        _unless(named, "block_name", None),
        f"request_start {_int(named['request_start']):#x}" if "request_start" in named else "",
        _unless(named, "request_length", None),
    )


def _lost(named: _Named) -> str:
    return f"{_bytes(named['length'])}: {named.get('reason', 'unknown')}"


def _int(value: Scalar) -> int:
    assert isinstance(value, int)
    return value


_SUMMARIES: Final[Mapping[Kind, Callable[[Mapping[str, Any]], str]]] = {
    Kind.MULTIFD_INIT: _init,
    Kind.MULTIFD_RAM: _ram_packet,
    Kind.MULTIFD_SYNC: _sync,
    Kind.MULTIFD_DEVICE_STATE: _device_state,
    Kind.MAIN_HEADER: lambda named: f"version {named['version']}",
    Kind.MAIN_CONFIGURATION: _configuration,
    Kind.MAIN_SECTION_START: _section_header,
    Kind.MAIN_SECTION_PART: _section,
    Kind.MAIN_SECTION_END: _section,
    Kind.MAIN_SECTION_FULL: _section_header,
    Kind.MAIN_SECTION_FOOTER: _section,
    Kind.MAIN_COMMAND: _command,
    Kind.MAIN_EOF: lambda named: "",
    Kind.MAIN_VMDESCRIPTION: lambda named: _bytes(named["payload_length"]),
    Kind.MAIN_OPAQUE: _opaque,
    Kind.RAM_RECORD: _ram_record,
    Kind.VFIO_MARKER: _marker,
    Kind.RETURN_PATH_MESSAGE: _message,
    Kind.GAP: _lost,
    Kind.UNDECODED: _lost,
}
