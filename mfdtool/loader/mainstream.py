# SPDX-License-Identifier: GPL-2.0-or-later
"""The main thread: header, configuration, setup, sections, commands, end (savevm.c).

Up to 10.1 an error of the main stream is printed where it happens, and only an errno is passed on;
later it is recorded with its causes. So errors here come in both versions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mfdtool.loader.commands import Reply, SetState
from mfdtool.loader.device import switch_over
from mfdtool.loader.errno import EINVAL, EIO, ENOTSUP, EPERM, ERANGE
from mfdtool.loader.events import (
    Body,
    Command,
    Configuration,
    End,
    Eof,
    FileHeader,
    Footer,
    Lost,
    MainItem,
    Marker,
    RamRecord,
    SectionPart,
    SectionStart,
    Unknown,
    VmDescription,
)
from mfdtool.loader.finish import complete, fail_loading, join
from mfdtool.loader.moves import MainCause, MainPhase
from mfdtool.loader.sections import end_of_body, read_body
from mfdtool.loader.state import SectionState
from mfdtool.loader.turn import main_trace
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import (
    COMMAND_LENGTHS,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    VFIO_SECTION_VERSION,
    SectionType,
)
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.profile import MainStreamErrors

if TYPE_CHECKING:
    from mfdtool.loader.state import Main
    from mfdtool.loader.turn import Turn

_OLD_VERSION: Final = 2
_LOADVM_QUIT: Final = 1
"""What a command returns that ends the reading of a stream."""
_LONGEST_SIGNED: Final = 1 << 31
_SIGN_EXTENSION: Final = 0xFFFFFFFF << 32
_MAKE_SURE: Final = (
    "Make sure that your current VM setup matches your saved VM setup, including any hotplugged"
    " devices"
)
_CHANNEL_ERROR: Final = "Channel error: Input/output error"
_KNOWN_TYPES: Final = frozenset(
    {
        SectionType.START,
        SectionType.PART,
        SectionType.END,
        SectionType.FULL,
        SectionType.COMMAND,
    }
)
_COMMANDS: Final = {int(number): number for number in CommandNumber}
_ITEM_TYPES: Final = {
    Command: SectionType.COMMAND,
    Footer: SectionType.FOOTER,
    Eof: SectionType.EOF,
    VmDescription: SectionType.VMDESCRIPTION,
    Configuration: SectionType.CONFIGURATION,
}


def why_not(main: Main, item: object) -> str:
    """Say why the main thread cannot read an item; empty if it can."""
    if main.phase not in _READERS:
        return f"the main thread is {main.phase.value}"
    return "" if isinstance(item, MainItem) else "that is no item of the main channel"


def read(turn: Turn, item: MainItem) -> None:
    """Let the main thread read and process the next item of its stream."""
    if isinstance(item, End) and item.reason is EndReason.CAPTURE:
        if turn.main.phase is MainPhase.DESCRIPTION:
            complete(turn, MainCause.BODY)
        return
    if isinstance(item, Lost) and item.is_inside:
        # What is behind them was found by the length that the item before has.
        return
    _READERS[turn.main.phase](turn, item)


def fail(
    turn: Turn, rule: str, errno: int, *, printed: tuple[str, ...] = (), cause: str = ""
) -> None:
    """Fail in the header: nothing of the devices was touched yet."""
    prints = turn.profile.main_stream_errors is MainStreamErrors.PRINTED
    turn.violate(rule, printed[0] if prints and printed else cause)
    fail_loading(turn, errno, printed=printed, cause=cause)


def fail_main(
    turn: Turn, rule: str, errno: int, *, printed: tuple[str, ...] = (), cause: str = ""
) -> None:
    """Fail between sections (savevm.c:qemu_loadvm_state_main)."""
    main_trace(turn, "qemu_loadvm_state_post_main", -errno)
    fail(turn, rule, errno, printed=printed, cause=cause)


# Header, configuration, setup.


def _header(turn: Turn, item: MainItem) -> None:
    if isinstance(item, Lost):
        _begin_setup(turn, MainCause.LOST)
        return
    magic, version = _magic_of(item)
    if magic != QEMU_VM_FILE_MAGIC:
        cause = f"Not a migration stream, magic: {magic:x} != {QEMU_VM_FILE_MAGIC:x}"
        fail(turn, "stream-magic", EINVAL, printed=("Not a migration stream",), cause=cause)
    elif version == _OLD_VERSION:
        printed = "SaveVM v2 format is obsolete and don't work anymore"
        cause = "SaveVM v2 format is obsolete and no longer supported"
        fail(turn, "stream-version", ENOTSUP, printed=(printed,), cause=cause)
    elif version != QEMU_VM_FILE_VERSION:
        printed = "Unsupported migration stream version"
        cause = f"{printed}, file version {version:x} != {QEMU_VM_FILE_VERSION:x}"
        fail(turn, "stream-version", ENOTSUP, printed=(printed,), cause=cause)
    elif turn.destination.has_configuration:
        turn.move_main(MainCause.HEADER, MainPhase.CONFIGURATION)
    else:
        _begin_setup(turn, MainCause.HEADER)


def _magic_of(item: MainItem) -> tuple[int, int]:
    """Give what is read as magic and version, zero filled."""
    if isinstance(item, FileHeader):
        return item.magic, item.version
    head = item.head if isinstance(item, Unknown) else b""
    word = head[:8].ljust(8, b"\0")
    return int.from_bytes(word[:4]), int.from_bytes(word[4:])


def _configuration(turn: Turn, item: MainItem) -> None:
    if isinstance(item, Lost):
        _begin_setup(turn, MainCause.LOST)
        return
    if isinstance(item, Unknown) and item.head[:1] == bytes([SectionType.CONFIGURATION]):
        _broken_configuration(turn, int.from_bytes(item.head[1:5].ljust(4, b"\0")))
        return
    if not isinstance(item, Configuration):
        kind = _type_of(item)
        printed = "Configuration section missing"
        cause = f"{printed}, {kind:x} != {SectionType.CONFIGURATION:x}"
        fail(turn, "configuration-missing", EINVAL, printed=(printed,), cause=cause)
        return
    local = turn.destination.machine
    if local is not None and not local.startswith(item.machine):
        text = f"Machine type received is '{item.machine}' and local is '{local}'"
        cause = (
            f"post load hook failed for: configuration, version_id: 1, minimum_version: 0: {text}"
        )
        fail(turn, "machine-mismatch", EINVAL, printed=(text,), cause=cause)
        return
    _begin_setup(turn, MainCause.CONFIGURATION)


def _broken_configuration(turn: Turn, length: int) -> None:
    """Read a machine name that is longer than the stream (vmstate.c:vmstate_handle_alloc)."""
    if length >= _LONGEST_SIGNED:
        size = length | _SIGN_EXTENSION
        turn.violate("configuration-size", f"the machine type's name has {length} bytes")
        turn.fail_allocation(size)
        return
    printed = "Failed to load configuration:name"
    cause = f"Failed to load configuration state: stream error: -{EIO}"
    fail(turn, "stream-truncated", EIO, printed=(printed,), cause=cause)


def _begin_setup(turn: Turn, cause: MainCause) -> None:
    main_trace(turn, "loadvm_state_setup")
    phase = MainPhase.SETUP if turn.devices else MainPhase.ELEMENT
    turn.move_main(cause, phase)


def set_up(turn: Turn) -> None:
    """Take a half-step of the setup (vfio/migration.c:vfio_load_setup).

    The first half decides on the transfer, the second makes the loader and puts the device in
    RESUMING; a device packet that comes between meets an assertion.
    """
    number, second = divmod(turn.main.setup, 2)
    spec = turn.destination.devices[number]
    if second:
        turn.set_device(number, loader=True)
        main_trace(turn, "vfio_migration_set_state", number, "RESUMING", "RUNNING")
        main_trace(turn, "vfio_migration_set_device_state", number, "RESUMING")
        turn.do(SetState(number, "RESUMING"))
    elif spec.transfer and not turn.destination.supports_transfer:
        text = (
            f"Load state of device {spec.idstr} failed: NAME: Multifd device transfer requested"
            " but unsupported in the current config"
        )
        fail(turn, "transfer-unsupported", EINVAL, printed=(text,), cause=text)
        return
    else:
        turn.set_device(number, transfer=spec.transfer)
    done = turn.main.setup + 1
    is_over = done == 2 * len(turn.devices)
    acks = len(turn.devices) if turn.destination.switchover_ack else 0
    turn.set_main(setup=done, acks_pending=acks)
    turn.move_main(MainCause.STEP, MainPhase.ELEMENT if is_over else MainPhase.SETUP)


# Elements.


def _element(turn: Turn, item: MainItem) -> None:
    if isinstance(item, SectionStart):
        _start(turn, item)
    elif isinstance(item, SectionPart):
        _part(turn, item)
    elif isinstance(item, Command):
        _command(turn, item)
    elif isinstance(item, Eof):
        _end_of_stream(turn)
    elif isinstance(item, End):
        cause = f"Failed to load section ID: stream error: -{EIO}: {_CHANNEL_ERROR}"
        fail_main(turn, "stream-truncated", EIO, cause=cause)
    elif isinstance(item, Unknown):
        _unknown(turn, item)
    elif isinstance(item, Footer | VmDescription | Configuration):
        _bad_type(turn, _type_of(item))


def _type_of(item: MainItem) -> int:
    """Give the first byte of an item, 0 if there is none."""
    if isinstance(item, Unknown):
        return item.head[0] if item.head else 0
    if isinstance(item, SectionStart | SectionPart):
        return item.type
    return _ITEM_TYPES.get(type(item), SectionType.EOF)


def _bad_type(turn: Turn, kind: int) -> None:
    main_trace(turn, "qemu_loadvm_state_section", kind)
    printed = f"Unknown savevm section type {kind}"
    cause = f"Unknown section type {kind}"
    fail_main(turn, "section-type", EINVAL, printed=(printed,), cause=cause)


def _unknown(turn: Turn, item: Unknown) -> None:
    """Read bytes that are no element; those of a known type are cut off or absurd."""
    kind = _type_of(item)
    number = int.from_bytes(item.head[1:5])
    if kind in {SectionType.PART, SectionType.END} and len(item.head) >= 5:
        _part(turn, SectionPart(number, SectionType(kind)))
    elif kind in {SectionType.START, SectionType.FULL} and item.head[5:6] == b"\0":
        main_trace(turn, "qemu_loadvm_state_section", kind)
        _fail_idstr(turn, number)
    elif kind in _KNOWN_TYPES:
        main_trace(turn, "qemu_loadvm_state_section", kind)
        fail_main(turn, "stream-truncated", EIO, cause=_CHANNEL_ERROR)
    else:
        _bad_type(turn, kind)


def _fail_idstr(turn: Turn, section_id: int) -> None:
    text = f"Unable to read ID string for section {section_id}"
    fail_main(turn, "section-unknown", EINVAL, printed=(text,), cause=text)


def _end_of_stream(turn: Turn) -> None:
    main_trace(turn, "qemu_loadvm_state_section", int(SectionType.EOF))
    if not turn.main.postcopy:
        main_trace(turn, "qemu_loadvm_state_post_main", 0)
    turn.move_main(MainCause.EOF, MainPhase.JOINING)
    if turn.error is not None:
        fail_loading(turn, EINVAL, cause="Error while loading vmstate")
    else:
        join(turn)


def _description(turn: Turn, item: MainItem) -> None:
    """Read the vmdescription; it is not missed if it is missing."""
    if not isinstance(item, VmDescription | Lost):
        text = f"Expected vmdescription section, but got {_type_of(item)}"
        turn.violate("description-missing", text)
        turn.print(text)
    complete(turn, MainCause.BODY)


# Sections.


def _start(turn: Turn, start: SectionStart) -> None:
    """Begin a START or FULL section (savevm.c:qemu_loadvm_section_start_full)."""
    main_trace(turn, "qemu_loadvm_state_section", int(start.type))
    if not start.idstr:
        _fail_idstr(turn, start.section_id)
        return
    main_trace(
        turn,
        "qemu_loadvm_state_section_startfull",
        start.section_id,
        start.idstr,
        start.instance_id,
        start.version_id,
    )
    destination = turn.destination
    device = destination.device_named(start.idstr, start.instance_id)
    version: int | None = VFIO_SECTION_VERSION
    if device is None:
        version = destination.entry_version(start.idstr, start.instance_id)
    if version is None:
        name = f"section or instance '{start.idstr}' {start.instance_id}. {_MAKE_SURE}"
        is_device = start.idstr.endswith("/vfio")
        rule = "device-only-on-source" if is_device else "section-unknown"
        printed, cause = f"Unknown savevm {name}", f"Unknown {name}"
        fail_main(turn, rule, EINVAL, printed=(printed,), cause=cause)
        return
    if start.version_id > version:
        text = f"unsupported version {start.version_id} for '{start.idstr}' v{version}"
        printed = f"savevm: {text}"
        fail_main(turn, "section-version", EINVAL, printed=(printed,), cause=text)
        return
    section = SectionState(
        section_id=start.section_id,
        idstr=start.idstr,
        instance_id=start.instance_id,
        version_id=start.version_id,
        is_start=True,
        device=device,
    )
    _enter(turn, section)


def _part(turn: Turn, part: SectionPart) -> None:
    """Begin a PART or END section (savevm.c:qemu_loadvm_section_part_end)."""
    main_trace(turn, "qemu_loadvm_state_section", int(part.type))
    main_trace(turn, "qemu_loadvm_state_section_partend", part.section_id)
    for known in turn.main.sections:
        if known.section_id == part.section_id:
            _enter(turn, known)
            return
    text = f"Unknown savevm section {part.section_id}"
    cause = f"Unknown section {part.section_id}"
    fail_main(turn, "section-id-unknown", EINVAL, printed=(text,), cause=cause)


def _enter(turn: Turn, section: SectionState) -> None:
    """Go into a section, and remember it by its id for the sections to come."""
    key = (section.idstr, section.instance_id)
    others = [known for known in turn.main.sections if (known.idstr, known.instance_id) != key]
    known = SectionState(
        section_id=section.section_id,
        idstr=section.idstr,
        instance_id=section.instance_id,
        version_id=section.version_id,
        is_start=False,
        device=section.device,
    )
    turn.set_main(section=section, sections=(*others, known))
    turn.move_main(MainCause.START, MainPhase.SECTION)


def _section(turn: Turn, item: MainItem) -> None:
    """Read on in a section's body."""
    if isinstance(item, Lost):
        turn.move_main(MainCause.LOST, MainPhase.ELEMENT)
    elif isinstance(item, Marker | RamRecord | Body | Unknown | End):
        read_body(turn, item)
    else:
        # The body is empty, or is one that is not looked at.
        end_of_body(turn)
        if turn.main.phase is MainPhase.FOOTER:
            _footer(turn, item)
        else:
            _element(turn, item)


