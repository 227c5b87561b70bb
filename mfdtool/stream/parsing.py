# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoding messages of variable length at a reader's cursor."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, TypeVar

from mfdtool.errors import TruncatedError, WireError
from mfdtool.stream.reader import Reader, State

T = TypeVar("T")

Parse = Callable[[bytes], tuple[T, int]]
"""Decodes what bytes begin with; gives it and its length, raises like `Message.parse_prefix`."""

MESSAGE_LIMIT: Final = 1 << 12
"""Longest message that is believed; real ones have some hundred bytes."""


def take(
    reader: Reader, parse: Parse[T], *, limit: int = MESSAGE_LIMIT
) -> Generator[None, None, T | None]:
    """Decode the message at the cursor and move over it.

    None, and no move, if the bytes there are not one, are not all there, or if it would be longer
    than ``limit``.
    """
    wanted = 1
    probe = _PROBE
    while True:
        state = yield from reader.need(wanted)
        if state is not State.READY:
            return None
        # Take all that is there: a message is then seldom tried twice, and never once per byte.
        wanted = max(wanted, min(reader.available(), probe))
        try:
            value, used = parse(reader.peek(wanted))
        except TruncatedError as error:
            wanted += max(error.missing, 1)
            probe *= 2
            if wanted > limit:
                return None
            continue
        except WireError:
            return None
        reader.advance(used)
        return value


_PROBE: Final = 512
