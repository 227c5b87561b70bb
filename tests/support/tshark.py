# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as the real tshark shows them with the generated dissector, and as decode gives them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias
from xml.etree import ElementTree

from mfdtool.report.wireshark import wireshark_script
from mfdtool.report.wireshark_tables import COMMON_SHOWN, GROUPS, PREFIX, is_shown
from mfdtool.stream.field import FieldType
from mfdtool.stream.field_tables import BY_VALUE, COMMON
from mfdtool.stream.fields import fields_of, shape_of, values
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.migration import Decoder
from tests.support.programs import need_program

Shown: TypeAlias = dict[tuple[int, int], list[dict[str, Any]]]
"""What was shown of each stream, by its source and destination port."""

NOT_SENT: Final = frozenset({Kind.GAP.value, Kind.UNDECODED.value})
TIME_LIMIT: Final = 120
_SHAPES: Final = {kind: [(kind, object), *((kind, value) for value in BY_VALUE)] for kind in Kind}
"""What decides which fields a frame of a kind can have."""

_PROBLEMS: Final = re.compile(r"(?i)lua error|dissector bug|malformed|attempt to|traceback")


def run_tshark(
    capture: Path, *options: str, script: Path | None = None, directory: Path | None = None
) -> str:
    """Run tshark on a capture with the dissector; give what it prints.

    The user's own settings and plugins are left alone. Fails if there was a Lua error.
    """
    directory = directory or capture.parent
    if script is None:
        script = directory / "dissector.lua"
        script.write_text(wireshark_script(), encoding="utf-8")
    tshark = need_program("tshark")
    command = [tshark, "-n", "-X", f"lua_script:{script}", "-r", str(capture), *options]
    home = directory / "home"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    done = subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        timeout=TIME_LIMIT,
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    problems = [
        line
        for line in (done.stderr.decode("utf-8", "replace") + output).splitlines()
        if _PROBLEMS.search(line)
    ]
    assert not problems, problems[:5]
    return output


def shown_by_tshark(capture: Path, *options: str, script: Path | None = None) -> Shown:
    """Give what tshark shows of each stream: the values of each frame, by their names."""
    chosen = ("-T", "pdml", "-J", f"tcp {PREFIX}", "-Y", PREFIX, *options)
    text = run_tshark(capture, *chosen, script=script)
    shown: Shown = {}
    for packet in ElementTree.fromstring(text):
        ports = _ports(packet)
        for proto in packet.iterfind("proto"):
            names = [field.get("name") for field in proto.iter("field")]
            if proto.get("name") == PREFIX and f"{PREFIX}.kind" in names:
                shown.setdefault(ports, []).append(_values(proto))
    return shown


def shown_by_decode(decoder: Decoder, frames: Iterable[Frame]) -> Shown:
    """Give the same of decode's frames, without what only decode can know."""
    ports = {}
    for number, migration in enumerate(decoder.migrations):
        for channel in migration.channels:
            key = channel.stream.key
            assert key is not None
            ports[number, channel.name] = (key.source.port, key.destination.port)
    shown: Shown = {}
    for frame in frames:
        if frame.kind not in NOT_SENT:
            where = ports[frame.channel.migration, frame.channel.name]
            shown.setdefault(where, []).append(_expected(frame))
    return shown


def without(shown: Shown, *names: str) -> Shown:
    """Leave out frames that are none, and some of the others' values."""
    return {
        ports: kept
        for ports, listed in shown.items()
        if (
            kept := [
                {name: value for name, value in each.items() if name not in names}
                for each in listed
                if each["kind"] not in NOT_SENT
            ]
        )
    }


def rules_shown(text: str) -> set[str]:
    """Collect the ids of the rules that some output of tshark names."""
    return set(re.findall(r"\bMFD\d{3}\b", text))


def _ports(packet: ElementTree.Element) -> tuple[int, int]:
    found = {
        name: int(field.get("show", ""))
        for field in packet.iter("field")
        if (name := field.get("name")) in {"tcp.srcport", "tcp.dstport"}
    }
    return found["tcp.srcport"], found["tcp.dstport"]


def _expected(frame: Frame) -> dict[str, Any]:
    types = {field.name: field.type for field in fields_of(shape_of(frame))}
    only_decode = {field.name for field in COMMON if field.name not in COMMON_SHOWN}
    expected: dict[str, Any] = {}
    for name, value in values(frame).items():
        if name in only_decode or name == "reason" or not is_shown(frame.kind, name):
            continue
        if types[name] is FieldType.HEX:
            value = int(str(value), 0)
        if value != []:
            expected[name] = value
    return expected


def _values(proto: ElementTree.Element) -> dict[str, Any]:
    """Give the values of a frame's fields; those of decode's names only."""
    raw: dict[str, list[str]] = {}
    for field in proto.iter("field"):
        name = field.get("name", "")
        if name.startswith(f"{PREFIX}."):
            raw.setdefault(name.removeprefix(f"{PREFIX}."), []).append(field.get("show", ""))
    kind = Kind(raw["kind"][0])
    found: dict[str, Any] = {}
    for shape in _SHAPES[kind]:
        for each in fields_of(shape):
            key = each.name if each.name in COMMON_SHOWN else f"{GROUPS[kind]}.{each.name}"
            if key in raw and each.name != "reason":
                found[each.name] = _converted(raw, key, each.type)
    return found


def _converted(raw: dict[str, list[str]], key: str, kind: FieldType) -> Any:
    shown = raw[key]
    if kind is FieldType.LIST:
        members = [name for name in raw if name.startswith(f"{key}.")]
        if not members:
            return sorted(shown)
        # Optional members are absent from all of a list or, here, from none.
        return [
            {
                name.rpartition(".")[2]: _scalar(raw[name][index])
                for name in members
                if index < len(raw[name])
            }
            for index in range(len(shown))
        ]
    if kind is FieldType.BOOLEAN:
        return shown[0] in {"1", "True"}
    if kind in {FieldType.INTEGER, FieldType.HEX}:
        return int(shown[0], 0)
    return shown[0]


def _scalar(text: str) -> int | str:
    try:
        return int(text, 0)
    except ValueError:
        return text
