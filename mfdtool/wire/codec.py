# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam to construct: its containers and its exceptions stop here.

A :class:`Message` is a frozen dataclass with a construct schema. Schema and dataclass have the
same fields, named as QEMU names them, and the schema says in words what each one means::

    @dataclass(frozen=True, slots=True)
    class Footer(Message):
        SCHEMA = Struct(
            field("type", Int8ub, "0x7e"),
            field("section_id", Int32ub, "id of the section that ends"),
        )
        SOURCE = "savevm.c:save_section_footer"

        type: int
        section_id: int

    footer, used = Footer.parse_prefix(data, channel="main", offset=4711)

Schemas describe structure only. A wrong magic is a value like any other: whether a destination
would accept it is judged elsewhere.

Construct is slow (some 30,000 headers a second). :class:`Layout` derives offsets, widths and a
compiled ``struct.Struct`` from a fixed-size schema, for the paths that see every header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast

import construct
from construct import (
    Adapter,
    Bytes,
    Computed,
    Const,
    Construct,
    ConstructError,
    FormatField,
    GreedyBytes,
    IfThenElse,
    Int8ub,
    Prefixed,
    Rebuild,
    Renamed,
    Struct,
    Switch,
    ValidationError,
    Validator,
)

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.quick import quick_constructor
from mfdtool.wire.text import escape, unescape

if TYPE_CHECKING:
    from enum import IntEnum
    from typing import IO, Self

    # Generic for the type checker only: the classes cannot be subscripted when the code runs.
    Schema: TypeAlias = Construct[Any, Any]
    AnyAdapter: TypeAlias = Adapter[Any, Any, Any, Any]
else:
    Schema = Construct
    AnyAdapter = Adapter

Buffer: TypeAlias = bytes | bytearray | memoryview

_PATH_SEPARATOR: Final = " -> "


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all wire values: a frozen, slotted dataclass that knows its construct schema.

    Attributes:
        SCHEMA: the construct object.
        SOURCE: where QEMU declares or writes it, as ``file.c:symbol``.
    """

    SCHEMA: ClassVar[Struct]
    SOURCE: ClassVar[str]

    @classmethod
    def parse(cls, data: Buffer, *, channel: str = "", offset: int = 0) -> Self:
        """Decode ``data``, which must hold exactly one message.

        ``channel`` and ``offset`` (of ``data`` in that channel) go into error messages.

        Raises:
            TruncatedError: ``data`` ends inside the message.
            WireError: ``data`` is not such a message, or goes on after it.
        """
        return cls._parse_whole(data, channel=channel, offset=offset)

    @classmethod
    def parse_prefix(cls, data: Buffer, *, channel: str = "", offset: int = 0) -> tuple[Self, int]:
        """Decode the message at the start of ``data``; give it and its length in bytes.

        Raises:
            TruncatedError: ``data`` ends inside the message.
            WireError: ``data`` does not begin with such a message.
        """
        return cls._parse_prefix(data, channel=channel, offset=offset)

    def build(self) -> bytes:
        """Encode the message.

        Raises:
            WireError: a field's value does not fit in its place.
        """
        try:
            return self.SCHEMA.build(self.to_mapping(), **self._context())
        except ConstructError as error:
            raise WireError(_reason(error), path=_dotted(error)) from None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make the message of decoded schema fields."""
        return cls(**{name.name: values[name.name] for name in fields(cls)})

    def to_mapping(self) -> dict[str, Any]:
        """Give the schema's fields by name."""
        return {name.name: getattr(self, name.name) for name in fields(self)}

    def _context(self) -> Mapping[str, object]:
        """Parameters that the schema needs to build this message."""
        return {}

    @classmethod
    def _parse_whole(cls, data: Buffer, *, channel: str, offset: int, **context: object) -> Self:
        message, used = cls._parse_prefix(data, channel=channel, offset=offset, **context)
        if used != len(data):
            raise WireError(
                f"{len(data) - used} bytes too many", offset=offset + used, channel=channel
            )
        return message

    @classmethod
    def _parse_prefix(
        cls, data: Buffer, *, channel: str, offset: int, **context: object
    ) -> tuple[Self, int]:
        cursor = _Cursor(memoryview(data))
        try:
            values = cls.SCHEMA.parse_stream(cast("IO[bytes]", cursor), **context)
        except ConstructError as error:
            where = offset + cursor.field_start
            path = _dotted(error)
            if cursor.missing:
                raise TruncatedError(
                    cursor.missing, path=path, offset=where, channel=channel
                ) from None
            raise WireError(_reason(error), path=path, offset=where, channel=channel) from None
        return cls.from_mapping(values), cursor.position


