# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies of sections: RAM records (ram.c:ram_load_precopy), VFIO markers (vfio/migration.c:
vfio_load_state), and those of other devices, which are taken to be right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mfdtool.loader.commands import Reply, WriteBuffer
from mfdtool.loader.destination import RAM
from mfdtool.loader.device import load_device_config, load_ready
from mfdtool.loader.errno import EINVAL, EIO, strerror
from mfdtool.loader.events import Body, End, Marker, RamRecord, Unknown
from mfdtool.loader.finish import fail_loading
from mfdtool.loader.moves import MainCause, MainPhase
from mfdtool.loader.sync import flush
from mfdtool.loader.turn import main_trace
from mfdtool.wire.constants import RAM_SECTION_VERSION, RamFlag, VFIOMarker

if TYPE_CHECKING:
    from mfdtool.loader.turn import Turn

_WORD: Final = 8
_RECORD_KINDS: Final = frozenset(
    {
        RamFlag.ZERO,
        RamFlag.MEM_SIZE,
        RamFlag.PAGE,
        RamFlag.EOS,
        RamFlag.XBZRLE,
        RamFlag.HOOK,
        RamFlag.MULTIFD_FLUSH,
    }
)
_PAGE_KINDS: Final = RamFlag.ZERO | RamFlag.PAGE | RamFlag.XBZRLE


def end_of_body(turn: Turn) -> None:
    """Go on behind a section's body."""
    turn.move_main(MainCause.BODY, _after_body(turn))


def _after_body(turn: Turn) -> MainPhase:
    return MainPhase.FOOTER if turn.destination.has_footers else MainPhase.ELEMENT


def read_body(turn: Turn, item: Marker | RamRecord | Body | Unknown | End) -> None:
    """Read on in the body of the section that the main thread is in."""
    section = turn.main.section
    assert section is not None
    if section.device is not None:
        _read_vfio(turn, section.device, item)
    elif section.idstr == RAM:
        _read_ram(turn, item)
    elif isinstance(item, End):
        _fail_section(turn, "stream-truncated", EIO, message="the stream ends inside a section")
    elif isinstance(item, Body):
        end_of_body(turn)
    # What else there is of a body that is not looked at does not matter.


def _fail_section(
    turn: Turn, rule: str, errno: int, *, printed: str = "", message: str = ""
) -> None:
    """Fail in a section's body; ``printed`` is what its handler prints in all releases."""
    section = turn.main.section
    assert section is not None
    if printed:
        turn.print(printed)
    turn.violate(rule, printed or message, section.device)
    main_trace(turn, "qemu_loadvm_state_post_main", -errno)
    cause = f"Failed to load vmstate version_id: {section.version_id}, ret: -{errno}"
    if section.is_start:
        text = (
            f"error while loading state for instance {section.instance_id:#x} of device"
            f" '{section.idstr}'"
        )
        fail_loading(turn, errno, printed=(text,), cause=f"{text}: {cause}")
    else:
        text = f"error while loading state section id {section.section_id}({section.idstr})"
        fail_loading(turn, errno, printed=(text,), cause=cause)


# RAM.


def _read_ram(turn: Turn, item: Marker | RamRecord | Body | Unknown | End) -> None:
    section = turn.main.section
    assert section is not None
    if section.version_id != RAM_SECTION_VERSION:
        _fail_section(turn, "section-version", EINVAL, message="RAM sections have version 4")
    elif isinstance(item, RamRecord):
        _read_record(turn, item)
    elif isinstance(item, End):
        _fail_section(turn, "stream-truncated", EIO, message="the stream ends inside a section")
    elif isinstance(item, Body | Unknown):
        word = int.from_bytes(item.head[:_WORD].ljust(_WORD, b"\0"))
        _read_record(turn, RamRecord(word & (turn.destination.page_size - 1)))


def _read_record(turn: Turn, record: RamRecord) -> None:
    kind = record.flags & ~RamFlag.CONTINUE
    if kind not in _RECORD_KINDS:
        text = f"Unknown combination of migration flags: {record.flags:#x}"
        _fail_section(turn, "ram-record", EINVAL, printed=text)
        return
    if kind & _PAGE_KINDS and _lacks_block(turn, record):
        return
    if kind == RamFlag.ZERO and record.fill:
        text = f"Found a zero page with value {record.fill}"
        _fail_section(turn, "ram-record", EINVAL, printed=text)
    elif kind == RamFlag.MULTIFD_FLUSH:
        flush(turn, MainPhase.SECTION)
    elif kind == RamFlag.EOS:
        if turn.destination.flushes_each_section:
            flush(turn, _after_body(turn))
        else:
            end_of_body(turn)


def _lacks_block(turn: Turn, record: RamRecord) -> bool:
    """Fail if a page is for a block that the destination does not have."""
    blocks = turn.destination.blocks
    if blocks is None or any(known.idstr == record.ramblock for known in blocks):
        return False
    turn.print(f"Can't find block {record.ramblock}")
    _fail_section(turn, "ram-record", EINVAL, printed=f"Illegal RAM offset {record.addr:x}")
    return True


# VFIO.


def _read_vfio(turn: Turn, number: int, item: Marker | RamRecord | Body | Unknown | End) -> None:
    """Read a marker (vfio/migration.c:vfio_load_state)."""
    if isinstance(item, Marker):
        marker = item
    else:
        head = item.head if isinstance(item, Body | Unknown) else b""
        marker = Marker(int.from_bytes(head[:_WORD].ljust(_WORD, b"\0")))
    if marker.marker == VFIOMarker.END_OF_STATE:
        end_of_body(turn)
        return
    main_trace(turn, "vfio_load_state", number, marker.marker)
    _MARKERS.get(marker.marker, _unknown_marker)(turn, number, marker)


def _unknown_marker(turn: Turn, number: int, marker: Marker) -> None:
    text = f"NAME: Unknown tag {marker.marker:#x}"
    _fail_section(turn, "marker-unknown", EINVAL, printed=text)


def _config_state(turn: Turn, number: int, marker: Marker) -> None:
    if turn.devices[number].transfer:
        text = "NAME: got DEV_CONFIG_STATE in main migration channel but doing multifd transfer"
        _fail_section(turn, "config-in-main-stream", EINVAL, printed=text)
        return
    errno = load_device_config(turn, number, marker.data)
    if errno:
        _fail_section(turn, "config-refused", errno, message=strerror(errno))
    else:
        end_of_body(turn)


def _setup_state(turn: Turn, number: int, marker: Marker) -> None:
    if marker.following == VFIOMarker.END_OF_STATE:
        end_of_body(turn)
        return
    text = f"NAME: SETUP STATE: EOS not found {marker.following:#x}"
    _fail_section(turn, "setup-state-end", EINVAL, printed=text)


def _data_state(turn: Turn, number: int, marker: Marker) -> None:
    """Write data to the device, as it comes (vfio/migration.c:vfio_load_buffer)."""
    data = marker.data
    device = turn.devices[number]
    if turn.main.switchovers and device.transfer and data.length:
        message = f"{data.length} bytes come after SWITCHOVER_START"
        turn.violate("data-after-switchover", message, number)
    if not data.length and not marker.is_cut:
        turn.move_main(MainCause.BODY, MainPhase.SECTION)
        return
    errno, message = turn.write(number, None, data)
    rule = "main-data-write"
    if not errno:
        turn.do(WriteBuffer(number, None, data))
        if marker.is_cut:
            rule, errno, message = "stream-truncated", EIO, "the stream ends inside the data"
    main_trace(turn, "vfio_load_state_device_data", number, data.length, -errno)
    if errno:
        _fail_section(turn, rule, errno, message=message)
        return
    turn.move_main(MainCause.BODY, MainPhase.SECTION)


def _init_data_sent(turn: Turn, number: int, marker: Marker) -> None:
    """Count the devices that are ready (savevm.c:qemu_loadvm_approve_switchover)."""
    if not turn.destination.switchover_ack:
        text = "NAME: Received INIT_DATA_SENT but switchover ack is not used"
        _fail_section(turn, "init-data-sent", EINVAL, printed=text)
        return
    pending = turn.main.acks_pending
    if not pending:
        text = f"NAME: qemu_loadvm_approve_switchover failed, err=-{EINVAL} ({strerror(EINVAL)})"
        _fail_section(turn, "init-data-sent", EINVAL, printed=text)
        return
    turn.set_main(acks_pending=pending - 1)
    if pending == 1:
        turn.do(Reply("SWITCHOVER_ACK"))
    end_of_body(turn)


def _load_ready(turn: Turn, number: int, marker: Marker) -> None:
    if not turn.profile.has_load_ready:
        _unknown_marker(turn, number, marker)
    elif not turn.devices[number].transfer:
        text = "NAME: got DEV_CONFIG_LOAD_READY outside multifd transfer"
        _fail_section(turn, "load-ready-not-expected", EINVAL, printed=text)
    elif not turn.destination.config_after_iter:
        text = "NAME: got DEV_CONFIG_LOAD_READY but was disabled"
        _fail_section(turn, "load-ready-not-expected", EINVAL, printed=text)
    elif turn.devices[number].iter_done:
        text = "NAME: duplicate DEV_CONFIG_LOAD_READY"
        _fail_section(turn, "load-ready-twice", EINVAL, printed=text)
    else:
        load_ready(turn, number)
        end_of_body(turn)


_MARKERS: Final[dict[int, Callable[[Any, int, Marker], None]]] = {
    VFIOMarker.DEV_CONFIG_STATE: _config_state,
    VFIOMarker.DEV_SETUP_STATE: _setup_state,
    VFIOMarker.DEV_DATA_STATE: _data_state,
    VFIOMarker.DEV_INIT_DATA_SENT: _init_data_sent,
    VFIOMarker.DEV_CONFIG_LOAD_READY: _load_ready,
}
