# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of an opened capture, whichever format it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfdtool.errors import CaptureError
from mfdtool.packets import pcap, pcapng
from mfdtool.packets.info import CaptureInfo, Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.capture.source import Source
    from mfdtool.packets.values import Record

__all__ = ["CaptureInfo", "records"]


def records(source: Source, info: CaptureInfo | None = None) -> Iterator[Record]:
    """Give every record of a capture, in file order.

    ``info`` collects what the file says about itself; it is complete at the end. Damage to
    the compression around the file is in ``source.problems``, not raised here.

    Raises:
        CaptureError: at once when the source is no capture; after the last readable record
            when the capture is cut short or damaged.
    """
    if source.kind is Format.PCAP:
        return pcap.read(source.view, path=source.path, info=info)
    if source.kind is Format.PCAPNG:
        return pcapng.read(source.view, path=source.path, info=info)
    raise CaptureError("a raw stream has no records", path=source.path)
