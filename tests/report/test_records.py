# SPDX-License-Identifier: GPL-2.0-or-later
"""Records as lines."""

from __future__ import annotations

import json

from mfdtool.report.records import record_json, record_text
from mfdtool.wire.vendors.cursor import Located
from mfdtool.wire.vendors.vendor import Record

RECORD = Record(
    offset=24,
    length=(1 << 40) + 16,
    header=16,
    name="FW_DATA",
    fields={"record_size": 1 << 40, "flags": 0, "regs": "0x1 0x2", "fifo": "0000", "empty": ""},
    missing=7,
    problem="too large",
)


def test_text() -> None:
    assert record_text(Located(RECORD, "idx 0 (multifd-1 #3)", "idx 9 (multifd-0 #4)")) == (
        '          24 1099511627792  FW_DATA  record_size=0x10000000000 flags=0 regs="0x1 0x2"'
        " fifo=0 empty= [7 bytes missing] [too large]"
        "  in idx 0 (multifd-1 #3) to idx 9 (multifd-0 #4)\n"
    )
    plain = Record(offset=0, length=5, name="data")
    assert record_text(Located(plain, "main #3", "main #3")) == (
        "           0            5  data  in main #3\n"
    )
    assert record_text(Located(plain)) == "           0            5  data\n"


def test_json() -> None:
    found = json.loads(record_json(Located(RECORD, "main #3", "main #4"), vendor="mlx5"))
    assert found == {
        "format": 1,
        "vendor": "mlx5",
        "offset": 24,
        "length": (1 << 40) + 16,
        "header": 16,
        "name": "FW_DATA",
        "fields": {
            "record_size": 1 << 40,
            "flags": 0,
            "regs": "0x1 0x2",
            "fifo": "0000",
            "empty": "",
        },
        "missing": 7,
        "problem": "too large",
        "first": "main #3",
        "last": "main #4",
    }


def test_json_does_not_round() -> None:
    exact = Record(offset=0, length=1, name="a", fields={"low": 1 << 53, "high": (1 << 53) + 1})
    found = json.loads(record_json(Located(exact), vendor="x"))
    assert found["fields"] == {"low": 1 << 53, "high": "0x20000000000001"}
    assert (found["problem"], found["first"], found["last"]) == (None, None, None)