class _Cursor:
    """As much of a binary stream as construct reads from, over bytes that are not copied."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.position = 0
        self.field_start = 0
        self.missing = 0

    def read(self, size: int) -> bytes:
        """Give the next ``size`` bytes, or fewer and note how many were ``missing``."""
        self.field_start = self.position
        data = bytes(self._view[self.position : self.position + size])
        self.position += len(data)
        self.missing = size - len(data)
        return data

    def tell(self) -> int:
        """Give the position, counted from the start of the buffer."""
        return self.position

    def seek(self, position: int, whence: int = 0) -> int:
        """Go to an absolute position."""
        if whence:
            raise ValueError("absolute positions only")
        self.position = position
        return position


def _dotted(error: ConstructError) -> str:
    """Turn construct's ``(parsing) -> entries -> size`` into ``entries.size``."""
    return ".".join((error.path or "").split(_PATH_SEPARATOR)[1:])


def _reason(error: ConstructError) -> str:
    """Give construct's message without the path that it puts in front."""
    _, newline, rest = str(error).partition("\n")
    return rest if newline else str(error)


# Pieces that schemas are made of.


def field(name: str, schema: Schema, meaning: str) -> Renamed[Any, Any]:
    """Name a field of a schema, and say what it means."""
    return Renamed(schema, newname=name, newdocs=meaning)


class _Text(AnyAdapter):
    """Bytes of a counted string, shown as :func:`mfdtool.wire.text.escape` writes them."""

    word = "counted string"

    def _decode(self, obj: bytes, context: object, path: str) -> str:
        return escape(obj)

    def _encode(self, obj: str, context: object, path: str) -> bytes:
        try:
            return unescape(obj)
        except ValueError as error:
            raise ValidationError(str(error), path=path) from None


class _Member(AnyAdapter):
    """An integer that must be one of some members of an enumeration."""

    def __init__(self, schema: Schema, members: tuple[IntEnum, ...]) -> None:
        super().__init__(schema)
        self._members = {int(member): member for member in members}

    def _decode(self, obj: int, context: object, path: str) -> IntEnum:
        if obj not in self._members:
            raise ValidationError(f"{obj:#x} is not {self._names()}", path=path)
        return self._members[obj]

    def _encode(self, obj: int, context: object, path: str) -> int:
        return int(self._decode(obj, context, path))

    def _names(self) -> str:
        return " or ".join(member.name for member in self._members.values())


class _Nested(AnyAdapter):
    """A message inside a message."""

    def __init__(self, message: type[Message]) -> None:
        super().__init__(message.SCHEMA)
        self._message = message
        self.word = message.__name__

    def _decode(self, obj: Mapping[str, Any], context: object, path: str) -> Message:
        return self._message.from_mapping(obj)

    def _encode(self, obj: Message, context: object, path: str) -> dict[str, Any]:
        return obj.to_mapping()


class _Tuple(AnyAdapter):
    """A list as a tuple."""

    def __init__(self, schema: Schema, word: str) -> None:
        super().__init__(schema)
        self.word = word

    def _decode(self, obj: list[Any], context: object, path: str) -> tuple[Any, ...]:
        return tuple(obj)

    def _encode(self, obj: tuple[Any, ...], context: object, path: str) -> list[Any]:
        return list(obj)


class _Words(AnyAdapter):
    """``count`` be64 values, decoded at once: ten times as fast as construct's own arrays."""

    word = "be64[]"

    def __init__(self, count: Any) -> None:
        super().__init__(Bytes(8 * count))

    def _decode(self, obj: bytes, context: object, path: str) -> tuple[int, ...]:
        return struct.unpack(f">{len(obj) // 8}Q", obj)

    def _encode(self, obj: tuple[int, ...], context: object, path: str) -> bytes:
        try:
            return struct.pack(f">{len(obj)}Q", *obj)
        except struct.error as error:
            raise ValidationError(str(error), path=path) from None


def counted_string(length: Schema = Int8ub) -> Schema:
    """Text behind its length (``qemu_put_counted_string``), any byte allowed."""
    return _Text(Prefixed(length, GreedyBytes))


def member(schema: Schema, *members: IntEnum) -> Schema:
    """Integer that must be one of ``members``."""
    return _Member(schema, members)


def nested(message: type[Message]) -> Schema:
    """One ``message`` inside another."""
    return _Nested(message)


def repeated(count: Any, message: type[Message]) -> Schema:
    """Tuple of ``count`` (a number or a construct expression) messages."""
    return _Tuple(construct.Array(count, nested(message)), f"{message.__name__}[]")


def listed(count: Any, schema: Schema) -> Schema:
    """Tuple of ``count`` (a number or a construct expression) ``schema``."""
    return _Tuple(construct.Array(count, schema), f"{_type(schema)}[]")


def prefixed_tuple(length: Schema, schema: Schema) -> Schema:
    """Tuple of as many ``schema`` as the ``length`` in front says."""
    return _Tuple(construct.PrefixedArray(length, schema), f"{_type(schema)}[]")


def be64_array(count: Any) -> Schema:
    """Tuple of ``count`` (a number or a construct expression) be64 values."""
    return _Words(count)


def optional(condition: Any, schema: Schema) -> Schema:
    """``schema`` if ``condition`` (a construct expression) holds, else no bytes and None."""
    return construct.If(condition, schema)


# What a schema looks like: for the fast path, and for people.

_WORDS: Final[Mapping[str, str]] = {"B": "u8", "H": "be16", "L": "be32", "Q": "be64"}
"""A format character of ``struct`` in the words of the wire format's description."""

