# SPDX-License-Identifier: GPL-2.0-or-later
"""mlx5: state of a ConnectX virtual function (Linux, ``drivers/vfio/pci/mlx5``).

Images of the firmware, each behind a header that tells its size. Precopy gives one image or more
and, first of all, how large the last one is expected to be.
"""

from __future__ import annotations

from typing import Final

from mfdtool.wire.vendors.framed import Format
from mfdtool.wire.vendors.vendor import Vendor

FW_DATA: Final = 0
STOP_COPY_SIZE: Final = 1

FORMAT: Final = Format(
    tags={FW_DATA: "FW_DATA", STOP_COPY_SIZE: "STOP_COPY_SIZE"},
    numbers={STOP_COPY_SIZE: "stop_copy_size"},
    devices=frozenset({(0x15B3, 0x101E)}),
)

VENDOR: Final = Vendor(
    name="mlx5",
    text="NVIDIA ConnectX virtual function",
    source="drivers/vfio/pci/mlx5/cmd.h:mlx5_vf_migration_header",
    recognise=FORMAT.recognise,
    decode=FORMAT.decode,
)
