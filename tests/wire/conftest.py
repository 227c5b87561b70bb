# SPDX-License-Identifier: GPL-2.0-or-later
"""One helper that every message goes through, and real main streams."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.codec import Message

BASE = 1000

# Made of captures/NAME.pcap.gz: tshark -r NAME.pcap -q -z follow,tcp,raw,0 | xxd -r -p | gzip
STREAMS = Path(__file__).parents[1] / "golden" / "main_stream"


@pytest.fixture
def check_message() -> Callable[..., None]:
    """Give a function that proves that a value and some bytes are the same message."""
    return _check_message


@pytest.fixture(params=["mtty-main-stream-only", "mtty-2dev-2ch-holes"])
def main_stream(request: pytest.FixtureRequest) -> bytes:
    """Give the whole main stream of a real migration."""
    return gzip.decompress((STREAMS / f"{request.param}.gz").read_bytes())


def _check_message(value: Message, data: bytes, **context: Any) -> None:
    kind = type(value)
    where: dict[str, Any] = {"channel": "main", "offset": BASE, **context}
    assert kind.parse(data, **where) == value
    assert value.build() == data
    assert kind.parse_prefix(memoryview(data + b"\0rest"), **where) == (value, len(data))
    with pytest.raises(WireError, match="1 bytes too many") as trailing:
        kind.parse(data + b"\0", **where)
    assert trailing.value.offset == BASE + len(data)
    for length in range(len(data)):
        _check_truncated(kind, data, length, where)


def _check_truncated(kind: type[Message], data: bytes, length: int, where: dict[str, Any]) -> None:
    with pytest.raises(TruncatedError) as caught:
        kind.parse_prefix(data[:length], **where)
    error = caught.value
    assert 1 <= error.missing <= len(data) - length
    assert BASE <= error.offset <= BASE + length
    assert error.channel == "main"
    assert error.path
