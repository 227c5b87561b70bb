# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaying into a VFIO device: in many orders, with damage on the way, and what is left behind."""

from __future__ import annotations

import errno
import json
import signal
from io import StringIO
from pathlib import Path

import pytest

from mfdtool.cli import run, vfio
from mfdtool.errors import SinkError
from mfdtool.live.device_sink import DeviceSink, config_note
from mfdtool.live.vfio.device import open_device
from mfdtool.live.vfio.uapi import DeviceState, Ioctl
from mfdtool.loader.blob import Blob, blob_of
from mfdtool.loader.state import Outcome
from tests.live.lab.device_checks import SIZE
from tests.support.captures import CAPTURES
from tests.support.fake_vfio import MTTY_CONFIG, FakeDevice, FakeKernel, state_bytes

UUID = "83b8f4f2-509f-382f-3c1e-000000000001"
CAPTURE = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
DEVICE = "0000:00:05.0"
ORDERS = (
    ("recorded",),
    ("reverse", "--reassign", "--policy", "eager"),
    ("reverse", "--policy", "held"),
    ("config-first", "--policy", "eager"),
    ("round-robin",),
)
HEADERS = 288
"""Bytes of a device packet before its data."""

APPLIED = "config state: decoded, but not applied, which only QEMU's own device can do"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Put a kernel with one mtty in the place of the real one."""
    fake = FakeKernel([FakeDevice(name=UUID)])
    monkeypatch.setattr(vfio, "KERNEL", fake)
    return fake


def replay(*arguments: str, to: str = f"device:{UUID}") -> int:
    """Replay the recording into a device."""
    return run(["replay", CAPTURE, "--to", to, "--yes", "--json", *arguments])


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_device_gets_the_state(
    kernel: FakeKernel, order: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (device,) = kernel.devices
    assert replay("--order", *order) == 0
    out, err = capsys.readouterr()
    verdict = json.loads(out)
    assert (verdict["outcome"], verdict["sink"], verdict["order"]) == (
        "completed",
        f"device:{UUID}",
        "exact",
    )
    (found,) = verdict["devices"]
    assert (found["bytes"], found["restored"], found["reset"]) == (SIZE, True, False)
    assert (device.state, device.fill) == (DeviceState.RUNNING, 0)
    assert kernel.open_files == []
    assert err == (
        f"mfdtool: device:{UUID}: {APPLIED}; it is of the same kind of device, 4348:3253\n"
        f"mfdtool: device:{UUID}: the device runs with its state, 96 bytes\n"
    )


@pytest.mark.parametrize(("chunk", "idx"), [(24, 0), (16, 1)])
def test_corrupt_header_is_refused_with_its_idx(
    kernel: FakeKernel, tmp_path: Path, chunk: int, idx: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "state.pcapng")
    assert run(["record", "device", UUID, "--yes", "--chunk", str(chunk), "-w", path]) == 0
    fault = f"corrupt:dev={DEVICE},idx=0:{HEADERS}=00"
    assert run(["replay", path, "--to", f"device:{UUID}", "--yes", "--json", "--fault", fault]) == 5
    out, err = capsys.readouterr()
    verdict = json.loads(out)
    assert verdict["outcome"] == "failed"
    assert verdict["error"] == f"NAME: writing state buffer {idx} failed: 14"
    assert f"mfdtool: device:{UUID}: idx {idx}: {UUID}: the device refused its state" in err
    assert "Bad address (EFAULT)" in err
    assert "the replay did not complete: the device is reset" in err
    assert (kernel.devices[0].state, kernel.devices[0].fill) == (DeviceState.RUNNING, 0x5A)
    assert kernel.open_files == []


def test_corrupt_header_in_the_main_stream(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(CAPTURES / "mtty-main-stream-only.pcap.gz")
    assert run(["decode", path, "-T", "jsonl", "-Y", "kind==vfio.marker"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    number = next(line["number"] for line in lines if line["length"] > 24)
    fault = f"corrupt:main#{number}:16=00"
    assert run(["replay", path, "--to", f"device:{UUID}", "--yes", "--fault", fault]) == 5
    err = capsys.readouterr().err
    assert f"mfdtool: device:{UUID}: data of the main stream: {UUID}: the device refused" in err
    assert kernel.devices[0].fill == 0x5A


def test_stalled_replay_resets(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay("--fault", f"drop:dev={DEVICE},idx=2") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["outcome"] == "stalled"
    assert err.endswith("the replay did not complete: the device is reset\n")
    assert kernel.devices[0].fill == 0x5A


def test_driver_judges_when_resuming_is_left(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.refused[DeviceState.STOP] = errno.EINVAL
    assert replay() == 5
    out, err = capsys.readouterr()
    verdict = json.loads(out)
    assert verdict["outcome"] == "completed"
    assert (verdict["devices"][0]["restored"], verdict["devices"][0]["reset"]) == (False, True)
    assert "leaving RESUMING: " in err
    assert "Invalid argument (EINVAL)" in err
    assert err.endswith("; the device is reset\n")
    assert kernel.devices[0].state is DeviceState.RUNNING


def test_inherited_device_stays_open(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    fd = kernel.inherit(kernel.devices[0])
    assert replay(to=f"device-fd:{fd}") == 0
    assert kernel.open_files == ["inherited"]
    assert kernel.devices[0].fill == 0


def test_asks_first(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    assert run(["replay", CAPTURE, "--to", f"device:{UUID}"]) == 2
    err = capsys.readouterr().err
    assert "opening may reset it; its state is replaced by the recording's, or lost." in err
    assert "There is nobody to ask: say --yes." in err
    assert kernel.devices[0].state is DeviceState.RUNNING


def test_in_use(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.open("/dev/vfio/0")
    assert replay(to="device:/dev/vfio/0") == 5
    assert "in use: another process, perhaps a virtual machine" in capsys.readouterr().err


def test_names_that_are_none(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(to="device:/dev/null") == 2
    assert "'/dev/null' is not a PCI address" in capsys.readouterr().err


def sink_on(kernel: FakeKernel, *, config: bytes | None = None) -> DeviceSink:
    """Make a sink of an open device."""
    return DeviceSink(open_device(UUID, kernel), 1, name="device:x", config=config)


def test_missing_bytes_and_other_devices(kernel: FakeKernel) -> None:
    def write_all() -> None:
        with sink_on(kernel) as sink:
            assert sink.write(0, 0, blob_of(b"x")) is None
            assert sink.write(1, None, blob_of(state_bytes()[:1])) == 0
            sink.write(1, 3, Blob(8, ("multifd-0", 0), 2, (memoryview(b"123456"),)))

    with pytest.raises(SinkError, match="idx 3: 2 of 8 bytes were not captured; 1 bytes"):
        write_all()
    assert kernel.devices[0].state is DeviceState.RUNNING


def test_stopped_replay_resets(kernel: FakeKernel) -> None:
    with sink_on(kernel) as sink:
        assert sink.write(1, 0, blob_of(state_bytes(fill=1))) == 0
        assert sink.finish(None) == {}
    assert kernel.devices[0].fill == 0x5A
    with sink_on(FakeKernel([FakeDevice(name=UUID)])) as sink:
        assert sink.write(1, 0, blob_of(state_bytes(fill=1))) == 0
        assert sink.finish(Outcome.COMPLETED) == {1: True}


def test_device_that_cannot_be_reset_says_so(kernel: FakeKernel) -> None:
    kernel.fails[Ioctl.DEVICE_RESET] = errno.EIO
    with pytest.raises(SinkError, match=r"reset: Input/output error \(EIO\)"), sink_on(kernel):
        pass


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (None, "config state: there is none in the recording"),
        (bytes(12) + MTTY_CONFIG[:14], f"{APPLIED}; it is too short to be compared"),
        (bytes(12) + MTTY_CONFIG, f"{APPLIED}; it is of the same kind of device, 4348:3253"),
        (
            bytes(12) + b"\xb3\x15" + MTTY_CONFIG[2:9] + b"\1" + MTTY_CONFIG[10:],
            f"{APPLIED}; it is another device's: vendor 15b3, the device has 4348;"
            " class 070001, the device has 070002",
        ),
    ],
)
def test_config_is_compared(kernel: FakeKernel, config: bytes | None, told: str) -> None:
    with open_device(UUID, kernel) as device:
        assert config_note(device, config) == told


def test_device_without_config_space() -> None:
    kernel = FakeKernel([FakeDevice(name=UUID, config=b"")])
    with open_device(UUID, kernel) as device:
        note = config_note(device, bytes(300))
    assert note == f"{APPLIED}; no PCI device, nothing to compare"


def test_configs_of_all_captures(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever the config travels, it is found and is the device's."""
    for name in ("mtty-main-stream-only", "mtty-4ch-one-packet", "mtty-8ch-ipv6"):
        path = Path(CAPTURES) / f"{name}.pcap.gz"
        assert run(["replay", str(path), "--to", f"device:{UUID}", "--yes"]) == 0
        assert "of the same kind of device, 4348:3253" in capsys.readouterr().err


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal_the_device_is_reset(
    signal_number: int, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who handed the device on still has it open, so no close resets it."""
    (device,) = kernel.devices
    number = kernel.inherit(device)
    write = kernel.write

    def ended(fd: int, data: memoryview) -> int:
        taken = write(fd, data)
        signal.raise_signal(signal_number)
        return taken

    monkeypatch.setattr(kernel, "write", ended)
    before = signal.signal(signal_number, lambda *_: None)
    try:
        assert replay(to=f"device-fd:{number}") == 130
    finally:
        signal.signal(signal_number, before)
    assert (device.state, device.fill) == (DeviceState.RUNNING, 0x5A)
