# SPDX-License-Identifier: GPL-2.0-or-later
"""Where to listen and where to connect, in QEMU's spelling.

::

    tcp:HOST:PORT    tcp:[::1]:4444    tcp::4444 (any address, to listen)
    unix:PATH

What QEMU's ``migrate`` and ``migrate-incoming`` take, without options (util/qemu-sockets.c:
socket_parse).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mfdtool.errors import SinkError

BACKLOG: Final = 512
"""Connections that may wait to be accepted: a migration has up to 257 (main, multifd, preempt)."""

_MAX_PORT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, by name or number, and a port; an empty host is any address."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Understand a URI as QEMU spells it.

    Raises:
        ValueError: it is none that a migration with several channels can use.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "unix":
        if not rest:
            raise ValueError(f"{text}: unix: wants a path")
        return UnixAddress(rest)
    if colon and scheme == "tcp":
        return _parse_tcp(text, rest)
    raise ValueError(f"{text}: neither tcp:HOST:PORT nor unix:PATH")


def _parse_tcp(text: str, rest: str) -> TcpAddress:
    if "," in rest:
        raise ValueError(f"{text}: options behind a comma are not supported")
    host, _, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text}: an IPv6 address wants brackets, as in tcp:[::1]:4444")
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError(f"{text}: tcp:HOST:PORT wants a port number")
    return TcpAddress(host, int(port))


def listen(address: Address) -> socket.socket:
    """Open a listening socket.

    A unix socket that a dead process left behind is replaced, as QEMU does; one that somebody
    listens on is not.

    Raises:
        SinkError: the address is in use, does not exist or may not be used.
    """
    try:
        if isinstance(address, UnixAddress):
            return _listen_unix(address.path)
        return _listen_tcp(address)
    except (OSError, UnicodeError) as error:
        raise SinkError(f"cannot listen on {address}: {why(error)}") from error


def connect(address: Address, *, timeout: float | None = None) -> socket.socket:
    """Connect; the socket blocks without limit afterwards.

    Raises:
        SinkError: nobody answers within ``timeout`` seconds, or at all.
    """
    try:
        if isinstance(address, UnixAddress):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(address.path)
            except OSError:
                connection.close()
                raise
        else:
            host = address.host or "localhost"
            connection = socket.create_connection((host, address.port), timeout=timeout)
    except (OSError, UnicodeError) as error:
        raise SinkError(f"cannot connect to {address}: {why(error)}") from error
    connection.settimeout(None)
    return connection


def why(error: OSError | UnicodeError) -> str:
    """Say why an address is of no use; one that no name server could know is a `UnicodeError`."""
    if isinstance(error, UnicodeError):
        return "no host can have this name"
    return error.strerror or str(error)


def bound_address(listener: socket.socket) -> Address:
    """Say where a socket listens, with the port that the system chose."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return UnixAddress(os.fsdecode(name))
    return TcpAddress(name[0], name[1])


def remove_socket(address: Address) -> None:
    """Remove the file of a unix socket that nobody listens on any more."""
    if isinstance(address, UnixAddress):
        with suppress(OSError):
            Path(address.path).unlink()


def _listen_tcp(address: TcpAddress) -> socket.socket:
    found = socket.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    if not address.host:
        # One socket for both families, where there are both.
        found.sort(key=lambda entry: entry[0] != socket.AF_INET6)
    failure: OSError | None = None
    for family, _, _, _, name in found:
        try:
            # Whole: in an IPv6 name the interface of a link-local address comes behind the port.
            return socket.create_server(
                name,
                family=family,
                backlog=BACKLOG,
                dualstack_ipv6=(
                    not address.host
                    and family == socket.AF_INET6
                    # A kernel without IPv6 has names of that family all the same.
                    and socket.has_dualstack_ipv6()
                ),
            )
        except OSError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_behind(path):
            Path(path).unlink()
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_left_behind(path: str) -> bool:
    """Tell whether there is a unix socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED
