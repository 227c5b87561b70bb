# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images with snapshots, made by hand: clusters of 512 bytes, tables of 64 entries."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CLUSTER = 512
ENTRIES = 64
COVERED = CLUSTER * ENTRIES


@dataclass
class ImageMaker:
    """Makes an image; the header is cluster 0, all else comes behind it."""

    version: int = 3
    features: int = 0
    crypt: int = 0
    cluster_bits: int = 9
    disk_size: int = COVERED + 1
    snapshots: list[bytes] = field(default_factory=list)
    clusters: list[bytes] = field(default_factory=lambda: [b""])

    def put(self, data: bytes) -> int:
        """Put data into as many clusters as it takes; give where it begins."""
        offset = len(self.clusters) * CLUSTER
        for start in range(0, len(data) or 1, CLUSTER):
            self.clusters.append(data[start : start + CLUSTER].ljust(CLUSTER, b"\0"))
        return offset

    def table(self, entries: list[int]) -> int:
        """Put a table; give where it is."""
        return self.put(b"".join(entry.to_bytes(8) for entry in entries))

    def state(self, data: bytes, *, holes: frozenset[int] = frozenset()) -> list[int]:
        """Put a VM state, but for some of its clusters; give its table of the first level."""
        entries = [
            0 if start // CLUSTER in holes else self.put(data[start : start + CLUSTER])
            for start in range(0, len(data), CLUSTER)
        ]
        seconds = [
            self.table(entries[start : start + ENTRIES])
            for start in range(0, len(entries), ENTRIES)
        ]
        # Two entries are for the disk, which is a byte longer than one covers.
        return [0, 0, *seconds]

    def add(
        self, name: str, size: int, first: list[int], *, extra: bytes | None = None, old: int = 0
    ) -> None:
        """Add a snapshot whose table of the first level is ``first``."""
        number = str(len(self.snapshots) + 1)
        if extra is None:
            extra = struct.pack(">QQ", size, self.disk_size)
        entry = struct.pack(
            ">QIHHIIQII",
            self.table(first),
            len(first),
            len(number),
            len(name),
            1_700_000_000,
            0,
            0,
            old,
            len(extra),
        )
        entry += extra + (number + name).encode()
        self.snapshots.append(entry + bytes(-len(number + name) % 8))

    def build(self) -> bytes:
        """Give the image."""
        offset = self.put(b"".join(self.snapshots))
        header = struct.pack(
            ">4sIQIIQIIQQIIQQ",
            b"QFI\xfb",
            self.version,
            0,
            0,
            self.cluster_bits,
            self.disk_size,
            self.crypt,
            0,
            0,
            0,
            0,
            len(self.snapshots),
            offset,
            self.features,
        )
        return header.ljust(CLUSTER, b"\0") + b"".join(self.clusters[1:])
