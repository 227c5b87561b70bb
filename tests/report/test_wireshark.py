# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of the dissector: whole, the same every time, and at one with its tables.

What it does is tested with the real tshark, in ``tests/differential/test_wireshark.py``.
"""

from __future__ import annotations

import re
from importlib.resources import files

from mfdtool.report.wireshark import SIGNATURE, is_ours, wireshark_script
from mfdtool.report.wireshark_tables import CHECKED_RULES, SCHEMAS, lua_fields
from mfdtool.rules import RULES

PARTS = {
    part.name: part.read_text(encoding="utf-8")
    for part in files("mfdtool.report").joinpath("lua").iterdir()
}
HAND_WRITTEN = "\n".join(PARTS.values())
SCRIPT = wireshark_script()


def test_begins_with_licence_and_signature() -> None:
    first, second, *rest = SCRIPT.splitlines()
    assert first == "-- SPDX-License-Identifier: GPL-2.0-or-later"
    assert second == f"-- {SIGNATURE}"
    assert not any("SPDX" in line for line in rest)
    assert is_ours(SCRIPT)
    assert not is_ours("-- another dissector of QEMU migrations")


def test_has_no_placeholder_left() -> None:
    assert not re.search(r"@[A-Z]+@", SCRIPT)
    assert SCRIPT.isascii()
    assert all(len(line) <= 100 for line in HAND_WRITTEN.splitlines())


def test_all_parts_are_in_it() -> None:
    for text in PARTS.values():
        assert text.rstrip().splitlines()[-1] in SCRIPT
        assert text.startswith("-- SPDX-License-Identifier: GPL-2.0-or-later\n")


def test_is_the_same_every_time() -> None:
    assert wireshark_script() == SCRIPT
    assert wireshark_script([5, 4444, 5]) == wireshark_script([4444, 5])


def test_ports() -> None:
    assert 'local PORTS = ""\n' in SCRIPT
    assert 'local PORTS = "49152,49153"\n' in wireshark_script([49153, 49152])


def test_names_only_rules_that_it_has() -> None:
    assert set(re.findall(r"MFD\d{3}", HAND_WRITTEN)) == set(CHECKED_RULES)
    for rule_id in CHECKED_RULES:
        assert f'{rule_id} = {{ "{RULES[rule_id].name}", ' in SCRIPT


def test_uses_only_fields_and_schemas_that_there_are() -> None:
    keys = {field.key for field in lua_fields()}
    used = set(re.findall(r'F\["([a-z_.]+)"\]', HAND_WRITTEN))
    used |= set(re.findall(r"\bF\.([a-z_]+)", HAND_WRITTEN))
    used |= set(re.findall(r'generated\(item, "([a-z_.]+)"', HAND_WRITTEN))
    assert used
    assert used <= keys
    schemas = {message.__name__ for listed in SCHEMAS.values() for message in listed}
    shown = set(re.findall(r'(?:show|read)\(c, (?:item, )?"(\w+)"', HAND_WRITTEN))
    assert shown
    assert shown <= schemas


def test_every_mode_that_is_entered_exists() -> None:
    modes = set(re.findall(r"function MODES\.(\w+)\(", HAND_WRITTEN))
    entered = set(re.findall(r'(?<!, )s\.mode = "(\w+)"', HAND_WRITTEN))
    entered |= set(re.findall(r's\.kind, s\.channel, s\.mode = "\w+", "[^"]+", "(\w+)"', SCRIPT))
    assert {"element", "multifd_packet", "return_path"} <= entered | modes
    assert entered <= modes
