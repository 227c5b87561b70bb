# SPDX-License-Identifier: GPL-2.0-or-later
"""What distinguishes QEMU releases, as far as multifd device state is concerned.

The multifd packets, the VFIO packets and the framing of the main stream are the same in all of
them. Releases differ in what a destination accepts, and in how it says that it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class MainStreamErrors(Enum):
    """What a destination does with an error in the main stream."""

    PRINTED = "printed"
    """Written to stderr where it happens; only an errno is passed on."""

    RECORDED = "recorded"
    """Kept as the migration error, with its causes, and printed when the destination gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One QEMU release.

    Attributes:
        name: the release, ``10.0``.
        has_load_ready: knows marker DEV_CONFIG_LOAD_READY and the property
            ``x-migration-load-config-after-iter`` (vfio/migration.c:vfio_load_state).
        has_queue_limit: knows the property ``x-migration-max-queued-buffers-size``
            (vfio/migration-multifd.c:vfio_load_state_buffer_insert).
        needs_multifd_magic: a connection that begins with neither magic is refused; before, it
            was a multifd channel (migration.c:migration_ioc_process_incoming).
        aborts_on_second_main: an assertion forbids a second main channel; before, it was ignored
            (migration.c:migration_incoming_setup).
        main_stream_errors: see :class:`MainStreamErrors` (savevm.c:qemu_loadvm_state_main).
        short_config_errno: errno of loading a config that is cut off after its first marker. Seen
            on 10.0 and 11.1; the change is taken to have come with the recording of errors.
    """

    name: str
    has_load_ready: bool
    has_queue_limit: bool
    needs_multifd_magic: bool
    aborts_on_second_main: bool
    main_stream_errors: MainStreamErrors
    short_config_errno: int


_EIO: Final = 5
_EINVAL: Final = 22


def _release(name: str, *, since_10_1: bool, since_10_2: bool) -> Profile:
    return Profile(
        name=name,
        has_load_ready=since_10_1,
        has_queue_limit=since_10_1,
        needs_multifd_magic=since_10_1,
        aborts_on_second_main=since_10_1,
        main_stream_errors=MainStreamErrors.RECORDED if since_10_2 else MainStreamErrors.PRINTED,
        short_config_errno=_EINVAL if since_10_2 else _EIO,
    )


PROFILES: Final[Mapping[str, Profile]] = {
    "10.0": _release("10.0", since_10_1=False, since_10_2=False),
    "10.1": _release("10.1", since_10_1=True, since_10_2=False),
    "10.2": _release("10.2", since_10_1=True, since_10_2=True),
    "11.1": _release("11.1", since_10_1=True, since_10_2=True),
}
"""The releases that are known, oldest first."""

DEFAULT_PROFILE: Final = PROFILES["10.0"]


def profile(name: str) -> Profile:
    """Find a release by its name; of ``10.2.1`` the first two numbers count.

    Raises:
        ValueError: it is not one of :data:`PROFILES`.
    """
    found = PROFILES.get(".".join(name.split(".")[:2]))
    if found is None:
        raise ValueError(f"no profile {name!r}, only {', '.join(PROFILES)}")
    return found


def release_number(name: str) -> tuple[int, int]:
    """Give a release's first two numbers, by which releases are in order.

    Raises:
        ValueError: it has not two numbers.
    """
    major, minor = name.split(".")[:2]
    return int(major), int(minor)
