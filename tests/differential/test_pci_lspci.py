# SPDX-License-Identifier: GPL-2.0-or-later
"""Config spaces as lspci reads them, and as this package does.

``lspci/*.txt`` is what ``lspci -n -vvv -F DUMP`` (pciutils 3.9.0) prints of the config spaces
below; lspci's words are taken apart into facts, and the same facts are made of `PciState`. Where
lspci is installed, it is also asked about random config spaces.

``pytest tests/differential/test_pci_lspci.py --update-golden`` asks lspci again.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from mfdtool.fixtures.pci import pci_config
from mfdtool.wire.codec import Message
from mfdtool.wire.pci_config import (
    BarKind,
    Express,
    Msi,
    Msix,
    PowerManagement,
    VendorSpecific,
    bar_and_offset,
)
from mfdtool.wire.pci_state import PciState, parse_pci_state
from mfdtool.wire.pci_tables import PciCommand, PciStatus
from tests.support.captures import decoded
from tests.support.pci import CONNECTX, config, space
from tests.support.programs import find_program, need_program

GOLDEN = Path(__file__).parent / "lspci"

_COMMAND_WORDS = {
    PciCommand.IO: "I/O",
    PciCommand.MEMORY: "Mem",
    PciCommand.MASTER: "BusMaster",
    PciCommand.SPECIAL: "SpecCycle",
    PciCommand.INVALIDATE: "MemWINV",
    PciCommand.VGA_PALETTE: "VGASnoop",
    PciCommand.PARITY: "ParErr",
    PciCommand.WAIT: "Stepping",
    PciCommand.SERR: "SERR",
    PciCommand.FAST_BACK: "FastB2B",
    PciCommand.INTX_DISABLE: "DisINTx",
}
_STATUS_WORDS = {
    PciStatus.CAP_LIST: "Cap",
    PciStatus.MHZ_66: "66MHz",
    PciStatus.FAST_BACK: "FastB2B",
    PciStatus.PARITY: "ParErr",
    PciStatus.SIG_TARGET_ABORT: ">TAbort",
    PciStatus.REC_TARGET_ABORT: "<TAbort",
    PciStatus.REC_MASTER_ABORT: "<MAbort",
    PciStatus.SIG_SYSTEM_ERROR: ">SERR",
    PciStatus.DETECTED_PARITY: "<PERR",
    PciStatus.INTERRUPT: "INTx",
}
_NAMES = {
    "Express": "EXP",
    "MSI-X": "MSIX",
    "MSI": "MSI",
    "Power Management": "PM",
    "Vendor Specific": "VNDR",
    "Alternative Routing": "ARI",
    "Access Control": "ACS",
}


def real_state() -> PciState:
    (frame,) = [each for each in decoded("mtty-4ch-clean")[1] if each.config]
    return parse_pci_state(frame.config)


STATES = {
    "mtty": real_state(),
    "connectx": parse_pci_state(config(space())),
    "connectx-conventional": parse_pci_state(config(space(size=256))),
    "made": parse_pci_state(pci_config(vectors=2048)),
}


def ask(state: PciState, directory: Path) -> str:
    """Let lspci read a config space."""
    dump = directory / "dump"
    lines = [
        f"{at:02x}: {state.space[at : at + 16].hex(' ')}" for at in range(0, len(state.space), 16)
    ]
    dump.write_text("\n".join(("00:05.0 device", *lines, "", "")))
    return subprocess.run(
        [need_program("lspci"), "-n", "-vvv", "-F", str(dump)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={"LC_ALL": "C"},
    ).stdout


def theirs(text: str) -> Iterator[str]:
    """Give the facts in lspci's words."""
    first, *lines = text.splitlines()
    match = re.match(r"\S+ (\w{4}): (\w{4}):(\w{4})(?: \(rev (\w+)\))?(?: \(prog-if (\w+))?", first)
    assert match, first
    yield f"class {match[1]} ids {match[2]}:{match[3]} rev {match[4] or '00'}"
    half = ""
    for line in lines:
        for fact in their_line(line.strip()):
            # Of a BAR of 64 bits lspci also shows the upper register, as if it were a BAR.
            if not (half and fact.startswith(half)):
                yield fact
            if match := re.match(r"bar (\d) \S+ \S+ 64", fact):
                half = f"bar {int(match[1]) + 1} "


