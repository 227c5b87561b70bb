# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination that a recording was meant for, as far as nobody says otherwise.

A recording shows the source. By default the destination is assumed to match it: the same devices,
channels, settings and RAM blocks, and a release that knows all that is in the stream.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from mfdtool.loader.config import MTTY_IDS
from mfdtool.loader.destination import (
    DEFAULT_MEMORY,
    NO_LIMIT,
    RAM,
    Destination,
    DeviceSpec,
)
from mfdtool.loader.events import (
    Command,
    Configuration,
    Connect,
    Deliver,
    DevicePacket,
    FileHeader,
    Footer,
    Handshake,
    Marker,
    RamPacket,
    RamRecord,
    SectionPart,
    SectionStart,
)
from mfdtool.loader.findings import Finding, finding
from mfdtool.loader.models import MTTY_HEADER_SIZE, MTTY_PORT_SIZE, mtty_ports
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    RamFlag,
    SectionType,
    VFIOMarker,
)
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.profile import DEFAULT_PROFILE, PROFILES, Profile

if TYPE_CHECKING:
    from mfdtool.loader.blob import Blob
    from mfdtool.loader.options import DestinationOptions, DeviceOption
    from mfdtool.loader.recording import Recording

AUTO: Final = "auto"

_VERSION: Final = re.compile(r"(.*-)([0-9]{1,3})\.([0-9]{1,3})")
_MAX_MINOR: Final = 2
"""Since 4.0 there are three releases a year: .0, .1 and .2."""

_PACKAGE_LOADED: Final = 0x42
_CONFIG_IDS: Final = 12
"""Where a config's vendor id is: behind the marker and the version."""

_REGULAR_SINCE: Final = 4
_NO_LOAD_READY: Final = (10, 0)
_DeviceKey = tuple[str, int]
_T = TypeVar("_T")


@dataclass(slots=True)
class _DeviceFacts:
    """What a recording shows of one device."""

    head: bytes = b""
    first_buffers: dict[int, Blob] = field(default_factory=dict)
    size: int = 0
    config: Blob | None = None
    has_packets: bool = False
    has_config_in_main: bool = False


@dataclass(slots=True)
class _Facts:
    """What a recording shows of the source."""

    machine: str | None = None
    uuid: bytes | None = None
    ids: list[int] = field(default_factory=list)
    """The handshakes' channel ids, -1 where there was no handshake."""
    compressions: Counter[int] = field(default_factory=Counter)
    has_sections: bool = False
    has_footers: bool = False
    has_flushes: bool = False
    has_syncs: bool = False
    has_load_ready: bool = False
    has_init_data_sent: bool = False
    """In a PART section, where a source puts it if it wants to be answered."""
    has_return_path: bool = False
    """Without one there is no way to answer, and capability switchover-ack is refused."""
    has_switchover: bool = False
    has_package_loaded: bool = False
    started: dict[_DeviceKey, None] = field(default_factory=dict)
    devices: dict[_DeviceKey, _DeviceFacts] = field(default_factory=dict)
    entries: set[tuple[str, int, int]] = field(default_factory=set)


def assume(
    recording: Recording, options: DestinationOptions, profile_name: str = AUTO
) -> tuple[Destination, tuple[Finding, ...]]:
    """Give the destination, and what had to be guessed.

    Raises:
        ValueError: there is no such profile.
    """
    facts = _gather(recording)
    guesses = []
    if profile_name == AUTO:
        profile, reason = guess_profile(facts, options)
        message = f"taken to be QEMU {profile.name}, by {reason}"
        guesses.append(finding("profile-guessed", message, migration=recording.migration))
    elif profile_name in PROFILES:
        profile = PROFILES[profile_name]
    else:
        raise ValueError(f"there is no profile {profile_name!r}, only {', '.join(PROFILES)}")
    machine = options.machine
    if machine is None and facts.machine is not None:
        machine = guess_machine(facts, profile)
        if machine != facts.machine:
            message = f"no such machine type in QEMU {profile.name}, taken to be {machine}"
            guesses.append(finding("machine-guessed", message, migration=recording.migration))
    channels = _chosen(options.channels, _channels(recording, facts))
    if options.multifd is False:
        channels = 0
    destination = Destination(
        profile=profile,
        devices=tuple(_devices(facts, options)),
        entries=frozenset(facts.entries | {(RAM, 0, 4)}),
        channels=channels,
        machine=machine,
        uuid=facts.uuid,
        compression=_chosen(options.compression, _compression(facts)),
        page_size=recording.page_size,
        blocks=recording.blocks,
        memory=_chosen(options.memory, DEFAULT_MEMORY),
        max_queued=_chosen(options.max_queued, NO_LIMIT),
        config_after_iter=_chosen(options.config_after_iter, _loads_config_late(facts)),
        switchover_ack=_chosen(
            options.switchover_ack,
            (facts.has_init_data_sent and facts.has_return_path) or bool(recording.acks),
        ),
        has_footers=facts.has_footers or not facts.has_sections,
        flushes_each_section=facts.has_syncs and not facts.has_flushes,
    )
    return destination, tuple(guesses)


