# SPDX-License-Identifier: GPL-2.0-or-later
"""A dissector for Wireshark, as the text of a Lua script.

What is known of the wire is generated: fields, schemas, numbers and rules. How packets are put
together and told apart is in ``lua/`` beside this module, written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from mfdtool.report.wireshark_tables import (
    CHECKED_RULES,
    PREFIX,
    SCHEMAS,
    LuaField,
    Step,
    flag_bits,
    lua_fields,
    schema_steps,
)
from mfdtool.rules import RULES
from mfdtool.stream.elements import SECTION_ID_LIMIT
from mfdtool.wire import constants
from mfdtool.wire.constants import PAGE_SIZES, Meaning
from mfdtool.wire.main_stream import COMMAND_PAYLOADS
from mfdtool.wire.multifd import page_count_for
from mfdtool.wire.return_path import RETURN_PATH_PAYLOADS

SIGNATURE: Final = "Written by mfdtool: a dissector of QEMU migrations for Wireshark."
"""What the second line of every script of ours says; a file without it is somebody else's."""

_PARTS: Final = ("core", "multifd", "main", "records", "calls")
_LICENCE: Final = "-- SPDX-License-Identifier: GPL-2.0-or-later\n"
_HERE: Final = "--@TABLES@\n"
_CONSTANTS: Final = (
    *("QEMU_VM_FILE_MAGIC", "QEMU_VM_FILE_VERSION", "MULTIFD_MAGIC", "MULTIFD_VERSION"),
    *("MULTIFD_PACKET_SIZE", "MULTIFD_ZLIB_BUFFER_SIZE", "VFIO_INVALID_IDX"),
    *("RETURN_PATH_MAX_LENGTH", "X86_PAGE_SIZE", "CONFIGURATION_PREFIX"),
)
_VALUE_TABLES: Final[Mapping[str, Mapping[Any, Meaning]]] = {
    "main.type": constants.SECTION_TYPES,
    "main.cmd": constants.COMMANDS,
    "return_path.type_number": constants.RETURN_PATH_TYPES,
}
_MARKER_LOW: Final = 0xFFFFFFFF


def wireshark_script(ports: Sequence[int] = ()) -> str:
    """Write the script; ``ports`` are taken to be migrations whatever they begin with.

    The same ports give the same text.
    """
    parts = [_part(name) for name in _PARTS]
    text = "\n".join([parts[0], *(part.removeprefix(_LICENCE).lstrip() for part in parts[1:])])
    return text.replace("@SIGNATURE@", SIGNATURE).replace(_HERE, _tables(ports))


def _part(name: str) -> str:
    return files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def is_ours(text: str) -> bool:
    """Tell whether a file's text, or its beginning, is that of such a script."""
    return SIGNATURE in text


def _tables(ports: Sequence[int]) -> str:
    """Write the generated part."""
    return "\n".join(
        [
            f"local NAME = {_quote(PREFIX)}",
            f"local PORTS = {_quote(','.join(map(str, sorted(set(ports)))))}",
            *_table("K", (f"{name} = {_lua(getattr(constants, name))}" for name in _CONSTANTS)),
            *_table("FIELDS", map(_field, lua_fields())),
            *_table("BITS", map(_bits, flag_bits().items())),
            *_table("VALUES", map(_values, _VALUE_TABLES.items())),
            *_table("SCHEMAS", _schemas()),
            *_table("COMMANDS", _commands()),
            *_table("MESSAGES", _messages()),
            *_table("MARKERS", _markers()),
            *_table("MULTIFD_FLAGS", _flags(constants.MULTIFD_FLAGS)),
            *_table("RAM_FLAGS", _flags(constants.RAM_FLAGS)),
            *_table("SECTION", _flags(constants.SECTION_TYPES, named=True)),
            *_table("PAGE_COUNTS", (str(page_count_for(size)) for size in PAGE_SIZES)),
            f"local COMPRESSION_MASK = {constants.MULTIFD_COMPRESSION_MASK}",
            f"local SECTION_ID_LIMIT = {SECTION_ID_LIMIT}",
            *_table("RULES", map(_rule, CHECKED_RULES)),
            "",
        ]
    )


def _table(name: str, rows: Iterable[str]) -> Iterator[str]:
    yield f"local {name} = {{"
    for row in rows:
        yield f"  {row},"
    yield "}"


def _field(field: LuaField) -> str:
    base = "HEX" if field.hexadecimal else "DEC"
    bit = f", {field.width}, {field.mask:#x}" if field.mask else ""
    return f'{{ "{field.key}", "{field.type}", "{base}", {_quote(field.meaning)}{bit} }}'


def _bits(entry: tuple[str, list[tuple[str, int]]]) -> str:
    key, bits = entry
    return f'["{key}"] = {{ {", ".join(_quote(name) for name, _ in bits)} }}'


def _values(entry: tuple[str, Mapping[Any, Meaning]]) -> str:
    key, table = entry
    values = ", ".join(f"[{int(number)}] = {_quote(number.name)}" for number in table)
    return f'["{key}"] = {{ {values} }}'


def _schemas() -> Iterator[str]:
    for group, messages in SCHEMAS.items():
        for message in messages:
            steps = ", ".join(map(_step, schema_steps(group, message)))
            yield f"{message.__name__} = {{ {steps} }}"


def _step(step: Step) -> str:
    return f'{{ "{step.name}", "{step.reader}", "{step.key}", {step.width} }}'


def _commands() -> Iterator[str]:
    """Each command's name, the length that it must have, and its payload's schema."""
    for command in constants.COMMANDS:
        length = constants.COMMAND_LENGTHS[command]
        payload = COMMAND_PAYLOADS.get(command)
        yield f"[{int(command)}] = {{ {_row(command.name, length, payload)} }}"


def _messages() -> Iterator[str]:
    for kind in constants.RETURN_PATH_TYPES:
        length = constants.RETURN_PATH_LENGTHS[kind]
        yield f"[{int(kind)}] = {{ {_row(kind.name, length, RETURN_PATH_PAYLOADS.get(kind))} }}"


def _row(name: str, length: int | None, payload: type[object] | None) -> str:
    return ", ".join((_quote(name), _lua(length), _lua(payload.__name__ if payload else None)))


def _markers() -> Iterator[str]:
    """Markers by their lower half: the upper one is all ones, and Lua's numbers are too short."""
    for marker in constants.VFIO_MARKERS:
        yield f"[{int(marker) & _MARKER_LOW:#x}] = {_quote(marker.name)}"


def _flags(table: Mapping[Any, Meaning], *, named: bool = False) -> Iterator[str]:
    """List numbers with their names: in order, or with ``named`` as keys."""
    for flag in table:
        yield f"{flag.name} = {int(flag)}" if named else f"{{ {_quote(flag.name)}, {int(flag)} }}"


def _rule(rule_id: str) -> str:
    rule = RULES[rule_id]
    values = ", ".join(map(_quote, (rule.name, rule.severity.value, rule.sentence)))
    return f"{rule_id} = {{ {values} }}"


def _lua(value: int | str | None) -> str:
    if value is None:
        return "false"
    return str(value) if isinstance(value, int) else _quote(value)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
