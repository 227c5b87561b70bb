# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong in mfdtool itself.

::

    MfdtoolError
    ├── WireError            bytes do not follow the format
    │   ├── TruncatedError   input ended early
    │   └── UnsupportedError understood, but not handled
    ├── CaptureError         a file is unreadable or is not a capture
    ├── ScheduleError        not an order of this trace, or made for another one
    └── SinkError            a live operation failed; ``__cause__`` is the OSError

A migration that breaks QEMU's rules is not an error of mfdtool: it is a finding.
Errors hold data and make their message when it is asked for.
"""

from __future__ import annotations


class MfdtoolError(Exception):
    """Base of every error that mfdtool raises on purpose."""


class WireError(MfdtoolError):
    """Bytes do not follow the wire format.

    Attributes:
        reason: what is wrong, in one clause.
        path: the field, dotted, as the schema names it; empty for the whole value.
        offset: where, in bytes from the start of the channel (or of the given buffer).
        channel: the channel's name, empty when the caller did not say.
    """

    def __init__(self, reason: str, *, path: str = "", offset: int = 0, channel: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.offset = offset
        self.channel = channel

    def __str__(self) -> str:
        where = f"offset {self.offset}"
        if self.channel:
            where = f"{self.channel}, {where}"
        if self.path:
            where = f"{where}, {self.path}"
        return f"{where}: {self.reason}"


class TruncatedError(WireError):
    """Input ended inside a value; ``missing`` is how many bytes were wanted (at least)."""

    def __init__(self, missing: int, *, path: str = "", offset: int = 0, channel: str = "") -> None:
        super().__init__(
            f"input ends, {missing} more bytes wanted", path=path, offset=offset, channel=channel
        )
        self.missing = missing


class UnsupportedError(WireError):
    """Recognised, but not something that mfdtool can decode (TLS, a newer version)."""


class CaptureError(MfdtoolError):
    """A capture file is unreadable, or is not a capture.

    Attributes:
        reason: what is wrong, in one clause.
        path: the file as the user named it.
        offset: byte offset in the file, or None when the whole file is meant.
        record: 1-based number of the capture record, or None.
    """

    def __init__(
        self, reason: str, *, path: str = "", offset: int | None = None, record: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.offset = offset
        self.record = record

    def __str__(self) -> str:
        where = [self.path] if self.path else []
        if self.record is not None:
            where.append(f"record {self.record}")
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        return f"{', '.join(where)}: {self.reason}" if where else self.reason


class ScheduleError(MfdtoolError):
    """A schedule is not an order of this trace, or was made for another one."""


class SinkError(MfdtoolError):
    """A live operation failed; the OSError is the ``__cause__``."""