def _chosen(said: _T | None, shown: _T) -> _T:
    return shown if said is None else said


def guess_profile(facts: _Facts, options: DestinationOptions) -> tuple[Profile, str]:
    """Find the oldest release that could take the stream and the options; tell by what."""
    order = list(PROFILES)
    found, reason = DEFAULT_PROFILE.name, "nothing in the stream that is newer"
    match = _VERSION.fullmatch(facts.machine or "")
    if match is not None:
        version = int(match[2]), int(match[3])
        named = next((name for name in order if _version_of(name) >= version), order[-1])
        found, reason = named, f"the machine type {facts.machine}"
    signs = (
        (facts.has_load_ready, "10.1", "marker DEV_CONFIG_LOAD_READY"),
        (facts.has_package_loaded, "10.2", "PING 0x42"),
    )
    for is_there, name, sign in signs:
        if is_there and order.index(name) > order.index(found):
            found, reason = name, sign
    if unknown := options.unknown_to(PROFILES[found]):
        found = next(name for name in order if not options.unknown_to(PROFILES[name]))
        reason = f"the option {unknown[0]}"
    return PROFILES[found], reason


def guess_machine(facts: _Facts, profile: Profile) -> str | None:
    """Give the destination's machine type: the source's, if its release has that.

    Otherwise it must have another one, whose name nobody knows: the oldest that does what is seen
    in the stream is as good as any.
    """
    name = facts.machine
    match = _VERSION.fullmatch(name or "")
    if name is None or match is None:
        return name
    version = int(match[2]), int(match[3])
    newest = _version_of(profile.name)
    if version <= newest and (version[0] < _REGULAR_SINCE or version[1] <= _MAX_MINOR):
        return name
    return f"{match[1]}{'10.0' if facts.has_switchover else '9.2'}"


def _channels(recording: Recording, facts: _Facts) -> int:
    """Count the channels; one whose packets were not captured shows by its id only."""
    count = len(facts.ids)
    return count if recording.is_whole else max(count, *(id_ + 1 for id_ in facts.ids), 0)


def _compression(facts: _Facts) -> int:
    """Give the compression method of most packets."""
    return facts.compressions.most_common(1)[0][0] if facts.compressions else 0


def _loads_config_late(facts: _Facts) -> bool:
    """Whether load-config-after-iter is on: machine types up to 10.0 switch it off."""
    match = _VERSION.fullmatch(facts.machine or "")
    old = match is not None and (int(match[2]), int(match[3])) <= _NO_LOAD_READY
    return facts.has_load_ready and not old


def _version_of(name: str) -> tuple[int, int]:
    major, minor = name.split(".")
    return int(major), int(minor)


# Devices.


def _devices(facts: _Facts, options: DestinationOptions) -> Iterator[DeviceSpec]:
    """Give the devices that were named, or those that the main stream shows."""
    if options.devices is None:
        for idstr, instance in facts.started:
            yield _device(facts, options, idstr, instance)
        return
    for option in options.devices:
        yield _device(facts, options, option.idstr, option.instance, option)


def _device(
    facts: _Facts,
    options: DestinationOptions,
    idstr: str,
    instance: int,
    said: DeviceOption | None = None,
) -> DeviceSpec:
    shown = facts.devices.get((idstr, instance), _DeviceFacts())
    transfer = said.transfer if said is not None else None
    if transfer is None:
        transfer = options.transfer
    if transfer is None:
        in_main = shown.has_config_in_main and not shown.has_packets
        transfer = bool(facts.ids) and not in_main and not _compression(facts)
    ports = said.mtty_ports if said is not None else None
    spec = DeviceSpec(
        idstr=idstr,
        instance_id=instance,
        transfer=transfer,
        mtty_ports=_ports(shown) if ports is None else ports,
    )
    if said is None:
        return spec
    return replace(spec, has_p2p=said.p2p, can_reset=said.resets, write_hangs=said.hangs)


