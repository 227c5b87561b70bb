# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands on a stream whose device data claims to be longer than any memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.stream.frames import ChannelId, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.redaction import hidden_span
from mfdtool.stream.span import run_of
from mfdtool.wire.constants import SectionType
from mfdtool.wire.main_stream import SectionPart
from mfdtool.wire.vfio import DeviceData
from tests.support import framing
from tests.support.streams import DEVICE, SETUP, main_start, start

LARGEST = (1 << 64) - 1
STREAM = (
    main_start()
    + start(38, DEVICE, SETUP)
    + SectionPart(type=SectionType.PART, section_id=38).build()
    + DeviceData(size=LARGEST).build()
    + b"abc"
)


@pytest.fixture
def stream(tmp_path: Path) -> str:
    path = tmp_path / "main"
    path.write_bytes(STREAM)
    return str(path)


@pytest.mark.parametrize(
    ("command", "status", "shown"),
    [
        (["check"], 1, DEVICE),
        (["replay", "--to", "model"], 1, DEVICE),
        (["explore"], 1, DEVICE),
        (["info"], 4, DEVICE),
        (["decode", "-T", "tree"], 4, DEVICE),
        (["stats"], 4, DEVICE),
        (["extract", "--device", DEVICE, "--records"], 4, f"[{LARGEST - 3} bytes missing]"),
    ],
)
def test_commands(
    command: list[str], status: int, shown: str, stream: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--main", stream]) == status
    assert shown in capfd.readouterr().out


@pytest.mark.parametrize("option", [[], ["--fill-gaps", "0"]])
def test_what_is_there_is_extracted(
    option: list[str], stream: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["extract", "--main", stream, "--device", DEVICE, *option]) == 4
    out, err = capfd.readouterr()
    assert out == "abc"
    assert f"bytes 3-{LARGEST - 1}" in err


def test_redaction() -> None:
    (*_, data) = framing.run(
        lambda reader: MainFramer(reader, ChannelId(0, "main")), [run_of(STREAM)]
    )
    assert data.kind is Kind.VFIO_MARKER
    hidden = hidden_span(data)
    assert hidden is not None
    assert (hidden.start, hidden.size) == (len(STREAM) - 3, LARGEST)
