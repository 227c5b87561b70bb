# SPDX-License-Identifier: GPL-2.0-or-later
"""What the start of a main-stream element looks like, to find one among bytes of unknown meaning.

Bodies do not say how long they are, and captures have holes. A footer with a plausible element
behind it is what sections are found by: five bytes that repeat the section's id, then a type and
a header that make sense. Right behind a hole an element may begin as well: captures lack segments,
and a source often ends a segment where an element ends.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from mfdtool.stream.reader import Reader
from mfdtool.wire.constants import COMMAND_LENGTHS, SECTION_FOOTER_SIZE, Command, SectionType

SECTION_ID_LIMIT: Final = 1 << 16
"""A section id is a small number: sources count their SaveVM entries from 0."""

_STARTS: Final = frozenset({SectionType.START, SectionType.FULL})
_PARTS: Final = frozenset({SectionType.PART, SectionType.END})
_COMMAND_NUMBERS: Final = frozenset(int(command) for command in Command)
_FOOTER_START: Final = bytes((SectionType.FOOTER, 0, 0))
_HEADER_SIZE: Final = 5
_START_PREFIX: Final = 6
"""Bytes of a START or FULL header up to and with the idstr's length."""
_END_SIZE: Final = 1 + _HEADER_SIZE + 1
"""EOF, the vmdescription's header, and the brace that its text begins with."""
_LONGEST: Final = _START_PREFIX + 255


def find_element(reader: Reader, start: int, known: Container[int]) -> tuple[int | None, int]:
    """Search what was fed, from ``start`` on, for a footer with a plausible element behind it.

    ``known`` are the section ids seen so far. Gives the footer's position, or None; and where to
    search on when more was fed.
    """
    while True:
        at = reader.find(_FOOTER_START, start)
        if at < 0:
            return None, max(start, reader.fed - len(_FOOTER_START) + 1)
        verdict = looks_like_element(reader, at + SECTION_FOOTER_SIZE, known)
        if verdict is None:
            return None, at
        if verdict:
            return at, at
        start = at + 1


def find_behind_gaps(
    reader: Reader, start: int, stop: int, known: Container[int]
) -> tuple[int | None, int]:
    """Search for a plausible element right behind one of the gaps between two positions.

    Gives where it begins, or None; and where to search on if more was fed, ``stop`` if all gaps
    were looked behind.
    """
    passed = start
    for low, high in reader.stretches(start, stop):
        if low > passed:
            verdict = _resumes(reader, low, known)
            if verdict is None:
                return None, passed
            if verdict:
                return low, low
        passed = high
    return None, stop


def _resumes(reader: Reader, at: int, known: Container[int]) -> bool | None:
    """Tell whether an element begins behind a gap; None if more must be fed to know.

    An end is believed only with the text of a vmdescription behind it: it gives up all the rest.
    """
    if reader.peek_at(at, 1) != bytes([SectionType.EOF]):
        return looks_like_element(reader, at, known)
    data = reader.peek_at(at, _END_SIZE)
    if len(data) < _END_SIZE:
        is_all = reader.end is not None or at + len(data) < reader.fed
        return len(data) == 1 and at + 1 == reader.fed if is_all else None
    return data[1] == SectionType.VMDESCRIPTION and data.endswith(b"{")


def looks_like_element(reader: Reader, at: int, known: Container[int]) -> bool | None:
    """Tell whether an element could begin at ``at``; None if more must be fed to know."""
    data = reader.peek_at(at, _LONGEST)
    final = reader.end is not None or at + len(data) < reader.fed
    if not data:
        # A stream may well end behind a footer, or a gap may begin there.
        return True if final else None
    kind = data[0]
    if kind == SectionType.EOF:
        if len(data) == 1:
            return True if final else None
        return data[1] == SectionType.VMDESCRIPTION
    if kind in _STARTS:
        length = data[_START_PREFIX - 1] if len(data) >= _START_PREFIX else 0
        wanted = _START_PREFIX + length
    elif kind in _PARTS or kind == SectionType.COMMAND:
        wanted = _HEADER_SIZE
    else:
        return False
    if len(data) < wanted:
        return False if final else None
    return _is_header(kind, data[:wanted], known)


def _is_header(kind: int, header: bytes, known: Container[int]) -> bool:
    if kind == SectionType.COMMAND:
        command, length = int.from_bytes(header[1:3]), int.from_bytes(header[3:5])
        return command in _COMMAND_NUMBERS and COMMAND_LENGTHS[Command(command)] in (None, length)
    section_id = int.from_bytes(header[1:5])
    if kind in _PARTS:
        return section_id in known
    idstr = header[_START_PREFIX:]
    named = bool(idstr) and idstr.isascii() and idstr.decode().isprintable()
    return named and section_id < SECTION_ID_LIMIT
