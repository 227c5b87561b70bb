# SPDX-License-Identifier: GPL-2.0-or-later
"""URIs in QEMU's spelling, and sockets at them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.addresses import (
    Address,
    TcpAddress,
    UnixAddress,
    bound_address,
    connect,
    listen,
    parse_address,
    remove_socket,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10.0.0.1:4444", TcpAddress("10.0.0.1", 4444)),
        ("tcp:host.example:0", TcpAddress("host.example", 0)),
        ("tcp:[::1]:4444", TcpAddress("::1", 4444)),
        ("tcp::4444", TcpAddress("", 4444)),
        ("unix:/run/m.sock", UnixAddress("/run/m.sock")),
        ("unix:a:b", UnixAddress("a:b")),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither tcp:HOST:PORT nor unix:PATH"),
        ("10.0.0.1:4444", "neither"),
        ("vsock:3:4444", "neither"),
        ("exec:cat", "neither"),
        ("unix:", "wants a path"),
        ("tcp:host", "wants a port number"),
        ("tcp:host:", "wants a port number"),
        ("tcp:host:65536", "wants a port number"),
        ("tcp:host:-1", "wants a port number"),
        ("tcp:host:٤", "wants a port number"),
        ("tcp:::1:4444", "wants brackets"),
        ("tcp:host:4444,to=4450", "options behind a comma"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_listening_and_connecting(host: str) -> None:
    with listen(TcpAddress(host, 0)) as listener:
        address = bound_address(listener)
        assert isinstance(address, TcpAddress)
        with connect(TcpAddress(host, address.port), timeout=60) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
            assert client.gettimeout() is None


def test_any_address_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6 has no such sockets, but the name of any address in it."""

    def create(family: int = -1, *rest: int, **more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return original(family, *rest, **more)

    original = socket.socket
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    monkeypatch.setattr(socket, "socket", create)
    with listen(TcpAddress("", 0)) as listener:
        assert listener.family == socket.AF_INET


def test_a_link_local_address_keeps_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ("fe80::1", 4444, 0, 7)
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", name)]
    bound: list[object] = []

    def create_server(address: object, **options: object) -> socket.socket:
        bound.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    monkeypatch.setattr(socket, "create_server", create_server)
    listen(TcpAddress("fe80::1%eth0", 4444)).close()
    assert bound == [name]


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_what_is_no_name_of_a_host(host: str) -> None:
    address = TcpAddress(host, 4444)
    with pytest.raises(SinkError, match=r"cannot listen on .*: no host can have this name"):
        listen(address)
    with pytest.raises(SinkError, match=r"cannot connect to .*: no host can have this name"):
        connect(address)


def test_a_unix_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    listen(address).close()
    with listen(address) as listener:
        assert bound_address(listener) == address
        with pytest.raises(SinkError, match=r"cannot listen on unix:.*: Address already in use"):
            listen(address)
        with connect(address):
            pass
    remove_socket(address)
    assert not (tmp_path / "s").exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SinkError, match="Address already in use"):
        listen(UnixAddress(str(tmp_path / "s")))
    assert (tmp_path / "s").read_text() == "precious"


def test_nobody_there(tmp_path: Path) -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as listener:
        address = bound_address(listener)
        with pytest.raises(SinkError, match=r"cannot listen on tcp:127.0.0.1:.*in use") as caught:
            listen(address)
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(SinkError, match=r"cannot connect to tcp:127.0.0.1:.*refused"):
        connect(address)
    with pytest.raises(SinkError, match=r"cannot connect to unix:.*No such file"):
        connect(UnixAddress(str(tmp_path / "none")))


def test_a_path_that_no_unix_socket_can_have() -> None:
    """The system is not even asked, so there is no error number."""
    address = UnixAddress(f"/tmp/{'x' * 200}")
    with pytest.raises(SinkError, match=r"cannot listen on unix:.*: .*path too long$"):
        listen(address)
    with pytest.raises(SinkError, match=r"cannot connect to unix:.*: .*path too long$"):
        connect(address)