def _footer(turn: Turn, item: MainItem) -> None:
    """Check a section's footer (savevm.c:check_section_footer)."""
    section = turn.main.section
    assert section is not None
    if isinstance(item, Lost):
        turn.move_main(MainCause.LOST, MainPhase.ELEMENT)
        return
    if isinstance(item, Unknown) and item.head[:1] == bytes([SectionType.FOOTER]):
        # It is cut off: the rest of the id is read as zeroes.
        item = Footer(int.from_bytes(item.head[1:5].ljust(4, b"\0")))
    if isinstance(item, Footer) and item.section_id == section.section_id:
        turn.move_main(MainCause.FOOTER, MainPhase.ELEMENT)
        return
    if isinstance(item, Footer):
        text = (
            f"Mismatched section id in footer for {section.idstr} - read {item.section_id:#x}"
            f" expected {section.section_id:#x}"
        )
    elif isinstance(item, End):
        text = f"check_section_footer: Read section footer failed: -{EIO}"
    else:
        text = f"Missing section footer for {section.idstr}"
    # Printed by all releases, there is no other way out of this function.
    turn.print(text)
    turn.violate("section-footer", text)
    main_trace(turn, "qemu_loadvm_state_post_main", -EINVAL)
    cause = f"Section footer error, section_id: {section.section_id}"
    fail_loading(turn, EINVAL, cause=cause)


