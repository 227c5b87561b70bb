# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of what a PCI config space has: bits of registers, and capabilities.

Symbols are those of Linux's ``include/uapi/linux/pci_regs.h`` without their common prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Final

from mfdtool.wire.constants import Meaning


class PciCommand(IntFlag):
    """Bits of the command register (``PCI_COMMAND_*``)."""

    IO = 1 << 0
    MEMORY = 1 << 1
    MASTER = 1 << 2
    SPECIAL = 1 << 3
    INVALIDATE = 1 << 4
    VGA_PALETTE = 1 << 5
    PARITY = 1 << 6
    WAIT = 1 << 7
    SERR = 1 << 8
    FAST_BACK = 1 << 9
    INTX_DISABLE = 1 << 10


PCI_COMMANDS: Final[Mapping[PciCommand, Meaning]] = {
    PciCommand.IO: Meaning("IO", "answers in I/O space"),
    PciCommand.MEMORY: Meaning("MEMORY", "answers in memory space"),
    PciCommand.MASTER: Meaning("MASTER", "may read and write the guest's memory"),
    PciCommand.SPECIAL: Meaning("SPECIAL", "sees special cycles"),
    PciCommand.INVALIDATE: Meaning("INVALIDATE", "may write and invalidate"),
    PciCommand.VGA_PALETTE: Meaning("VGA_PALETTE", "snoops the VGA palette"),
    PciCommand.PARITY: Meaning("PARITY", "reports parity errors"),
    PciCommand.WAIT: Meaning("WAIT", "steps address and data"),
    PciCommand.SERR: Meaning("SERR", "may signal SERR"),
    PciCommand.FAST_BACK: Meaning("FAST_BACK", "may go back to back"),
    PciCommand.INTX_DISABLE: Meaning("INTX_DISABLE", "may not signal INTx"),
}
"""What each bit of the command register allows."""


class PciStatus(IntFlag):
    """Bits of the status register (``PCI_STATUS_*``); DEVSEL timing is left out."""

    IMM_READY = 1 << 0
    INTERRUPT = 1 << 3
    CAP_LIST = 1 << 4
    MHZ_66 = 1 << 5
    FAST_BACK = 1 << 7
    PARITY = 1 << 8
    SIG_TARGET_ABORT = 1 << 11
    REC_TARGET_ABORT = 1 << 12
    REC_MASTER_ABORT = 1 << 13
    SIG_SYSTEM_ERROR = 1 << 14
    DETECTED_PARITY = 1 << 15


DEVSEL_MASK: Final = 0x600
"""Bits of the status register that are a number, the DEVSEL timing."""

PCI_STATUSES: Final[Mapping[PciStatus, Meaning]] = {
    PciStatus.IMM_READY: Meaning("IMM_READY", "ready at once after a reset"),
    PciStatus.INTERRUPT: Meaning("INTERRUPT", "INTx is pending"),
    PciStatus.CAP_LIST: Meaning("CAP_LIST", "there is a list of capabilities"),
    PciStatus.MHZ_66: Meaning("66MHZ", "runs at 66 MHz"),
    PciStatus.FAST_BACK: Meaning("FAST_BACK", "accepts back to back"),
    PciStatus.PARITY: Meaning("PARITY", "a parity error was seen as master"),
    PciStatus.SIG_TARGET_ABORT: Meaning("SIG_TARGET_ABORT", "aborted as target"),
    PciStatus.REC_TARGET_ABORT: Meaning("REC_TARGET_ABORT", "its target aborted"),
    PciStatus.REC_MASTER_ABORT: Meaning("REC_MASTER_ABORT", "aborted as master"),
    PciStatus.SIG_SYSTEM_ERROR: Meaning("SIG_SYSTEM_ERROR", "signalled SERR"),
    PciStatus.DETECTED_PARITY: Meaning("DETECTED_PARITY", "saw a parity error"),
}
"""What each bit of the status register tells."""


class CapabilityId(IntEnum):
    """Capabilities that are decoded (``PCI_CAP_ID_*``)."""

    PM = 0x01
    MSI = 0x05
    VNDR = 0x09
    EXP = 0x10
    MSIX = 0x11


