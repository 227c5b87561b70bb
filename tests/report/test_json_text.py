# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON text, indented without being read."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from mfdtool.report.json_text import indented


def indent(text: bytes) -> bytes:
    return b"".join(indented(text))


def random_value(random: Random, depth: int = 0) -> Any:
    kind = random.randrange(6 if depth < 4 else 4)
    if kind == 4:
        return [random_value(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 5:
        return {f"k{n}": random_value(random, depth + 1) for n in range(random.randrange(4))}
    return random.choice([1, -2.5, True, None, "", 'a "quoted" \\ {text}, [x]: y', "\u00e9"])


@pytest.mark.parametrize("seed", range(50))
def test_same_as_the_json_module(seed: int) -> None:
    value = random_value(Random(seed))
    for text in (json.dumps(value), json.dumps(value, separators=(",", ":"))):
        assert indent(text.encode()).decode() == json.dumps(value, indent=2) + "\n"


def test_repeated_keys_stay() -> None:
    assert indent(b'{"a":1,"a":2}') == b'{\n  "a": 1,\n  "a": 2\n}\n'


def test_broken_text() -> None:
    assert indent(b'}]"open') == b'}\n]"open\n'
    assert indent(b"") == b"\n"


def test_deep_nesting_stays_small() -> None:
    assert len(indent(b"[" * 10_000)) < 10_000 * 140