def _ports(shown: _DeviceFacts) -> int | None:
    """Recognise an mtty by the header of its state, or by its PCI ids; give its ports."""
    head = shown.head
    for idx in sorted(shown.first_buffers):
        if len(head) >= MTTY_HEADER_SIZE:
            break
        head += shown.first_buffers[idx].head(MTTY_HEADER_SIZE)
    ports = mtty_ports(head)
    if ports is not None:
        return ports
    if shown.config is None:
        return None
    ids = shown.config.head(_CONFIG_IDS + len(MTTY_IDS))[_CONFIG_IDS:]
    if ids != MTTY_IDS:
        return None
    return max(1, round((shown.size - MTTY_HEADER_SIZE) / MTTY_PORT_SIZE))


# Facts.


def _gather(recording: Recording) -> _Facts:
    facts = _Facts()
    section: _DeviceKey | None = None
    is_part = False
    sections: dict[int, _DeviceKey] = {}
    for entry in recording.entries:
        event = entry.event
        if isinstance(event, Connect):
            if not isinstance(event.first, FileHeader):
                facts.ids.append(-1)
            if isinstance(event.first, Handshake):
                facts.ids[-1] = event.first.id
                facts.uuid = facts.uuid or event.first.uuid
            continue
        item = event.item
        if isinstance(item, SectionStart):
            section = sections[item.section_id] = (item.idstr, item.instance_id)
            is_part = False
            _note_section(facts, item)
        elif isinstance(item, SectionPart):
            section = sections.get(item.section_id)
            is_part = item.type is SectionType.PART
        elif isinstance(item, Marker) and section is not None:
            device = facts.devices.setdefault(section, _DeviceFacts())
            _note_marker(facts, device, item, is_part=is_part)
        else:
            _note(facts, event)
    return facts


def _note_section(facts: _Facts, start: SectionStart) -> None:
    facts.has_sections = True
    key = (start.idstr, start.instance_id)
    if not is_vfio(start.idstr) and start.idstr != RAM:
        facts.entries.add((*key, start.version_id))
    elif start.type is SectionType.START and start.idstr != RAM:
        facts.started[key] = None


def is_vfio(idstr: str) -> bool:
    """Whether a SaveVM entry is a VFIO device's, by its name."""
    return idstr == "vfio" or idstr.endswith("/vfio")


def _note_marker(facts: _Facts, device: _DeviceFacts, marker: Marker, *, is_part: bool) -> None:
    if marker.marker == VFIOMarker.DEV_DATA_STATE:
        device.head += marker.data.head(MTTY_HEADER_SIZE - len(device.head))
        device.size += marker.data.length
    elif marker.marker == VFIOMarker.DEV_CONFIG_STATE:
        device.has_config_in_main = True
        device.config = marker.data
    elif marker.marker == VFIOMarker.DEV_CONFIG_LOAD_READY:
        facts.has_load_ready = True
    elif marker.marker == VFIOMarker.DEV_INIT_DATA_SENT:
        facts.has_init_data_sent |= is_part


def _note(facts: _Facts, event: Deliver) -> None:
    item = event.item
    if isinstance(item, DevicePacket):
        _note_packet(facts, item)
    elif isinstance(item, RamPacket):
        facts.has_syncs |= item.is_sync
        if item.normal_pages:
            facts.compressions[item.flags & MULTIFD_COMPRESSION_MASK] += 1
    elif isinstance(item, RamRecord):
        facts.has_flushes |= bool(item.flags & RamFlag.MULTIFD_FLUSH)
    elif isinstance(item, Footer):
        facts.has_footers = True
    elif isinstance(item, Configuration):
        facts.machine = item.machine
    elif isinstance(item, Command):
        facts.has_switchover |= item.cmd == CommandNumber.SWITCHOVER_START
        facts.has_return_path |= item.cmd == CommandNumber.OPEN_RETURN_PATH
        facts.has_package_loaded |= item.cmd == CommandNumber.PING and item.value == _PACKAGE_LOADED


def _note_packet(facts: _Facts, packet: DevicePacket) -> None:
    key = (packet.idstr, packet.instance_id)
    device = facts.devices.setdefault(key, _DeviceFacts())
    device.has_packets = True
    if packet.is_config:
        device.config = packet.data
    elif packet.idx is not None:
        device.size += packet.data.length
        if packet.idx < MTTY_HEADER_SIZE:
            device.first_buffers.setdefault(packet.idx, packet.data)
