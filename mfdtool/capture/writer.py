# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture files, written front to back and never touched again.

Every call writes whole records, so a file is readable up to its last flush whenever its writer
is killed. The file belongs to the caller, who closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.packets import pcap, pcapng_build
from mfdtool.packets.info import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from mfdtool.packets.info import Interface, Statistics


class PcapngWriter:
    """Writes pcapng with one section; times have the resolution of their interface."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        hardware: str = "",
        os: str = "",
        application: str = "",
        comments: Iterable[str] = (),
    ) -> None:
        """Write the section header."""
        self._file = file
        self._interfaces: list[Interface] = []
        file.write(
            pcapng_build.section_header(
                hardware=hardware, os=os, application=application, comments=comments
            )
        )

    def add_interface(self, interface: Interface, *, comments: Iterable[str] = ()) -> int:
        """Describe an interface and give its number; the one in ``interface`` is ignored.

        Raises:
            ValueError: its ticks per second are neither a power of 10 nor of 2.
        """
        self._file.write(pcapng_build.interface_description(interface, comments=comments))
        self._interfaces.append(interface)
        return len(self._interfaces) - 1

    def write(
        self,
        frame: bytes | memoryview,
        *,
        time_ns: int,
        interface: int = 0,
        original: int | None = None,
        comments: Iterable[str] = (),
        flags: int | None = None,
        drops: int | None = None,
    ) -> None:
        """Write one frame; ``original`` is its length on the wire if it was cut.

        Raises:
            ValueError: the interface was not added.
        """
        self._file.write(
            pcapng_build.enhanced_packet(
                frame,
                ticks=self._ticks(interface, time_ns),
                interface=interface,
                original=original,
                comments=comments,
                flags=flags,
                drops=drops,
            )
        )

    def write_statistics(
        self, statistics: Statistics, *, time_ns: int, comments: Iterable[str] = ()
    ) -> None:
        """Write what was counted on an interface so far.

        Raises:
            ValueError: the interface was not added.
        """
        ticks = self._ticks(statistics.interface, time_ns)
        self._file.write(
            pcapng_build.interface_statistics(statistics, ticks=ticks, comments=comments)
        )

    def flush(self) -> None:
        """Hand everything to the operating system: from then on it survives this process."""
        self._file.flush()

    def _ticks(self, interface: int, time_ns: int) -> int:
        if not 0 <= interface < len(self._interfaces):
            raise ValueError(f"interface {interface} was not added")
        return self._interfaces[interface].ticks(time_ns)


class PcapWriter:
    """Writes pcap: one link type, and nothing but frames."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        linktype: int,
        snaplen: int = pcap.MAX_CAPTURED,
        ticks_per_second: int = NANOSECONDS,
    ) -> None:
        """Write the file header.

        Raises:
            ValueError: ``ticks_per_second`` is neither a million nor a billion.
        """
        self._file = file
        self._ticks_per_second = ticks_per_second
        file.write(
            pcap.file_header(linktype=linktype, snaplen=snaplen, ticks_per_second=ticks_per_second)
        )

    def write(
        self, frame: bytes | memoryview, *, time_ns: int, original: int | None = None
    ) -> None:
        """Write one frame; ``original`` is its length on the wire if it was cut.

        Raises:
            ValueError: it is longer than a record may hold, or the time does not fit.
        """
        self._file.write(
            pcap.record(
                frame,
                time_ns=time_ns,
                original=original,
                ticks_per_second=self._ticks_per_second,
            )
        )

    def flush(self) -> None:
        """Hand everything to the operating system: from then on it survives this process."""
        self._file.flush()
