# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mfdtool.rules import RULES, RULES_BY_NAME, Severity, find_rule

ROOT = Path(__file__).parents[1]


def test_table_is_in_order_and_without_doubles() -> None:
    ids = list(RULES)
    assert ids == sorted(set(ids))
    assert len(RULES_BY_NAME) == len(RULES) > 80
    for rule in RULES.values():
        assert re.fullmatch(r"MFD[1-6][0-9]{2}", rule.id)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
        assert re.fullmatch(r"(?:[A-Z]|idx|idstr|[a-z]+_[a-z_]+ ).*\.", rule.sentence)
        assert re.fullmatch(r"[a-z/-]+\.[ch]:\w+", rule.source), rule.source


def test_every_rule_is_used_and_every_name_is_a_rule() -> None:
    used: set[str] = set()
    for package in ("loader", "replay", "workflows"):
        for path in (ROOT / "mfdtool" / package).glob("*.py"):
            used |= set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', path.read_text()))
    assert set(RULES_BY_NAME) <= used


def test_rules_are_found_by_id_and_name() -> None:
    assert find_rule("mfd211") is find_rule("IDX-duplicate") is RULES["MFD211"]
    with pytest.raises(KeyError):
        find_rule("MFD999")


def test_severities_are_ordered() -> None:
    assert Severity.NOTE < Severity.WARNING < Severity.ERROR
    assert max(Severity) is Severity.ERROR
