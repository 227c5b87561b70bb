# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-vfio-pci: state of a virtio virtual function (Linux, ``drivers/vfio/pci/virtio``).

Device parts as the device's admin commands give them, behind headers like those of mlx5. What is
in a part is for the device to say, and is not decoded.
"""

from __future__ import annotations

from typing import Final

from mfdtool.wire.vendors.framed import Format
from mfdtool.wire.vendors.vendor import Vendor

DEVICE_DATA: Final = 0

FORMAT: Final = Format(
    tags={DEVICE_DATA: "DEVICE_DATA"}, numbers={}, devices=frozenset({(0x1AF4, 0x1041)})
)

VENDOR: Final = Vendor(
    name="virtio-vfio-pci",
    text="virtio virtual function",
    source="drivers/vfio/pci/virtio/common.h:virtiovf_migration_header",
    recognise=FORMAT.recognise,
    decode=FORMAT.decode,
)