_LITTLE: Final = "<"
_LITTLE_WORDS: Final[Mapping[str, str]] = {"<H": "le16", "<L": "le32", "<Q": "le64"}
"""The same for what devices write, which QEMU passes on as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldInfo:
    """One field of a schema.

    ``type`` is ``u8``, ``be32``, ``le32``, ``bytes[N]``, ``counted string`` or the like;
    ``offset`` and ``width`` are in bytes, None from the first field of variable length on.
    ``code`` is the field's ``struct`` format, empty if it has none.
    """

    name: str
    type: str
    meaning: str
    offset: int | None
    width: int | None
    code: str


def describe(message: type[Message]) -> tuple[FieldInfo, ...]:
    """List a message's fields in wire order."""
    return tuple(_walk(message.SCHEMA))


def _walk(schema: Struct) -> Iterator[FieldInfo]:
    offset: int | None = 0
    for subcon in schema.subcons:
        width = _width(subcon)
        yield FieldInfo(
            name=subcon.name or "",
            type=_type(subcon),
            meaning=subcon.docs,
            offset=offset,
            width=width,
            code=_code(_bare(subcon)),
        )
        offset = None if offset is None or width is None else offset + width


def _bare(schema: Schema) -> Schema:
    """Take off the wrappers that change neither size nor type."""
    while isinstance(schema, Renamed | Const):
        schema = schema.subcon
    return schema


def _width(schema: Schema) -> int | None:
    if isinstance(_bare(schema), IfThenElse):
        return None
    try:
        return schema.sizeof()
    except ConstructError:
        return None


def _code(schema: Schema) -> str:
    if isinstance(schema, FormatField) and not schema.fmtstr.startswith(_LITTLE):
        return str(schema.fmtstr).lstrip(">")
    if isinstance(schema, Bytes) and isinstance(schema.length, int):
        return f"{schema.length}s"
    return ""


def _type(schema: Schema) -> str:
    schema = _bare(schema)
    word = getattr(schema, "word", None)
    if word is not None:
        return str(word)
    code = _code(schema)
    if code.endswith("s"):
        return f"bytes[{code[:-1]}]"
    if code:
        return _WORDS[code]
    if isinstance(schema, FormatField):
        return _LITTLE_WORDS[schema.fmtstr]
    if isinstance(schema, IfThenElse):
        return f"{_type(schema.thensubcon)} or nothing"
    if isinstance(schema, _Member | Rebuild | Validator):
        return _type(schema.subcon)
    if isinstance(schema, Switch):
        return " or ".join(_type(case) for case in schema.cases.values())
    if isinstance(schema, Computed):
        return "derived"
    return "bytes" if isinstance(schema, Bytes) else type(schema).__name__


MessageT = TypeVar("MessageT", bound=Message)


class Layout(Generic[MessageT]):
    """A fixed-size message as offsets, widths and a compiled ``struct.Struct``.

    Attributes:
        message: the class that :meth:`parse` makes.
        size: length of the message in bytes.
        fields: its fields in wire order; ``offset``, ``width`` and ``code`` are never empty.
    """

    __slots__ = ("_construct", "_struct", "fields", "message", "size")

    def __init__(self, message: type[MessageT]) -> None:
        """Derive the layout of ``message``.

        Raises:
            TypeError: a field is neither a plain integer nor bytes of a fixed length.
        """
        self.message = message
        self.fields = describe(message)
        for info in self.fields:
            if not info.code:
                raise TypeError(f"{message.__name__}.{info.name} has no fixed layout")
        self._struct = struct.Struct(">" + "".join(info.code for info in self.fields))
        self._construct = quick_constructor(message, [info.name for info in self.fields])
        self.size = self._struct.size

    def __getitem__(self, name: str) -> FieldInfo:
        """Find a field by name; KeyError if there is none."""
        for info in self.fields:
            if info.name == name:
                return info
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"Layout({self.message.__name__}, {self.size} bytes)"

    def unpack(
        self, buffer: Buffer, offset: int = 0, *, channel: str = "", base: int = 0
    ) -> tuple[Any, ...]:
        """Give the fields at ``buffer[offset]``, integers and bytes, in wire order.

        ``channel`` and ``base`` (of ``buffer`` in that channel) go into the error message.

        Raises:
            TruncatedError: fewer than ``size`` bytes are there.
        """
        try:
            return self._struct.unpack_from(buffer, offset)
        except struct.error:
            missing = self.size - max(len(buffer) - offset, 0)
            raise TruncatedError(missing, offset=base + offset, channel=channel) from None

    def parse(
        self, buffer: Buffer, offset: int = 0, *, channel: str = "", base: int = 0
    ) -> MessageT:
        """Decode the message at ``buffer[offset]``; arguments and errors are those of `unpack`."""
        return self.make(self.unpack(buffer, offset, channel=channel, base=base))

    def make(self, values: tuple[Any, ...]) -> MessageT:
        """Make the message of what `unpack` gave."""
        return self._construct(*values)
