# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of frames are plain: they can be compared, hashed and read in a diff."""

from __future__ import annotations

from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord, ReturnPathRecord
from mfdtool.wire.constants import Command, RamFlag, VFIOMarker
from mfdtool.wire.main_stream import CommandHeader, Ping
from mfdtool.wire.ram import MemSizeEntry
from mfdtool.wire.return_path import Pong, ReturnPathMessage


def test_records_are_values() -> None:
    def make() -> list[object]:
        entry = MemSizeEntry(idstr="pc.ram", used_length=4096)
        return [
            RamRecord(flags=RamFlag.MEM_SIZE, addr=4096, entries=(entry,)),
            CommandRecord(CommandHeader(cmd=Command.PING, len=4), Ping(1)),
            MarkerRecord(VFIOMarker.DEV_DATA_STATE, 16),
            ReturnPathRecord(ReturnPathMessage(type=2, len=4), Pong(1)),
        ]

    assert make() == make()
    assert len({*make(), *make()}) == 4


def test_defaults() -> None:
    record = RamRecord(flags=RamFlag.EOS, addr=0)
    assert (record.ramblock, record.entries, record.fill) == ("", (), None)
    assert MarkerRecord(VFIOMarker.END_OF_STATE).data_length == 0