def their_line(line: str) -> Iterator[str]:
    word, _, rest = line.partition(": ")
    if word in {"Control", "Status"} and "DisINTx" in rest + "DisINTx" * ("DEVSEL" in rest):
        yield f"{word} " + " ".join(each for each in rest.split() if each.endswith("+"))
    elif word == "Subsystem":
        yield f"subsystem {rest}"
    elif word == "Interrupt" and (pin := re.match(r"pin (\w) routed to IRQ (\d+)", rest)):
        yield f"pin {pin[1]} line {pin[2]}"
    elif bar := re.match(r"Region (\d): (Memory|I/O ports) at (\S+)(.*)", line):
        address = "0" if bar[3].startswith("<") else bar[3]
        wide = " 64" * ("64-bit" in bar[4])
        fast = " fast" * ("prefetchable" in bar[4] and "non-prefetchable" not in bar[4])
        yield f"bar {bar[1]} {bar[2].split()[0]} {address}{wide}{fast}"
    elif capability := re.match(r"Capabilities: \[(\w+)(?: v(\d+))?\] (.*)", line):
        name = next((ours for word, ours in _NAMES.items() if capability[3].startswith(word)), "?")
        yield f"capability {capability[1]} {name} v{capability[2] or 0}"
        yield from their_interrupts(capability[3])
    elif line.startswith(("Vector table", "PBA")):
        yield line
    elif line.startswith(("Address", "Masking")):
        yield re.sub(r"\s+", " ", line)


def their_interrupts(text: str) -> Iterator[str]:
    if match := re.match(r"MSI-X: Enable(.) Count=(\d+) Masked(.)", text):
        yield f"msix {match[1]} {match[2]} {match[3]}"
    elif match := re.match(r"MSI: Enable(.) Count=(\d+)/(\d+) Maskable(.) 64bit(.)", text):
        yield f"msi {match[1]} {match[2]} of {match[3]} {match[4]} {match[5]}"
    elif match := re.match(r"Vendor Specific Information: Len=(\w+)", text):
        yield f"length {match[1]}"


def ours(state: PciState) -> Iterator[str]:
    """Give the same facts of what this package has read."""
    header = state.header
    yield (
        f"class {header.device_class >> 8:04x} ids {header.vendor_id:04x}:{header.device_id:04x}"
        f" rev {header.revision_id:02x}"
    )
    if header.subsystem_vendor_id:
        yield f"subsystem {header.subsystem_vendor_id:04x}:{header.subsystem_id:04x}"
    command = [word for bit, word in _COMMAND_WORDS.items() if header.command & bit]
    yield "Control " + " ".join(f"{word}+" for word in command)
    status = [word for bit, word in _STATUS_WORDS.items() if header.status & bit]
    yield "Status " + " ".join(f"{word}+" for word in status)
    if header.interrupt_pin:
        yield f"pin {' ABCD'[header.interrupt_pin]} line {header.interrupt_line}"
    for bar in header.used_bars():
        kind = "I/O" if bar.kind is BarKind.IO else "Memory"
        wide = " 64" * (bar.kind is BarKind.MEMORY64)
        address = f"{bar.address:0{8 if kind == 'Memory' else 4}x}" if bar.address else "0"
        yield f"bar {bar.number} {kind} {address}{wide}{' fast' * bar.prefetchable}"
    for each in state.capabilities:
        yield f"capability {each.offset:02x} {each.name} v{each.version}"
        yield from our_body(each.body)


