# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as JSON Lines: one object a line, values that do not apply left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.template import Convert, Templates, Value, Write, compile_template
from mfdtool.stream.field import FieldType
from mfdtool.stream.field_values import or_none
from mfdtool.stream.fields import FORMAT, check_names, fields_of

if TYPE_CHECKING:
    from mfdtool.stream.field import Field
    from mfdtool.stream.field_values import or_none
from mfdtool.stream.fields import Shape

encode: Final = json.JSONEncoder(separators=(",", ":")).encode
"""Writes a value as JSON without spaces."""

_encode_text: Final = lru_cache(maxsize=1024)(encode)
_ENCODERS: Final[Mapping[FieldType, Callable[[Any], str]]] = {
    FieldType.BOOLEAN: {False: "false", True: "true"}.__getitem__,
    FieldType.STRING: _encode_text,
    FieldType.HEX: '"{}"'.format,
    FieldType.TIME: '"{}"'.format,
    FieldType.LIST: encode,
    FieldType.OBJECT: encode,
}
"""How values are written, where that is not as ``str`` does.

Neither times nor hex strings have anything to escape.
"""


class JsonLines(Templates):
    """Writes frames as lines of JSON; ``names`` are the fields wanted, none for all."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        """Set up.

        Raises:
            UnknownFieldError: a name is no field.
        """
        super().__init__(self._compile_shape)
        self._names = check_names(dict.fromkeys(names))

    def _compile_shape(self, shape: Shape) -> Write:
        fields = fields_of(shape)
        if self._names:
            by_name = {field.name: field for field in fields}
            fields = tuple(by_name[name] for name in self._names if name in by_name)
        pieces: list[str | Value] = [f'{{"format":{FORMAT}']
        for field in fields:
            if field.name == "kind":
                pieces.append(f',"kind":"{shape[0].value}"')
            else:
                pieces += _pieces(field)
        return compile_template((*pieces, "}\n"))


def _pieces(field: Field) -> tuple[str | Value, ...]:
    """Give a field's key and value, or what makes both if there may be none."""
    key = f',"{field.name}":'
    encoder = _ENCODERS.get(field.type)
    convert = field.convert
    if field.optional:
        whole = _optional(key, encoder or str, convert)
        # All frames that end in one record have the same times.
        return (Value(field.path, lru_cache(16)(whole) if field.type is FieldType.TIME else whole),)
    if convert is None or encoder is None:
        return key, Value(field.path, convert or encoder)
    return key, Value(field.path, lambda raw: encoder(convert(raw)))


def _optional(key: str, encoder: Callable[[Any], str], convert: Convert | None) -> Convert:
    """Write key and value, or nothing."""
    if convert is None:
        return lambda raw: "" if raw is None else key + encoder(raw)
    if convert is or_none:
        return lambda raw: key + encoder(raw) if raw else ""

    def write(raw: Any) -> str:
        value = convert(raw)
        return "" if value is None else key + encoder(value)

    return write
