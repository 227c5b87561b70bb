# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as rows: comma-separated with a header line (RFC 4180), or tab-separated without.

A value that does not apply is an empty cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.jsonl import encode
from mfdtool.report.template import Convert, Templates, Value, Write, compile_template
from mfdtool.stream.field import FieldType
from mfdtool.stream.fields import check_names, fields_of

if TYPE_CHECKING:
    from mfdtool.stream.field import Field
    from mfdtool.stream.fields import Shape

DEFAULT_COLUMNS: Final = (
    "migration",
    "channel",
    "number",
    "kind",
    "offset",
    "length",
    "time_first",
    "time_last",
    "record",
    "complete",
    "section_id",
    "idstr",
    "instance_id",
    "idx",
    "flags",
    "is_config",
    "data_length",
    "packet_num",
    "normal_pages",
    "zero_pages",
    "ramblock",
    "marker",
    "command",
    "type",
    "reason",
)

_SPECIAL: Final = re.compile('[",\r\n]')


def quote(text: str) -> str:
    """Write a cell's text (RFC 4180)."""
    if _SPECIAL.search(text) is None:
        return text
    return '"' + text.replace('"', '""') + '"'


def _plain(text: str) -> str:
    return text


class Rows(Templates):
    """Writes frames as rows of cells."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        separator: str,
        end: str,
        quote: Callable[[str], str],
    ) -> None:
        """Set up for the columns ``names``.

        Raises:
            UnknownFieldError: a name is no field.
        """
        super().__init__(self._compile_shape)
        self._names = check_names(names)
        self._separator = separator
        self._end = end
        self._quote = quote

    def _compile_shape(self, shape: Shape) -> Write:
        by_name = {field.name: field for field in fields_of(shape)}
        pieces: list[str | Value] = []
        for name in self._names:
            field = by_name.get(name)
            if name == "kind":
                pieces.append(shape[0].value)
            elif field is not None:
                pieces.append(self._value(field))
            pieces.append(self._separator)
        pieces[-1] = self._end
        return compile_template(pieces)

    def _value(self, field: Field) -> Value:
        if field.type is FieldType.INTEGER and not field.optional:
            return Value(field.path, field.convert)
        write = _CELLS.get(field.type, str)
        quote = self._quote if field.type in _QUOTED else None
        return Value(field.path, _cell(field.convert, write, quote))


class CsvLines(Rows):
    """Writes frames as RFC 4180 rows."""

    def __init__(self, names: Sequence[str] = DEFAULT_COLUMNS) -> None:
        """Set up for the columns ``names``.

        Raises:
            UnknownFieldError: a name is no field.
        """
        super().__init__(names, separator=",", end="\r\n", quote=quote)
        self.header = ",".join(names) + "\r\n"


class TabLines(Rows):
    """Writes frames as tab-separated cells, whose text holds no tabs (names are escaped)."""

    def __init__(self, names: Sequence[str]) -> None:
        """Set up for the columns ``names``.

        Raises:
            UnknownFieldError: a name is no field.
        """
        super().__init__(names, separator="\t", end="\n", quote=_plain)


_QUOTED: Final = frozenset({FieldType.STRING, FieldType.LIST, FieldType.OBJECT})
_CELLS: Final[Mapping[FieldType, Callable[[Any], str]]] = {
    FieldType.BOOLEAN: {False: "false", True: "true"}.__getitem__,
    FieldType.LIST: encode,
    FieldType.OBJECT: encode,
}


def _cell(
    convert: Convert | None, write: Callable[[Any], str], quote: Callable[[str], str] | None
) -> Convert:
    """Make the function from an attribute to a cell's text."""

    def cell(raw: Any) -> str:
        value = raw if convert is None else convert(raw)
        if value is None:
            return ""
        return write(value) if quote is None else quote(write(value))

    return cell
