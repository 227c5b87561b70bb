# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool explain``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches

import click

from mfdtool.cli.console import write_all
from mfdtool.cli.status import ExitStatus
from mfdtool.report.verdict import rule_json, rule_text
from mfdtool.rules import RULES, RULES_BY_NAME, Rule, find_rule


def _rules(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> list[Rule]:
    rules = []
    for name in names:
        try:
            rules.append(find_rule(name))
        except KeyError:
            close = get_close_matches(name.lower(), RULES_BY_NAME, n=3)
            hint = f" Did you mean {', '.join(close)}?" if close else ""
            raise click.BadParameter(f"there is no rule {name!r}.{hint}") from None
    return rules or list(RULES.values())


@click.command("explain")
@click.argument("rules", metavar="[RULE]...", nargs=-1, callback=_rules)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")
def command(*, rules: list[Rule], as_json: bool) -> ExitStatus:
    """Explain a rule and where it comes from.

    RULE is an id as in findings (MFD211), or a rule's name (idx-duplicate). Without one, all rules
    are listed.
    """
    if as_json:
        write_all(f"{json.dumps(rule_json(rule))}\n" for rule in rules)
    else:
        write_all(_text(rules))
    return ExitStatus.OK


def _text(rules: list[Rule]) -> Iterator[str]:
    for number, rule in enumerate(rules):
        if number:
            yield "\n"
        for line in rule_text(rule):
            yield f"{line}\n"
