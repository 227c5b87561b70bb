# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's VFIO interface: numbers and structures of linux/vfio.h and linux/iommufd.h.

Only what moving a device's state takes. Structures are in the machine's own byte order; a
structure that the kernel writes to is a `bytearray`, because it comes back in place.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final


class Ioctl(IntEnum):
    """Requests; neither direction nor size is coded into them."""

    GET_API_VERSION = 0x3B64
    CHECK_EXTENSION = 0x3B65
    SET_IOMMU = 0x3B66
    GROUP_GET_STATUS = 0x3B67
    GROUP_SET_CONTAINER = 0x3B68
    GROUP_GET_DEVICE_FD = 0x3B6A
    DEVICE_GET_INFO = 0x3B6B
    DEVICE_GET_REGION_INFO = 0x3B6C
    DEVICE_RESET = 0x3B6F
    DEVICE_FEATURE = 0x3B75
    DEVICE_BIND_IOMMUFD = 0x3B76
    DEVICE_ATTACH_IOMMUFD_PT = 0x3B77
    MIG_GET_PRECOPY_INFO = 0x3B79
    IOAS_ALLOC = 0x3B81


class Iommu(IntEnum):
    """Kinds of container, in the order in which QEMU tries them."""

    TYPE1V2 = 3
    TYPE1 = 1
    SPAPR_V2 = 7
    SPAPR = 2


class GroupFlag(IntFlag):
    """What a group's status says (VFIO_GROUP_FLAGS_*)."""

    VIABLE = 1
    """All its devices are bound to VFIO drivers, or to none."""
    CONTAINER_SET = 2


class DeviceFlag(IntFlag):
    """What a device is (VFIO_DEVICE_FLAGS_*)."""

    RESET = 1
    PCI = 2


class Feature(IntEnum):
    """Indexes of VFIO_DEVICE_FEATURE (VFIO_DEVICE_FEATURE_*)."""

    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    DMA_LOGGING_START = 6
    MIG_DATA_SIZE = 9


class FeatureFlag(IntFlag):
    """What is wanted of a feature, beside its index."""

    GET = 1 << 16
    SET = 1 << 17
    PROBE = 1 << 18


class MigrationFlag(IntFlag):
    """States that a device has besides RUNNING and STOP (VFIO_MIGRATION_*)."""

    STOP_COPY = 1
    P2P = 2
    PRE_COPY = 4


class DeviceState(IntEnum):
    """A device's migration state (enum vfio_device_mig_state)."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7


REFUSED: Final = frozenset(
    {
        *((DeviceState.ERROR, state) for state in DeviceState),
        *((state, DeviceState.ERROR) for state in DeviceState),
        (DeviceState.STOP_COPY, DeviceState.PRE_COPY),
        (DeviceState.STOP_COPY, DeviceState.PRE_COPY_P2P),
    }
)
"""Ways from state to state that no kernel goes (drivers/vfio/vfio_main.c:vfio_mig_get_next_state).