def our_body(body: Message | None) -> Iterator[str]:
    if isinstance(body, Msix):
        yield f"msix {sign(body.enabled)} {body.vectors} {sign(body.masked)}"
        for name, register in (("Vector table", body.table), ("PBA", body.pba)):
            bar, offset = bar_and_offset(register)
            yield f"{name}: BAR={bar} offset={offset:08x}"
    elif isinstance(body, Msi):
        in_use, possible = 1 << (body.flags >> 4 & 7), 1 << (body.flags >> 1 & 7)
        wide, maskable = body.address_hi is not None, body.mask is not None
        yield f"msi {sign(body.enabled)} {in_use} of {possible} {sign(maskable)} {sign(wide)}"
        high = f"{body.address_hi:08x}" if wide else ""
        yield f"Address: {high}{body.address_lo:08x} Data: {body.data:04x}"
        if maskable:
            yield f"Masking: {body.mask:08x} Pending: {body.pending:08x}"
    elif isinstance(body, VendorSpecific):
        yield f"length {body.length:02x}"


def sign(value: object) -> str:
    return "+" if value else "-"


@pytest.mark.parametrize("name", STATES)
def test_recorded(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    golden = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden") and find_program("lspci"):
        golden.write_text(ask(STATES[name], tmp_path))
    facts = list(ours(STATES[name]))
    assert list(theirs(golden.read_text())) == facts
    assert len(facts) >= 4


def test_facts_are_those_that_were_put_in() -> None:
    facts = list(ours(STATES["connectx"]))
    assert "bar 0 Memory 1fe000000 64 fast" in facts
    assert "msix + 3 -" in facts
    assert "msi + 1 of 4 + +" in facts
    assert "length 18" in facts


@pytest.mark.parametrize("seed", range(12))
def test_random(seed: int, tmp_path: Path) -> None:
    state = parse_pci_state(pci_config()[:4] + random_space(Random(seed)) + bytes(16))
    assert list(theirs(ask(state, tmp_path))) == list(ours(state))


def random_space(random: Random) -> bytes:
    """Make a config space whose capabilities are in any order, and where no two overlap."""
    bodies: list[PowerManagement | Msi | Msix | Express | VendorSpecific] = [
        PowerManagement(pmc=random.getrandbits(3), ctrl=random.getrandbits(2)),
        Msi(
            flags=random.choice((0x0000, 0x0081)) | random.randrange(4) << 1,
            address_lo=random.getrandbits(30) << 2,
            data=random.getrandbits(16),
        ),
        Msix(
            flags=random.choice((0, 0x4000, 0x8000)) | random.getrandbits(11),
            table=random.randrange(6) | random.getrandbits(20) << 3,
            pba=random.randrange(6) | random.getrandbits(20) << 3,
        ),
        Express(flags=2),
        VendorSpecific(length=random.randrange(3, 40)),
    ]
    random.shuffle(bodies)
    bodies = bodies[: random.randrange(len(bodies) + 1)]
    places = random.sample(range(0x40, 0xC0, 0x20), min(4, len(bodies)))
    places += [0xC0] * (len(bodies) - len(places))
    capabilities: dict[int, Message] = {}
    for body, at, following in zip(bodies, places, [*places[1:], 0], strict=False):
        if isinstance(body, Msi) and body.flags & 0x80:
            body = replace(body, address_hi=random.getrandbits(32))
        capabilities[at] = replace(body, next=following)
    header = replace(
        CONNECTX,
        command=random.getrandbits(11),
        status=0x10 if capabilities else 0,
        revision_id=random.randrange(1, 256),
        capability_list=places[0] if places else 0,
        interrupt_pin=random.randrange(5),
        interrupt_line=random.randrange(256),
        bars=(random.getrandbits(28) << 4, 0, random.getrandbits(28) << 4 | 0xC, 1, 0, 0xE001),
    )
    # lspci looks for extended capabilities of PCI Express devices only.
    is_express = any(isinstance(body, Express) for body in bodies)
    return space(header, capabilities, extended=((0x100, 0x0E, 1, 0),) if is_express else ())
