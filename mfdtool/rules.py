# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that a migration must follow, and QEMU's function that each comes from.

One table, three users: the reference destination names the rule that a packet broke, ``check``
finds more by looking at the whole recording, and every deliberate defect of the fixtures says
which rule it breaks. Ids are stable: a rule that goes leaves its number unused.

The hundreds tell what a rule is about: 1 multifd channels and RAM packets, 2 device packets and
what is done with them, 3 synchronisation, 4 the main stream, 5 VFIO sections of the main stream,
6 the recording itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering
from typing import Final


@total_ordering
class Severity(Enum):
    """How bad it is that a rule is broken; comparable, ``error`` is the greatest."""

    NOTE = "note"
    """Worth knowing, nothing is wrong."""

    WARNING = "warning"
    """Works today, but is wrong or fragile."""

    ERROR = "error"
    """The destination fails, aborts or stalls, or a device's state is lost."""

    def __lt__(self, other: Severity) -> bool:
        order = list(Severity)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: ``MFDnnn``.
        name: a short name that can be guessed from the rule.
        severity: what it means if the rule is broken.
        sentence: the rule, and what happens otherwise.
        source: QEMU's function that enforces it, or relies on it, as ``file.c:function``.
    """

    id: str
    name: str
    severity: Severity
    sentence: str
    source: str


_NOTE: Final = Severity.NOTE
_WARNING: Final = Severity.WARNING
_ERROR: Final = Severity.ERROR

_INSERT: Final = "vfio/migration-multifd.c:vfio_load_state_buffer_insert"
_BUFFER: Final = "vfio/migration-multifd.c:vfio_multifd_load_state_buffer"
_LOAD_THREAD: Final = "vfio/migration-multifd.c:vfio_load_bufs_thread"
_LOAD_CONFIG: Final = "vfio/migration-multifd.c:vfio_load_bufs_thread_load_config"
_LOAD_READY: Final = "vfio/migration-multifd.c:vfio_load_state_config_load_ready"
_SAVE_THREAD: Final = "vfio/migration-multifd.c:vfio_multifd_save_complete_precopy_thread"
_SWITCHOVER: Final = "vfio/migration-multifd.c:vfio_multifd_switchover_start"
_DEVICE_CONFIG: Final = "vfio/migration.c:vfio_load_device_config_state"
_LOAD_STATE: Final = "vfio/migration.c:vfio_load_state"
_HANDSHAKE: Final = "multifd.c:multifd_recv_initial_packet"
_RECV_THREAD: Final = "multifd.c:multifd_recv_thread"
_RAM_UNFILL: Final = "multifd-nocomp.c:multifd_ram_unfill_packet"
_SYNC_MAIN: Final = "multifd.c:multifd_recv_sync_main"
_STATE_HEADER: Final = "savevm.c:qemu_loadvm_state_header"
_STATE_MAIN: Final = "savevm.c:qemu_loadvm_state_main"
_START_FULL: Final = "savevm.c:qemu_loadvm_section_start_full"
_PART_END: Final = "savevm.c:qemu_loadvm_section_part_end"
_COMMAND: Final = "savevm.c:loadvm_process_command"
_LOAD_BUFFER: Final = "savevm.c:qemu_loadvm_load_state_buffer"

_TABLE: Final = (
    # 100: multifd channels.
    (
        "MFD101",
        "handshake-magic",
        _ERROR,
        "A multifd channel begins with magic 0x11223344; otherwise the destination exits.",
        _HANDSHAKE,
    ),
    (
        "MFD102",
        "handshake-version",
        _ERROR,
        "The handshake's version is 1; otherwise the destination exits.",
        _HANDSHAKE,
    ),
    (
        "MFD103",
        "handshake-uuid",
        _ERROR,
        "All handshakes carry the UUID of the destination's VM; otherwise it exits.",
        _HANDSHAKE,
    ),
    (
        "MFD104",
        "channel-id-too-large",
        _ERROR,
        "A channel's id is below the number of channels; the destination exits on a greater one.",
        _HANDSHAKE,
    ),
    (
        "MFD105",
        "channel-id-out-of-bounds",
        _ERROR,
        "A channel's id must not equal the number of channels: the destination's check misses it"
        " and it writes beyond its array.",
        _HANDSHAKE,
    ),
    (
        "MFD106",
        "channel-id-duplicate",
        _ERROR,
        "Every channel has an id of its own; otherwise the destination exits.",
        "multifd.c:multifd_recv_new_channel",
    ),
    (
        "MFD107",
        "handshake-truncated",
        _ERROR,
        "A multifd channel sends all 64 bytes of its handshake; the destination's main loop waits"
        " for them.",
        _HANDSHAKE,
    ),
    (
        "MFD108",
        "channels-missing",
        _ERROR,
        "The source opens as many multifd channels as the destination expects, and the main"
        " channel; the destination waits for all of them for ever.",
        "migration.c:migration_should_start_incoming",
    ),
    (
        "MFD109",
        "extra-connection",
        _WARNING,
        "No connection comes after the expected ones; the destination drops it.",
        "socket.c:socket_accept_incoming_migration",
    ),
    (
        "MFD110",
        "packet-magic",
        _ERROR,
        "Every packet begins with magic 0x11223344; otherwise the receive thread fails.",
        "multifd.c:multifd_recv_unfill_packet_header",
    ),
    (
        "MFD111",
        "packet-version",
        _ERROR,
        "Every packet has version 1; otherwise the receive thread fails.",
        "multifd.c:multifd_recv_unfill_packet_header",
    ),
    (
        "MFD112",
        "packet-truncated",
        _ERROR,
        "A channel ends between packets, not inside one; otherwise the receive thread fails.",
        _RECV_THREAD,
    ),
    (
        "MFD113",
        "connection-reset",
        _WARNING,
        "Channels are closed in order; a destination that gives up resets them.",
        _RECV_THREAD,
    ),
    (
        "MFD114",
        "packet-flag-unknown",
        _WARNING,
        "A packet has only flags that QEMU defines; the destination ignores others.",
        "multifd.h:MULTIFD_FLAG_SYNC",
    ),
    (
        "MFD115",
        "reserved-not-zero",
        _NOTE,
        "Reserved fields are zero; the destination does not look at them.",
        "multifd.h:MultiFDPacket_t",
    ),
    (
        "MFD116",
        "channel-magic-unknown",
        _ERROR,
        "A connection begins with the magic of the main or of a multifd channel; a 10.1"
        " destination exits on any other, an older one takes it for a multifd channel.",
        "migration.c:migration_ioc_process_incoming",
    ),
    (
        "MFD117",
        "multifd-not-expected",
        _ERROR,
        "A destination without multifd gets no multifd channel; it aborts (10.1) or does not"
        " recognise the stream.",
        "migration.c:migration_ioc_process_incoming",
    ),
    (
        "MFD118",
        "second-main-channel",
        _ERROR,
        "There is one main channel; a 10.1 destination aborts on a second one.",
        "migration.c:migration_incoming_setup",
    ),
    # 120: RAM packets.
    (
        "MFD120",
        "ram-pages-alloc",
        _ERROR,
        "A RAM packet holds no more pages than fit in 512 KiB; otherwise the receive thread fails.",
        _RAM_UNFILL,
    ),
    (
        "MFD121",
        "ram-normal-pages",
        _ERROR,
        "A RAM packet has at most pages_alloc normal pages; otherwise the receive thread fails.",
        _RAM_UNFILL,
    ),
    (
        "MFD122",
        "ram-zero-pages",
        _ERROR,
        "A RAM packet has at most pages_alloc pages in all; otherwise the receive thread fails.",
        _RAM_UNFILL,
    ),
    (
        "MFD123",
        "ram-block-unknown",
        _ERROR,
        "A RAM packet names a RAM block of the destination; otherwise the receive thread fails.",
        _RAM_UNFILL,
    ),
    (
        "MFD124",
        "ram-page-offset",
        _ERROR,
        "Pages lie inside their RAM block; otherwise the receive thread fails.",
        _RAM_UNFILL,
    ),
    (
        "MFD125",
        "ram-compression",
        _ERROR,
        "RAM packets are compressed by the method that the destination is set to; otherwise the"
        " receive thread fails.",
        "multifd-nocomp.c:multifd_nocomp_recv",
    ),
    (
        "MFD126",
        "ram-payload-size",
        _WARNING,
        "Of an uncompressed RAM packet next_packet_size is that of its normal pages; the"
        " destination goes by the pages and would take a difference for packets.",
        "multifd-nocomp.c:multifd_nocomp_recv",
    ),
    (
        "MFD127",
        "ram-compressed-too-large",
        _ERROR,
        "A zlib or zstd packet has at most 1 MiB of payload; the destination writes more than that"
        " beyond its buffer.",
        "multifd-zlib.c:multifd_zlib_recv",
    ),
    (
        "MFD128",
        "ram-compressed-without-pages",
        _ERROR,
        "A compressed packet with only zero pages has no payload; the destination asserts it.",
        "multifd-zlib.c:multifd_zlib_recv",
    ),
    (
        "MFD129",
        "packet-num-order",
        _ERROR,
        "packet_num increases inside a channel and is unique over all; where it does not, packets"
        " are misrouted or repeated.",
        "multifd.c:multifd_send_fill_packet",
    ),
    (
        "MFD130",
        "misrouted-channel",
        _ERROR,
        "A multifd channel carries multifd packets only; the main stream's elements belong to the"
        " main channel.",
        _RECV_THREAD,
    ),
    # 200: device packets, by themselves.
    (
        "MFD201",
        "device-packet-empty",
        _ERROR,
        "A device packet has a payload; otherwise the receive thread fails.",
        _RECV_THREAD,
    ),
    (
        "MFD202",
        "device-packet-size",
        _ERROR,
        "next_packet_size is sensible: the destination allocates that much before it reads a byte,"
        " and dies if it cannot.",
        "multifd.c:multifd_device_state_recv",
    ),
    (
        "MFD203",
        "idstr-unterminated",
        _ERROR,
        "idstr ends with a NUL; otherwise the receive thread fails.",
        "multifd.c:multifd_device_state_recv",
    ),
    (
        "MFD204",
        "device-unknown",
        _ERROR,
        "A device packet names a device of the destination by idstr and instance id; otherwise the"
        " receive thread fails.",
        _LOAD_BUFFER,
    ),
    (
        "MFD205",
        "device-without-buffers",
        _ERROR,
        "A device packet is for a device that takes buffers, not for ram and the like; otherwise"
        " the receive thread fails.",
        _LOAD_BUFFER,
    ),
    (
        "MFD206",
        "device-packet-sync",
        _ERROR,
        "A device packet is no SYNC packet; the destination handles it and then fails.",
        _RECV_THREAD,
    ),
    (
        "MFD207",
        "device-packet-not-expected",
        _ERROR,
        "Device packets come after the destination's setup, for a device whose multifd transfer is"
        " on; otherwise the receive thread fails.",
        _BUFFER,
    ),
    (
        "MFD208",
        "payload-too-short",
        _ERROR,
        "A device packet's payload has at least the 12 bytes of its header; otherwise the receive"
        " thread fails.",
        _BUFFER,
    ),
    (
        "MFD209",
        "payload-version",
        _ERROR,
        "The payload's version is 0; otherwise the receive thread fails.",
        _BUFFER,
    ),
    (
        "MFD210",
        "idx-invalid",
        _ERROR,
        "idx is below 0xffffffff; otherwise the receive thread fails.",
        _BUFFER,
    ),
    (
        "MFD211",
        "idx-duplicate",
        _ERROR,
        "A device's idx are all different; a second packet with one makes the receive thread fail.",
        _INSERT,
    ),
    (
        "MFD212",
        "queue-limit",
        _ERROR,
        "What waits for its turn stays within x-migration-max-queued-buffers-size; otherwise the"
        " receive thread fails.",
        _INSERT,
    ),
    (
        "MFD213",
        "idx-allocation",
        _ERROR,
        "idx is as small as the number of packets: the destination allocates 24 bytes for every"
        " one below, and dies if it cannot.",
        _INSERT,
    ),
    (
        "MFD214",
        "memory-exhausted",
        _ERROR,
        "What waits for its turn fits in memory; nothing else limits it by default.",
        _INSERT,
    ),
    (
        "MFD215",
        "payload-flag-unknown",
        _WARNING,
        "The payload's only flag is CONFIG_STATE; the destination ignores others.",
        _BUFFER,
    ),
    (
        "MFD216",
        "data-packet-empty",
        _WARNING,
        "A data packet has data, a source ends at an empty read; the destination accepts it.",
        _SAVE_THREAD,
    ),
    (
        "MFD217",
        "loader-missing",
        _ERROR,
        "No device packet arrives while the destination sets the device up; it asserts that there"
        " is a loader.",
        _BUFFER,
    ),
    # 220: a device's packets together.
    (
        "MFD220",
        "idx-gap",
        _ERROR,
        "A device's idx have no gaps; the load thread waits for a missing one for ever.",
        _LOAD_THREAD,
    ),
    (
        "MFD221",
        "config-missing",
        _ERROR,
        "A device's packets end with a config packet; the load thread waits for it for ever.",
        _LOAD_THREAD,
    ),
    (
        "MFD222",
        "config-twice",
        _ERROR,
        "A device has one config packet; of several the last that arrives counts, and what the"
        " load thread makes of the others depends on how far it has come.",
        _BUFFER,
    ),
    (
        "MFD223",
        "config-early",
        _ERROR,
        "The config's idx is the number of data packets; what lies above a lower one is never"
        " loaded.",
        _LOAD_THREAD,
    ),
    (
        "MFD224",
        "data-behind-config",
        _ERROR,
        "No data packet has an idx above the config's; the destination takes it and silently loses"
        " it.",
        _LOAD_THREAD,
    ),
    (
        "MFD225",
        "config-lowered",
        _ERROR,
        "A config packet's idx is not below what is being loaded; the load thread asserts it.",
        _LOAD_THREAD,
    ),
    (
        "MFD226",
        "device-packet-before-switchover",
        _WARNING,
        "Device packets are sent after SWITCHOVER_START; the destination keeps earlier ones until"
        " then.",
        _SAVE_THREAD,
    ),
    (
        "MFD227",
        "device-packet-before-setup",
        _ERROR,
        "Device packets are sent behind the first SYNC of their channel, which the destination"
        " passes after its setup; earlier ones race with it.",
        _BUFFER,
    ),
    (
        "MFD228",
        "device-packet-behind-unpaired-sync",
        _ERROR,
        "No device packet is behind a SYNC without a flush; its channel waits there for ever.",
        _SYNC_MAIN,
    ),
    (
        "MFD229",
        "device-unfinished",
        _ERROR,
        "Every device with multifd transfer gets all of its state; its load thread waits for more"
        " for ever.",
        "savevm.c:qemu_loadvm_thread_pool_wait",
    ),
    # 230: what the device makes of it.
    (
        "MFD230",
        "config-marker",
        _ERROR,
        "A config packet's data begins with DEV_CONFIG_STATE; otherwise the load thread fails.",
        _LOAD_CONFIG,
    ),
    (
        "MFD231",
        "config-refused",
        _ERROR,
        "The config is one of the destination's device; otherwise loading it fails.",
        "vfio/pci.c:vfio_pci_load_config",
    ),
    (
        "MFD232",
        "config-end",
        _ERROR,
        "The config ends with END_OF_STATE where the device's config ends; otherwise loading it"
        " fails.",
        _DEVICE_CONFIG,
    ),
    (
        "MFD233",
        "config-trailing",
        _WARNING,
        "Nothing follows the config's END_OF_STATE; the destination ignores it.",
        _LOAD_CONFIG,
    ),
    (
        "MFD234",
        "device-write",
        _ERROR,
        "The device takes its data; if it refuses some, the load thread fails.",
        "vfio/migration-multifd.c:vfio_load_state_buffer_write",
    ),
    (
        "MFD235",
        "device-write-hangs",
        _ERROR,
        "The device takes its data in finite time; the load thread waits for it for ever.",
        "vfio/migration-multifd.c:vfio_load_state_buffer_write",
    ),
    (
        "MFD236",
        "device-reset",
        _ERROR,
        "What the device got is complete; otherwise it is reset when it should run, its state is"
        " lost, and the migration is reported as completed all the same.",
        "vfio/migration.c:vfio_migration_set_state",
    ),
    (
        "MFD237",
        "device-reset-fails",
        _ERROR,
        "A device that refuses its data can be reset; otherwise the destination aborts.",
        "vfio/migration.c:vfio_migration_set_state",
    ),
    (
        "MFD238",
        "lock-cycle",
        _ERROR,
        "No packet for a device arrives while its config is loaded and the main thread waits for a"
        " SYNC behind it: three threads wait for each other for ever.",
        _BUFFER,
    ),
    (
        "MFD239",
        "config-changed-while-waiting",
        _ERROR,
        "No second config packet arrives while the load thread waits for DEV_CONFIG_LOAD_READY; it"
        " asserts that nothing changed.",
        _LOAD_CONFIG,
    ),
    # 240: findings about the whole.
    (
        "MFD240",
        "queue-depth",
        _NOTE,
        "Packets that arrive out of order wait in memory for those before them.",
        _INSERT,
    ),
    (
        "MFD241",
        "timing-dependent",
        _WARNING,
        "The outcome does not depend on how fast the load threads are.",
        _LOAD_THREAD,
    ),
    # 300: synchronisation.
    (
        "MFD301",
        "flush-without-sync",
        _ERROR,
        "Every MULTIFD_FLUSH has a SYNC packet on every channel; the main thread waits for it for"
        " ever.",
        _SYNC_MAIN,
    ),
    (
        "MFD302",
        "sync-without-flush",
        _WARNING,
        "Every SYNC packet has a MULTIFD_FLUSH in the main stream; its channel goes no further.",
        _SYNC_MAIN,
    ),
    # 400: the main stream.
    (
        "MFD401",
        "stream-magic",
        _ERROR,
        "The main stream begins with QEVM; otherwise the destination exits.",
        _STATE_HEADER,
    ),
    (
        "MFD402",
        "stream-version",
        _ERROR,
        "The main stream's version is 3; otherwise the destination exits.",
        _STATE_HEADER,
    ),
    (
        "MFD403",
        "configuration-missing",
        _ERROR,
        "The configuration section follows the header; otherwise the destination exits.",
        _STATE_HEADER,
    ),
    (
        "MFD404",
        "machine-mismatch",
        _ERROR,
        "Source and destination have the same machine type; otherwise the destination exits.",
        "savevm.c:configuration_post_load",
    ),
    (
        "MFD405",
        "section-unknown",
        _ERROR,
        "Every section is for something that the destination has; otherwise it exits.",
        _START_FULL,
    ),
    (
        "MFD406",
        "section-version",
        _ERROR,
        "A section's version is no greater than the destination's; otherwise it exits.",
        _START_FULL,
    ),
    (
        "MFD407",
        "section-id-unknown",
        _ERROR,
        "A PART or END section has the id of a START section; otherwise the destination exits.",
        _PART_END,
    ),
    (
        "MFD408",
        "section-footer",
        _ERROR,
        "Every section ends with a footer that repeats its id; otherwise the destination exits.",
        "savevm.c:check_section_footer",
    ),
    (
        "MFD409",
        "section-type",
        _ERROR,
        "Every element of the main stream has a known type; otherwise the destination exits.",
        _STATE_MAIN,
    ),
    (
        "MFD410",
        "command-unknown",
        _ERROR,
        "Every command is known to the destination; otherwise it exits.",
        _COMMAND,
    ),
    (
        "MFD411",
        "command-length",
        _ERROR,
        "Every command has its length; otherwise the destination exits.",
        _COMMAND,
    ),
    (
        "MFD412",
        "ping-without-return-path",
        _ERROR,
        "PING comes after OPEN_RETURN_PATH; otherwise the destination exits.",
        _COMMAND,
    ),
    (
        "MFD413",
        "stream-truncated",
        _ERROR,
        "The main stream goes on to its EOF byte; otherwise the destination exits.",
        _STATE_MAIN,
    ),
    (
        "MFD414",
        "description-missing",
        _NOTE,
        "A vmdescription follows the EOF byte; the destination complains but goes on.",
        "savevm.c:qemu_loadvm_state",
    ),
    (
        "MFD415",
        "stream-trailing",
        _WARNING,
        "Nothing follows the end of the main stream; the destination does not read it.",
        "savevm.c:qemu_loadvm_state",
    ),
    (
        "MFD416",
        "ram-record",
        _ERROR,
        "RAM sections consist of records that the destination knows; otherwise it exits.",
        "ram.c:ram_load_precopy",
    ),
    (
        "MFD417",
        "return-path-twice",
        _WARNING,
        "OPEN_RETURN_PATH comes once; the destination complains but goes on.",
        _COMMAND,
    ),
    (
        "MFD418",
        "configuration-size",
        _ERROR,
        "The machine type's name has a sensible length: the destination allocates it, and dies if"
        " it cannot.",
        "vmstate.c:vmstate_handle_alloc",
    ),
    # 500: VFIO sections of the main stream.
    (
        "MFD501",
        "config-in-main-stream",
        _ERROR,
        "With multifd transfer the config is no part of the main stream; otherwise the destination"
        " exits.",
        _LOAD_STATE,
    ),
    (
        "MFD502",
        "setup-state-end",
        _ERROR,
        "END_OF_STATE follows DEV_SETUP_STATE; otherwise the destination exits.",
        _LOAD_STATE,
    ),
    (
        "MFD503",
        "init-data-sent",
        _ERROR,
        "DEV_INIT_DATA_SENT comes once for a device with PRE_COPY if switchover-ack is on;"
        " otherwise the destination exits.",
        _LOAD_STATE,
    ),
    (
        "MFD504",
        "marker-unknown",
        _ERROR,
        "VFIO sections consist of markers that the destination knows; otherwise it exits.",
        _LOAD_STATE,
    ),
    (
        "MFD505",
        "load-ready-not-expected",
        _ERROR,
        "DEV_CONFIG_LOAD_READY comes only if the destination loads configs after the iterable"
        " sections; otherwise it exits.",
        _LOAD_READY,
    ),
    (
        "MFD506",
        "load-ready-twice",
        _ERROR,
        "DEV_CONFIG_LOAD_READY comes once for a device; otherwise the destination exits.",
        _LOAD_READY,
    ),
    (
        "MFD507",
        "load-ready-missing",
        _ERROR,
        "A destination that loads configs after the iterable sections is told when; otherwise the"
        " load thread waits for ever.",
        _LOAD_THREAD,
    ),
    (
        "MFD508",
        "main-data-write",
        _ERROR,
        "The device takes the data of the main stream; otherwise the destination exits.",
        "vfio/migration.c:vfio_load_buffer",
    ),
    (
        "MFD509",
        "data-after-switchover",
        _WARNING,
        "With multifd transfer no device data is in the main stream after SWITCHOVER_START; it"
        " mixes with what the load thread writes.",
        "vfio/migration.c:vfio_load_buffer",
    ),
    (
        "MFD510",
        "switchover-missing",
        _ERROR,
        "SWITCHOVER_START comes before the device state; without it the state is dropped without a"
        " word and the guest runs.",
        "savevm.c:loadvm_postcopy_handle_switchover_start",
    ),
    (
        "MFD511",
        "switchover-twice",
        _ERROR,
        "SWITCHOVER_START comes once; a second one while a load thread runs aborts the"
        " destination.",
        _SWITCHOVER,
    ),
    (
        "MFD512",
        "device-only-on-destination",
        _ERROR,
        "Every device of the destination with multifd transfer is one of the source's; otherwise"
        " its load thread waits for ever.",
        _LOAD_THREAD,
    ),
    (
        "MFD513",
        "device-only-on-source",
        _ERROR,
        "Every device of the source is one of the destination's; otherwise the destination exits.",
        _START_FULL,
    ),
    (
        "MFD514",
        "device-not-in-main-stream",
        _WARNING,
        "A device with device packets has a START section in the main stream.",
        _START_FULL,
    ),
    (
        "MFD515",
        "transfer-unsupported",
        _ERROR,
        "Multifd transfer is switched on only where it can work: multifd on, no compression;"
        " otherwise the destination exits.",
        "vfio/migration-multifd.c:vfio_multifd_setup",
    ),
    # 600: the recording.
    (
        "MFD601",
        "profile-guessed",
        _NOTE,
        "The destination's release is not in a recording.",
        "savevm.c:qemu_loadvm_state",
    ),
    (
        "MFD602",
        "capture-gap",
        _WARNING,
        "The recording has every byte; a verdict is about those that it has.",
        _RECV_THREAD,
    ),
    (
        "MFD603",
        "capture-ends",
        _WARNING,
        "The recording goes on until all channels end; what would have come is not known.",
        _STATE_MAIN,
    ),
    (
        "MFD604",
        "machine-guessed",
        _NOTE,
        "The destination's machine type is not in a recording.",
        "savevm.c:configuration_post_load",
    ),
    (
        "MFD605",
        "config-synthetic",
        _NOTE,
        "A device's config state is QEMU's own: a recording made without QEMU has a made-up one,"
        " which a destination may refuse.",
        "vfio/pci.c:vfio_pci_load_config",
    ),
)

RULES: Final[Mapping[str, Rule]] = {row[0]: Rule(*row) for row in _TABLE}
"""All rules by id, in order."""

RULES_BY_NAME: Final[Mapping[str, Rule]] = {rule.name: rule for rule in RULES.values()}


def find_rule(text: str) -> Rule:
    """Find a rule by its id or its name, in any case.

    Raises:
        KeyError: there is none.
    """
    found = RULES.get(text.upper()) or RULES_BY_NAME.get(text.lower())
    if found is None:
        raise KeyError(text)
    return found