They must not even be tried: Linux 6.12 then looks for the next step for ever, inside the kernel,
where the process cannot be killed.
"""

API_VERSION: Final = 0
PCI_CONFIG_REGION: Final = 7
"""VFIO_PCI_CONFIG_REGION_INDEX."""

NO_FD: Final = -1

_GROUP_STATUS: Final = Struct("=II")
_DEVICE_INFO: Final = Struct("=IIIIII")
_REGION_INFO: Final = Struct("=IIIIQQ")
_FEATURE: Final = Struct("=II")
_FEATURE_U64: Final = Struct("=IIQ")
_FEATURE_STATE: Final = Struct("=IIIi")
_PRECOPY_INFO: Final = Struct("=IIQQ")
_BIND: Final = Struct("=IIiI")
_ATTACH: Final = Struct("=III")
_IOAS_ALLOC: Final = Struct("=III")
_FD: Final = Struct("=i")


def fd_pointer(fd: int) -> bytearray:
    """Make what GROUP_SET_CONTAINER wants: an int to point to."""
    return bytearray(_FD.pack(fd))


def group_status() -> bytearray:
    """Make struct vfio_group_status."""
    return bytearray(_GROUP_STATUS.pack(_GROUP_STATUS.size, 0))


def group_flags(status: bytearray) -> GroupFlag:
    """Read struct vfio_group_status."""
    return GroupFlag(_GROUP_STATUS.unpack(status)[1])


def device_name(name: str) -> bytearray:
    """Make what GROUP_GET_DEVICE_FD wants: a C string."""
    return bytearray(name.encode() + b"\0")


def device_info() -> bytearray:
    """Make struct vfio_device_info."""
    return bytearray(_DEVICE_INFO.pack(_DEVICE_INFO.size, 0, 0, 0, 0, 0))


def device_flags(info: bytearray) -> DeviceFlag:
    """Read struct vfio_device_info."""
    return DeviceFlag(_DEVICE_INFO.unpack(info)[1])


def region_info(index: int) -> bytearray:
    """Make struct vfio_region_info."""
    return bytearray(_REGION_INFO.pack(_REGION_INFO.size, 0, index, 0, 0, 0))


def region_place(info: bytearray) -> tuple[int, int]:
    """Read struct vfio_region_info: the region's size, and its offset in the device's file."""
    _, _, _, _, size, offset = _REGION_INFO.unpack(info)
    return size, offset


def feature_probe(feature: Feature, wanted: FeatureFlag) -> bytearray:
    """Make the question whether a feature can be had or set."""
    return bytearray(_FEATURE.pack(_FEATURE.size, feature | wanted | FeatureFlag.PROBE))


def feature_get(feature: Feature) -> bytearray:
    """Make the question for a feature whose data are a number of 64 bits."""
    return bytearray(_FEATURE_U64.pack(_FEATURE_U64.size, feature | FeatureFlag.GET, 0))


def feature_value(data: bytearray) -> int:
    """Read the answer to `feature_get`."""
    value: int = _FEATURE_U64.unpack(data)[2]
    return value


def state_get() -> bytearray:
    """Make the question for a device's state."""
    flags = Feature.MIG_DEVICE_STATE | FeatureFlag.GET
    return bytearray(_FEATURE_STATE.pack(_FEATURE_STATE.size, flags, 0, NO_FD))


def state_set(state: DeviceState) -> bytearray:
    """Make the wish for another state."""
    flags = Feature.MIG_DEVICE_STATE | FeatureFlag.SET
    return bytearray(_FEATURE_STATE.pack(_FEATURE_STATE.size, flags, state, 0))


def state_of(data: bytearray) -> tuple[int, int]:
    """Read struct vfio_device_feature_mig_state: the state, and the data descriptor or -1."""
    _, _, state, data_fd = _FEATURE_STATE.unpack(data)
    return state, data_fd


def precopy_info() -> bytearray:
    """Make struct vfio_precopy_info."""
    return bytearray(_PRECOPY_INFO.pack(_PRECOPY_INFO.size, 0, 0, 0))


def precopy_bytes(info: bytearray) -> tuple[int, int]:
    """Read struct vfio_precopy_info: initial and dirty bytes."""
    _, _, initial, dirty = _PRECOPY_INFO.unpack(info)
    return initial, dirty


def bind_iommufd(iommufd: int) -> bytearray:
    """Make struct vfio_device_bind_iommufd."""
    return bytearray(_BIND.pack(_BIND.size, 0, iommufd, 0))


def attach_iommufd(ioas: int) -> bytearray:
    """Make struct vfio_device_attach_iommufd_pt."""
    return bytearray(_ATTACH.pack(_ATTACH.size, 0, ioas))


def ioas_alloc() -> bytearray:
    """Make struct iommu_ioas_alloc."""
    return bytearray(_IOAS_ALLOC.pack(_IOAS_ALLOC.size, 0, 0))


def ioas_id(data: bytearray) -> int:
    """Read struct iommu_ioas_alloc."""
    number: int = _IOAS_ALLOC.unpack(data)[2]
    return number