# Commands.


def _command(turn: Turn, command: Command) -> None:
    """Carry out a command (savevm.c:loadvm_process_command)."""
    main_trace(turn, "qemu_loadvm_state_section", int(SectionType.COMMAND))
    number = _COMMANDS.get(command.cmd)
    if number is None:
        text = f"MIG_CMD {command.cmd:#x} unknown (len {command.length:#x})"
        _fail_command(turn, "command-unknown", EINVAL, text)
        return
    name = "" if number is CommandNumber.ENABLE_COLO else number.name
    main_trace(turn, "loadvm_process_command", name, command.length)
    expected = COMMAND_LENGTHS[number]
    if expected is not None and expected != command.length:
        text = f"{name} received with bad length - expecting {expected}, got {command.length}"
        _fail_command(turn, "command-length", ERANGE, text)
        return
    if number is CommandNumber.OPEN_RETURN_PATH:
        _open_return_path(turn)
    elif number is CommandNumber.PING:
        if not turn.main.return_path:
            text = f"CMD_PING ({command.value:#x}) received with no return path"
            _fail_command(turn, "ping-without-return-path", EPERM, text)
            return
        turn.do(Reply("PONG", command.value))
    elif number is CommandNumber.SWITCHOVER_START:
        _switch_over(turn)
        if turn.outcome is not None:
            return
    _end_command(turn, number)
    turn.move_main(MainCause.COMMAND, MainPhase.ELEMENT)