CAPABILITIES: Final[Mapping[int, Meaning]] = {
    0x01: Meaning("PM", "Power Management"),
    0x02: Meaning("AGP", "Accelerated Graphics Port"),
    0x03: Meaning("VPD", "Vital Product Data"),
    0x04: Meaning("SLOTID", "Slot Identification"),
    0x05: Meaning("MSI", "Message Signalled Interrupts"),
    0x06: Meaning("CHSWP", "CompactPCI Hot Swap"),
    0x07: Meaning("PCIX", "PCI-X"),
    0x08: Meaning("HT", "HyperTransport"),
    0x09: Meaning("VNDR", "Vendor Specific"),
    0x0A: Meaning("DBG", "Debug Port"),
    0x0B: Meaning("CCRC", "CompactPCI Central Resource Control"),
    0x0C: Meaning("SHPC", "Standard Hot-Plug Controller"),
    0x0D: Meaning("SSVID", "Bridge Subsystem Ids"),
    0x0E: Meaning("AGP3", "AGP 8x"),
    0x0F: Meaning("SECDEV", "Secure Device"),
    0x10: Meaning("EXP", "PCI Express"),
    0x11: Meaning("MSIX", "MSI-X"),
    0x12: Meaning("SATA", "SATA Data/Index"),
    0x13: Meaning("AF", "Advanced Features"),
    0x14: Meaning("EA", "Enhanced Allocation"),
}
"""Capabilities in the first 256 bytes, by id."""

EXTENDED_CAPABILITIES: Final[Mapping[int, Meaning]] = {
    0x01: Meaning("ERR", "Advanced Error Reporting"),
    0x02: Meaning("VC", "Virtual Channel"),
    0x03: Meaning("DSN", "Device Serial Number"),
    0x04: Meaning("PWR", "Power Budgeting"),
    0x05: Meaning("RCLD", "Root Complex Link Declaration"),
    0x06: Meaning("RCILC", "Root Complex Internal Link Control"),
    0x07: Meaning("RCEC", "Root Complex Event Collector"),
    0x08: Meaning("MFVC", "Multi-Function Virtual Channel"),
    0x09: Meaning("VC9", "Virtual Channel with MFVC"),
    0x0A: Meaning("RCRB", "Root Complex Register Block"),
    0x0B: Meaning("VNDR", "Vendor Specific"),
    0x0D: Meaning("ACS", "Access Control Services"),
    0x0E: Meaning("ARI", "Alternative Routing Id"),
    0x0F: Meaning("ATS", "Address Translation Services"),
    0x10: Meaning("SRIOV", "Single Root I/O Virtualization"),
    0x11: Meaning("MRIOV", "Multi Root I/O Virtualization"),
    0x12: Meaning("MCAST", "Multicast"),
    0x13: Meaning("PRI", "Page Request Interface"),
    0x15: Meaning("REBAR", "Resizable BAR"),
    0x16: Meaning("DPA", "Dynamic Power Allocation"),
    0x17: Meaning("TPH", "TPH Requester"),
    0x18: Meaning("LTR", "Latency Tolerance Reporting"),
    0x19: Meaning("SECPCI", "Secondary PCI Express"),
    0x1A: Meaning("PMUX", "Protocol Multiplexing"),
    0x1B: Meaning("PASID", "Process Address Space Id"),
    0x1D: Meaning("DPC", "Downstream Port Containment"),
    0x1E: Meaning("L1SS", "L1 PM Substates"),
    0x1F: Meaning("PTM", "Precision Time Measurement"),
    0x23: Meaning("DVSEC", "Designated Vendor Specific"),
    0x25: Meaning("DLF", "Data Link Feature"),
    0x26: Meaning("PL_16GT", "Physical Layer 16 GT/s"),
    0x29: Meaning("NPEM", "Native Enclosure Management"),
    0x2A: Meaning("PL_32GT", "Physical Layer 32 GT/s"),
    0x2E: Meaning("DOE", "Data Object Exchange"),
}
"""Capabilities behind the first 256 bytes, by id."""
