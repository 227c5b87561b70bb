# SPDX-License-Identifier: GPL-2.0-or-later
"""Scapy layers for QEMU migrations: multifd channels, main stream, return path.

Three ways to the same classes::

    from dissectors.multifd import MultiFDInit        # as a Python package

    conf.exts.load("mfdtool")                         # as a scapy extension that is installed
    load_contrib("qemu_multifd")

    dissectors.register()                             # the same, without pip's metadata
    load_contrib("qemu_multifd")

Migrations have no port of their own, so nothing is bound until :func:`bind_ports` is called.
Scapy itself is imported only by those functions that need it, and by the modules of layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from scapy.config import ScapyExt
    from scapy.packet import Packet

DEFAULT_LIMIT: Final = 2 << 20
"""Payload bytes of one packet that :func:`read` copies; sources write at most half as many."""

_CONTRIB: Final = "qemu_multifd"


def scapy_ext(ext: Any) -> None:
    """Tell scapy what is here; ``conf.exts.load("mfdtool")`` calls this."""
    from mfdtool import __version__

    path = Path(__file__).with_name("contrib") / f"{_CONTRIB}.py"
    ext.config("mfdtool", __version__)
    ext.register(_CONTRIB, ext.MODE.CONTRIB, path, default=False)


def register() -> None:
    """Make ``load_contrib("qemu_multifd")`` work, also if mfdtool is not installed by pip."""
    from scapy.config import ScapyExt, conf

    make: Callable[[], ScapyExt] = ScapyExt
    ext = make()
    scapy_ext(ext)
    conf.exts.all_specs.update(ext.specs)


def bind_ports(*ports: int) -> None:
    """Dissect what TCP carries to and from these ports as migrations.

    Each segment is dissected by itself, as everywhere in scapy: one that begins in the middle of
    a packet stays ``Raw``. Use :func:`read` for a whole capture.

    Raises:
        ValueError: one is no TCP port; then none is bound.
    """
    from dissectors import ports as _ports

    _ports.bind_ports(*ports)


def read(
    capture: str | PathLike[str], *, limit: int = DEFAULT_LIMIT, page_size: int | None = None
) -> Iterator[Packet]:
    """Give the packets of a recorded migration, reassembled, in the order of arrival.

    Each is a ``ChannelFrame`` that says where it was, with the layers behind it, and has its
    ``time``. Bytes that the capture lacks are ``Missing`` layers, never zeroes. ``limit`` bounds
    the payload of a packet in bytes; ``page_size`` is needed if the streams do not tell it.

    Raises:
        CaptureError: the file cannot be read, is not a capture, or is damaged; in the last case
            after the packets before the damage.
    """
    from dissectors import captured

    return captured.read(capture, limit=limit, page_size=page_size)
