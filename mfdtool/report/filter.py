# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters: expressions over the fields of a frame, in the manner of tshark's ``-Y``.

::

    filter     := and { ("||" | "or") and }
    and        := not { ("&&" | "and") not }
    not        := { "!" | "not" } primary
    primary    := "(" filter ")" | FIELD [ operator value ]
    operator   := "==" | "!=" | "<" | "<=" | ">" | ">=" | "contains" | "matches"
    value      := "text" | 'text' | word

A word needs no quotes: ``kind == multifd.ram``, ``idx >= 0x10``, ``idstr matches */vfio``. A
bare field holds if the frame has it, and it is not false. A comparison with a field that
the frame does not have never holds, ``!=`` included. ``matches`` compares with a shell
pattern (``* ? [abc]``), which costs linear time whatever the pattern.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

from mfdtool.stream.field import FieldType
from mfdtool.stream.fields import UnknownFieldError, definitions_of, field_of, shape_of

if TYPE_CHECKING:
    from mfdtool.stream.field import Field, Getter
    from mfdtool.stream.fields import Shape
    from mfdtool.stream.frames import Frame

Predicate: TypeAlias = "Callable[[Frame], bool]"
Test: TypeAlias = Callable[[Any], bool]

MAX_LENGTH: Final = 4096
"""Characters that a filter may have."""

MAX_DEPTH: Final = 64
"""How deep parentheses and negations may nest."""

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<symbol>&&|\|\||==|!=|<=|>=|<|>|!|\(|\))
    | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<word>[^\s()&|!=<>"']+)
    | (?P<bad>\S)
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_NESTED: Final = {FieldType.LIST: "a list", FieldType.OBJECT: "an object"}
_ESCAPE: Final = re.compile(r"\\(.)")
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS: Final = (*_COMPARE, "contains", "matches")
_WORDS: Final[Mapping[str, str]] = {
    "and": "&&",
    "or": "||",
    "not": "!",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "contains": "contains",
    "matches": "matches",
}
_STRAY: Final[Mapping[str, str]] = {
    '"': "the text has no closing quote",
    "'": "the text has no closing quote",
    "=": "to compare is ==",
    "&": "and is &&",
    "|": "or is ||",
}
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}


class FilterError(ValueError):
    """A filter that means nothing; ``position`` is the character where that shows."""

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.text = text
        self.position = position

    def __str__(self) -> str:
        return f"{self.reason}\n  {self.text}\n  {' ' * self.position}^"


class _Token(NamedTuple):
    """``kind`` is symbol, quoted, word or end; ``text`` is without quotes."""

    kind: str
    text: str
    position: int


def compile_filter(text: str) -> Predicate:
    """Make a function that tells whether a frame passes.

    Raises:
        FilterError: the text is no filter, names an unknown field, or compares a field with
            what it can never be.
    """
    return _Parser(text).parse()


class _Parser:
    """Recursive descent; every production returns the predicate it has read."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_LENGTH:
            self._fail(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
        self._tokens = self._tokenize()
        self._token = next(self._tokens)
        self._depth = 0

    def parse(self) -> Predicate:
        """Read the whole text."""
        predicate = self._or()
        if self._token.kind != "end":
            self._fail(f"expected && or || but got {self._token.text!r}")
        return predicate

    # Tokens

    def _tokenize(self) -> Iterator[_Token]:
        position = 0
        while True:
            match = _TOKEN.match(self._text, position)
            assert match is not None
            kind = match.lastgroup
            assert kind is not None
            text, start = match[kind], match.start(kind)
            if kind == "bad":
                self._fail(_STRAY.get(text, f"stray {text!r}"), start)
            if kind == "quoted":
                text = _ESCAPE.sub(r"\1", text[1:-1])
            yield _Token(kind, text, start)
            position = match.end()

    def _take(self) -> _Token:
        token = self._token
        self._token = next(self._tokens)
        return token

    def _symbol(self) -> str:
        """Give the current token as a symbol, words like ``and`` included; empty if it is none."""
        kind, text, _ = self._token
        if kind == "symbol":
            return text
        return _WORDS.get(text, "") if kind == "word" else ""

    def _fail(self, reason: str, position: int | None = None) -> NoReturn:
        if position is None:
            position = self._token.position
        raise FilterError(reason, text=self._text, position=position) from None

    # Productions

    def _or(self) -> Predicate:
        parts = [self._and()]
        while self._symbol() == "||":
            self._take()
            parts.append(self._and())
        return _any(parts) if len(parts) > 1 else parts[0]

    def _and(self) -> Predicate:
        parts = [self._not()]
        while self._symbol() == "&&":
            self._take()
            parts.append(self._not())
        return _all(parts) if len(parts) > 1 else parts[0]

    def _not(self) -> Predicate:
        symbol = self._symbol()
        if symbol not in {"!", "("}:
            return self._comparison()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"nested deeper than {MAX_DEPTH}")
        start = self._take().position
        if symbol == "!":
            predicate = _negation(self._not())
        else:
            predicate = self._or()
            if self._symbol() != ")":
                self._fail("this parenthesis is not closed", start)
            self._take()
        self._depth -= 1
        return predicate

    def _comparison(self) -> Predicate:
        token = self._token
        if token.kind != "word":
            self._fail("expected the name of a field")
        self._take()
        try:
            definitions_of(token.text)
        except UnknownFieldError as error:
            self._fail(str(error), token.position)
        symbol = self._symbol()
        if symbol not in _OPERATORS:
            return _Comparison(token.text, lambda field: _is_set)
        self._take()
        value = self._token
        if value.kind not in {"word", "quoted"}:
            self._fail("expected a value")
        self._take()
        return self._compare(token.text, symbol, value)

    def _compare(self, name: str, symbol: str, value: _Token) -> Predicate:
        """Make the comparison, which must make sense for all kinds of frame with this field."""
        for definition in definitions_of(name):
            try:
                _test(definition.field, symbol, value.text)
            except ValueError as error:
                self._fail(str(error), value.position)
        return _Comparison(name, lambda field: _test(field, symbol, value.text))


class _Comparison:
    """Tests one field; the test of each shape of frame is made when it first comes."""

    def __init__(self, name: str, test: Callable[[Field], Test]) -> None:
        self._name = name
        self._test = test
        self._tests: dict[Shape, tuple[Getter, Test]] = {}

    def __call__(self, frame: Frame) -> bool:
        """Tell whether the frame has the field and its value passes."""
        shape = shape_of(frame)
        known = self._tests.get(shape)
        if known is None:
            known = self._tests[shape] = self._compile(shape)
        get, test = known
        value = get(frame)
        return value is not None and test(value)

    def _compile(self, shape: Shape) -> tuple[Getter, Test]:
        field = field_of(shape, self._name)
        return (_absent, _is_set) if field is None else (field.getter(), self._test(field))


def _absent(frame: Frame) -> None:
    return None


def _is_set(value: object) -> bool:
    return value is not False


def _negation(inner: Predicate) -> Predicate:
    return lambda frame: not inner(frame)


def _any(parts: list[Predicate]) -> Predicate:
    return lambda frame: any(part(frame) for part in parts)


def _all(parts: list[Predicate]) -> Predicate:
    return lambda frame: all(part(frame) for part in parts)


# Values, by the type of the field that they are compared with.


def _test(field: Field, symbol: str, text: str) -> Test:
    """Make the test of a field's value; ValueError if it can never make sense."""
    if symbol == "contains":
        if field.type in _NESTED:
            names = field.type is FieldType.OBJECT
            return lambda value: text in map(_plain, _flat(value, names=names))
        return lambda value: text in _plain(value)
    if symbol == "matches":
        pattern = re.compile(translate(text), re.DOTALL)
        return lambda value: pattern.match(_plain(value)) is not None
    if field.type in _NESTED:
        raise ValueError(f"{field.name} is {_NESTED[field.type]}: use contains")
    if field.type is FieldType.BOOLEAN and symbol not in {"==", "!="}:
        raise ValueError(f"{field.name} is true or false: use == or !=")
    compare = _COMPARE[symbol]
    wanted = _VALUES[field.type](field.name, text)
    key = _KEYS.get(field.type)
    if key is None:
        return lambda value: compare(value, wanted)
    return lambda value: compare(key(value), wanted)


def _plain(value: object) -> str:
    """Write a value as a user would."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _flat(entry: object, *, names: bool) -> Iterator[object]:
    """Give the values in lists and objects, however deep, and with ``names`` theirs."""
    if isinstance(entry, dict):
        if names:
            yield from entry
        entry = list(entry.values())
    if isinstance(entry, list):
        for value in entry:
            yield from _flat(value, names=names)
    else:
        yield entry


def _integer(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{name} is an integer, {text!r} is not") from None


def _boolean(name: str, text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError(f"{name} is true or false, {text!r} is neither")
    return _BOOLEANS[text]


def _time(name: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ValueError(f"{name} is seconds since the epoch, {text!r} is not a number")
    return value


def _string(name: str, text: str) -> str:
    return text


_VALUES: Final[Mapping[FieldType, Callable[[str, str], Any]]] = {
    FieldType.INTEGER: _integer,
    FieldType.HEX: _integer,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIME: _time,
    FieldType.STRING: _string,
}
_KEYS: Final[Mapping[FieldType, Callable[[Any], Any]]] = {
    FieldType.HEX: lambda value: int(value, 16),
    FieldType.TIME: Decimal,
}
"""What makes a value comparable that is a string in JSON."""
