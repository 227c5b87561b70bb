# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways into the layers, each in an interpreter of its own: all give the same classes."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from scapy.config import conf
from scapy.packet import Packet

import dissectors
from dissectors.contrib import qemu_multifd

IMPORT = """
import sys
import dissectors
assert not any(name.partition(".")[0] == "scapy" for name in sys.modules), "scapy was imported"
import dissectors.main_stream, dissectors.multifd, dissectors.return_path
shared = {name for name in sys.modules if name.partition(".")[0] in {"mfdtool", "construct"}}
assert shared == {"mfdtool", "mfdtool.wire", "mfdtool.wire.constants"}, shared
from scapy.layers.inet import TCP
before = list(TCP.payload_guess)
import dissectors.contrib.qemu_multifd, dissectors.ports
assert TCP.payload_guess == before, "something was bound"
"""

EXTENSION = """
from scapy.config import conf
conf.exts.load("mfdtool")
assert [(ext.name, list(ext.specs)) for ext in conf.exts.exts] == [
    ("mfdtool", ["scapy.contrib.qemu_multifd"])
]
"""

REGISTER = """
import dissectors
dissectors.register()
dissectors.register()
"""

LOAD = """
from scapy.main import load_contrib
names = []
load_contrib("qemu_multifd", globals(), names)
assert {"MultiFDInit", "MainStream", "ReturnPath", "bind_ports", "read"} <= set(names)
import dissectors.contrib.qemu_multifd as ours
import scapy.contrib.qemu_multifd as theirs
assert ours is not theirs
for name in names:
    assert globals()[name] is getattr(ours, name) is getattr(theirs, name), name
from dissectors.multifd import MultiFDInit as imported
assert MultiFDInit is imported
assert MultiFDInit(bytes(MultiFDInit(id=3))).id == 3
"""


@pytest.mark.parametrize(
    "door",
    [IMPORT, EXTENSION + LOAD, REGISTER + LOAD],
    ids=["import", "conf.exts.load", "register"],
)
def test_door(door: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", door], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf.exts, "all_specs", {})
    dissectors.register()
    (spec,) = conf.exts.all_specs.values()
    assert (spec.fullname, spec.default) == ("scapy.contrib.qemu_multifd", False)
    assert spec.spec.origin == qemu_multifd.__file__


def test_everything_is_exported() -> None:
    layers = set()
    for name in ("captured", "main_stream", "multifd", "ram", "return_path", "vfio"):
        module = importlib.import_module(f"dissectors.{name}")
        layers |= {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Packet) and value.fields_desc
        }
    assert layers - {"Raw"} == set(qemu_multifd.__all__) - {"bind_ports", "read"}


@pytest.mark.parametrize("name", sorted(set(qemu_multifd.__all__) - {"bind_ports", "read"}))
def test_no_field_is_hidden_by_scapy(name: str) -> None:
    layer = getattr(qemu_multifd, name)
    names = [field.name for field in layer.fields_desc]
    assert len(names) == len(set(names))
    assert [name for name in names if name in dir(Packet)] == []
    assert layer.__doc__
