# SPDX-License-Identifier: GPL-2.0-or-later
"""hisi_acc: state of a HiSilicon accelerator's virtual function (``drivers/vfio/pci/hisilicon``).

One structure in the driver's own byte order, little-endian on Arm. Precopy gives what the
destination must match, 40 bytes; of a device that was not in use there is no more than these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from construct import Int16ul, Int32ul, Int64ul, Padding, Struct

from mfdtool.wire.codec import Message, field, listed
from mfdtool.wire.vendors.vendor import Confidence, Evidence, Guess, Record, Vendor, by_ids

if TYPE_CHECKING:
    from mfdtool.wire.vendors.cursor import Cursor
    from mfdtool.wire.vendors.vendor import FieldValue, Records

MAGIC_V1: Final = 0xCDCDCDCDFEEDAACC
MAGIC_V2: Final = 0xAACCFEEDDECADEDE
MAJOR_VERSION: Final = 1
DEVICES: Final = frozenset({(0x19E5, 0xA251), (0x19E5, 0xA256), (0x19E5, 0xA259)})
"""Virtual functions of the compression, security and public key accelerators."""

_MAGICS: Final = {MAGIC_V1: "V1", MAGIC_V2: "V2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchData(Message):
    """What source and destination must have alike."""

    SCHEMA = Struct(
        field("acc_magic", Int64ul, "0xaaccfeeddecadede; 0xcdcdcdcdfeedaacc from old drivers"),
        field("qp_num", Int32ul, "queue pairs"),
        field("dev_id", Int32ul, "PCI device id"),
        field("que_iso_cfg", Int32ul, "queue isolation"),
        field("qp_base", Int32ul, "the first queue pair"),
        field("vf_qm_state", Int32ul, "whether the device is in use: 0 if it is"),
        field("major_ver", Int16ul, "1; old drivers write 0"),
        field("minor_ver", Int16ul, "0"),
        field("qm_rsv_state", listed(2, Int32ul), "reserved"),
    )
    SOURCE = "drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.h:acc_vf_data"

    acc_magic: int = MAGIC_V2
    qp_num: int = 0
    dev_id: int = 0
    que_iso_cfg: int = 0
    qp_base: int = 0
    vf_qm_state: int = 0
    major_ver: int = MAJOR_VERSION
    minor_ver: int = 0
    qm_rsv_state: tuple[int, ...] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState(Message):
    """Registers and addresses of the queues."""

    SCHEMA = Struct(
        field("aeq_int_mask", Int32ul, "register"),
        field("eq_int_mask", Int32ul, "register"),
        field("ifc_int_source", Int32ul, "register"),
        field("ifc_int_mask", Int32ul, "register"),
        field("ifc_int_set", Int32ul, "register"),
        field("page_size", Int32ul, "register"),
        field("qm_eqc_dw", listed(7, Int32ul), "event queue context"),
        field("qm_aeqc_dw", listed(7, Int32ul), "asynchronous event queue context"),
        field("qm_rsv_regs", listed(5, Int32ul), "reserved"),
        Padding(4),
        field("eqe_dma", Int64ul, "guest address of the event queue"),
        field("aeqe_dma", Int64ul, "guest address of the asynchronous event queue"),
        field("sqc_dma", Int64ul, "guest address of the send queue contexts"),
        field("cqc_dma", Int64ul, "guest address of the completion queue contexts"),
    )
    SOURCE = "drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.h:acc_vf_data"

    aeq_int_mask: int = 0
    eq_int_mask: int = 0
    ifc_int_source: int = 0
    ifc_int_mask: int = 0
    ifc_int_set: int = 0
    page_size: int = 0
    qm_eqc_dw: tuple[int, ...] = (0,) * 7
    qm_aeqc_dw: tuple[int, ...] = (0,) * 7
    qm_rsv_regs: tuple[int, ...] = (0,) * 5
    eqe_dma: int = 0
    aeqe_dma: int = 0
    sqc_dma: int = 0
    cqc_dma: int = 0


MATCH_SIZE: Final = MatchData.SCHEMA.sizeof()
QUEUE_SIZE: Final = QueueState.SCHEMA.sizeof()


def recognise(evidence: Evidence) -> Guess | None:
    """Look for one of the magic numbers; without data, at the device's ids."""
    magic = int.from_bytes(evidence.head[:8], "little")
    if magic in _MAGICS:
        why = f"its data begins with the magic {magic:#x} ({_MAGICS[magic]})"
        return Guess(Confidence.CERTAIN, why)
    return by_ids(evidence, DEVICES)


def decode(cursor: Cursor) -> Records:
    """Give what must match, and the queues' state if it is there."""
    match = MatchData.parse((yield from cursor.read(MATCH_SIZE)))
    yield Record(
        offset=0,
        length=MATCH_SIZE,
        header=MATCH_SIZE,
        name="match data",
        fields=_plain(match),
        problem=_problem(match),
    )
    if (yield from cursor.more()):
        queues = QueueState.parse((yield from cursor.read(QUEUE_SIZE)))
        yield Record(
            offset=MATCH_SIZE,
            length=QUEUE_SIZE,
            header=QUEUE_SIZE,
            name="queue state",
            fields=_plain(queues),
        )


def _problem(match: MatchData) -> str:
    """Say what any destination would refuse."""
    if match.acc_magic not in _MAGICS:
        return f"the magic {match.acc_magic:#x} is none of the driver's"
    if match.acc_magic == MAGIC_V2 and match.major_ver != MAJOR_VERSION:
        return f"the driver takes version {MAJOR_VERSION} only"
    return ""


def _plain(message: Message) -> dict[str, FieldValue]:
    return {
        name: " ".join(f"{word:#x}" for word in value) if isinstance(value, tuple) else value
        for name, value in message.to_mapping().items()
    }


VENDOR: Final = Vendor(
    name="hisi_acc",
    text="HiSilicon accelerator",
    source="drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.h:acc_vf_data",
    recognise=recognise,
    decode=decode,
)
