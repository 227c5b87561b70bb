# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool device`` and ``mfdtool record device``, on a kernel that is not there."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
from io import StringIO
from pathlib import Path

import pytest

from mfdtool.cli import run, vfio
from mfdtool.live.vfio.uapi import DeviceState, Feature, MigrationFlag
from tests.support.fake_vfio import FakeDevice, FakeKernel, state_bytes

UUID = "83b8f4f2-509f-382f-3c1e-000000000001"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Put a kernel with one mtty in the place of the real one."""
    fake = FakeKernel([FakeDevice(name=UUID)])
    monkeypatch.setattr(vfio, "KERNEL", fake)
    return fake


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Answer questions, as on a terminal."""
    terminal = StringIO(f"{text}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)


def test_info(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "info", UUID, "--yes"]) == 0
    assert capsys.readouterr().out == (
        f"Device      {UUID}, driver mtty\n"
        f"Sysfs       /sys/devices/fake/{UUID}\n"
        "Opened by   /dev/vfio/0 and a container\n"
        "Migration   STOP_COPY, P2P, PRE_COPY\n"
        "State       RUNNING\n"
        "Size        96 bytes\n"
        "DMA log     yes\n"
    )
    assert kernel.open_files == []


def test_info_json(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "info", "/dev/vfio/0", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": 1,
        "device": UUID,
        "driver": "mtty",
        "sysfs": f"/sys/devices/fake/{UUID}",
        "opened": "/dev/vfio/0 and a container",
        "flags": ["RESET", "PCI"],
        "migration": ["STOP_COPY", "P2P", "PRE_COPY"],
        "refusal": None,
        "state": "RUNNING",
        "stop_copy_length": 96,
        "dma_logging": True,
    }