def _end_command(turn: Turn, number: CommandNumber) -> None:
    """Say that a command is done; PACKAGED is when the last command in the package is."""
    if number is CommandNumber.PACKAGED:
        turn.set_main(packaged=True)
        return
    if number is CommandNumber.POSTCOPY_LISTEN:
        turn.set_main(postcopy=True)
    if number is not CommandNumber.POSTCOPY_RUN:
        main_trace(turn, "qemu_loadvm_state_section_command", 0)
        return
    for _ in range(1 + turn.main.packaged):
        main_trace(turn, "qemu_loadvm_state_section_command", _LOADVM_QUIT)
    main_trace(turn, "qemu_loadvm_state_post_main", _LOADVM_QUIT)
    turn.set_main(packaged=False)


def _fail_command(turn: Turn, rule: str, errno: int, text: str) -> None:
    main_trace(turn, "qemu_loadvm_state_section_command", -errno)
    fail_main(turn, rule, errno, printed=(text,), cause=text)


def _open_return_path(turn: Turn) -> None:
    if turn.main.return_path:
        text = "CMD_OPEN_RETURN_PATH called when RP already open"
        turn.violate("return-path-twice", text)
        turn.print(text)
        return
    turn.set_main(return_path=True)
    if turn.destination.switchover_ack and not turn.main.acks_pending:
        turn.do(Reply("SWITCHOVER_ACK"))


def _switch_over(turn: Turn) -> None:
    """Start all load threads, also of devices that the stream never names."""
    turn.set_main(switchovers=turn.main.switchovers + 1)
    for number, device in enumerate(turn.devices):
        if device.transfer and turn.outcome is None:
            switch_over(turn, number)


_READERS: Final[dict[MainPhase, Callable[[Any, MainItem], None]]] = {
    MainPhase.HEADER: _header,
    MainPhase.CONFIGURATION: _configuration,
    MainPhase.ELEMENT: _element,
    MainPhase.SECTION: _section,
    MainPhase.FOOTER: _footer,
    MainPhase.DESCRIPTION: _description,
}