def test_info_of_large_device(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.devices[0].ports = 1 << 14
    kernel.fails[Feature.DMA_LOGGING_START | 0x10000] = errno.ENOTTY
    assert run(["device", "info", UUID, "--yes"]) == 0
    assert "Size        589,848 bytes, about 576 KiB\nDMA log     no\n" in capsys.readouterr().out
    kernel.fails[Feature.MIG_DATA_SIZE | 0x10000] = errno.ENOTTY
    assert run(["device", "info", UUID, "--yes"]) == 0
    assert "Size        the driver does not tell\n" in capsys.readouterr().out


def test_info_without_migration(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.devices[0].flags = MigrationFlag(0)
    assert run(["device", "info", UUID, "--yes"]) == 1
    assert "Migration   no: its driver does not support migration" in capsys.readouterr().out
    assert run(["device", "info", UUID, "--yes", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["migration"], found["state"]) == ([], None)
    assert "ENOTTY" in found["refusal"]


def test_inherited(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    fd = kernel.inherit(kernel.devices[0])
    assert run(["device", "info", f"device-fd:{fd}", "--yes"]) == 0
    assert capsys.readouterr().out.startswith(
        f"Device      device-fd:{fd}\nOpened by   an inherited descriptor\n"
    )


def test_asks_first(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "n")
    assert run(["device", "info", UUID]) == 130
    assert kernel.open_files == []
    assert (
        f"{UUID}, driver mtty: opening may reset it; it is asked what it can do. Go on? [y/N]: "
        in capsys.readouterr().err
    )
    answer(monkeypatch, "y")
    assert run(["device", "info", UUID]) == 0


def test_nobody_to_ask(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    assert run(["device", "info", UUID]) == 2
    assert "There is nobody to ask: say --yes." in capsys.readouterr().err


def test_in_use(kernel: FakeKernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.open("/dev/vfio/0")
    old = tmp_path / "old.pcapng"
    old.write_bytes(b"an older recording")
    assert run(["record", "device", UUID, "--yes", "-w", str(old)]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "mfdtool: /dev/vfio/0: in use: another process, perhaps a virtual machine, has it open"
        " (Device or resource busy (EBUSY))\n"
    )
    assert old.read_bytes() == b"an older recording"


def test_no_such_name(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "info", "eth0", "--yes"]) == 2
    assert "'eth0' is not a PCI address" in capsys.readouterr().err
    assert run(["device", "info", "00:05.0", "--yes"]) == 5
    assert "there is no such device" in capsys.readouterr().err


@pytest.mark.parametrize("chunk", ["1", "16", "1M"])
@pytest.mark.parametrize("options", [[], ["--precopy"]], ids=["stop-copy", "precopy"])
def test_record(
    chunk: str,
    options: list[str],
    kernel: FakeKernel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(tmp_path / "x.pcapng")
    words = ["record", "device", UUID, "--yes", "-w", path, "--chunk", chunk, "--json", *options]
    assert run([*words, "--idstr", "00:06.0", "--channels", "2", "--profile", "10.2"]) == 0
    told = json.loads(capsys.readouterr().out)
    digest = hashlib.sha256(state_bytes()).hexdigest()
    assert (told["bytes"], told["sha256"], told["config"]) == (96, digest, "synthetic")
    assert told["precopy"]["bytes"] == (24 if options else 0)
    assert kernel.devices[0].state is DeviceState.RUNNING
    assert kernel.open_files == []
    assert run(["check", path, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["outcome"], verdict["profile"]) == ("completed", "10.2")
    (device,) = verdict["devices"]
    assert (device["idstr"], device["sha256"]) == ("0000:00:06.0/vfio", digest)
    assert device["buffers"] == told["stop_copy"]["reads"]
    assert "MFD605" in {found["rule"] for found in verdict["findings"]}


def test_record_without_config(
    kernel: FakeKernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "x.pcapng")
    assert run(["record", "device", UUID, "--yes", "-w", path, "--config", "none"]) == 0
    assert capsys.readouterr().err == (
        f"mfdtool: {path}: {UUID}: 96 bytes in 1 packet, no config state\n"
    )
    assert run(["check", path, "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["outcome"] == "stalled"
    names = {found["name"] for found in verdict["findings"]}
    assert "config-missing" in names
    assert "config-synthetic" not in names


def test_record_of_no_pci_device(kernel: FakeKernel, tmp_path: Path) -> None:
    kernel.devices[0].config = b""
    path = tmp_path / "x.pcapng"
    assert run(["record", "device", UUID, "--yes", "-w", str(path), "--precopy"]) == 0
    assert run(["extract", str(path), "--config", "00:05.0", "-o", str(tmp_path / "config")]) == 0
    assert (tmp_path / "config").read_bytes() == b""


def test_device_fails_halfway(
    kernel: FakeKernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was read before stays readable, and the device runs."""
    path = str(tmp_path / "x.pcapng")
    kernel.refused[DeviceState.STOP_COPY] = errno.EIO
    assert run(["record", "device", UUID, "--yes", "-w", path, "--precopy", "--chunk", "8"]) == 5
    assert "cannot go to STOP_COPY: Input/output error (EIO)" in capsys.readouterr().err
    assert kernel.devices[0].state is DeviceState.RUNNING
    assert run(["info", path, "--json"]) == 4
    (migration,) = json.loads(capsys.readouterr().out)["migrations"]
    assert migration["devices"][0]["precopy"]["bytes"] == 24


def test_file_cannot_be_written(
    kernel: FakeKernel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere" / "x.pcapng"
    assert run(["record", "device", UUID, "--yes", "-w", str(path)]) == 5
    assert f"{path}: No such file or directory" in capsys.readouterr().err
    assert kernel.devices[0].state is DeviceState.RUNNING


def test_disk_is_full(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["record", "device", UUID, "--yes", "-w", "/dev/full"]) == 5
    assert "No space left on device" in capsys.readouterr().err
    assert kernel.devices[0].state is DeviceState.RUNNING
    assert kernel.open_files == []


@pytest.mark.parametrize(
    "options",
    [
        ["--chunk", "0"],
        ["--chunk", "65M"],
        ["--chunk", "many"],
        ["--channels", "0"],
        ["--channels", "256"],
        ["--idstr", "x" * 300],
        ["--idstr", "é"],
        ["--profile", "9.0"],
    ],
)
def test_usage(options: list[str], kernel: FakeKernel, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    assert run(["record", "device", UUID, "--yes", "-w", str(path), *options]) == 2
    assert not path.exists()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGHUP])
def test_record_ended_by_a_signal(
    signal_number: int, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The device runs again."""
    (device,) = kernel.devices
    number = kernel.inherit(device)

    def ended(fd: int, size: int) -> bytes:
        signal.raise_signal(signal_number)
        return b""

    monkeypatch.setattr(kernel, "read", ended)
    before = signal.signal(signal_number, lambda *_: None)
    try:
        path = str(tmp_path / "state.pcapng")
        assert run(["record", "device", f"device-fd:{number}", "-w", path, "--yes"]) == 130
    finally:
        signal.signal(signal_number, before)
    assert device.state is DeviceState.RUNNING
