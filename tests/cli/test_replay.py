# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool replay``: orders, faults, targets, output and exit statuses."""

from __future__ import annotations

import gzip
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mfdtool.cli import run
from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.captures import pcapng_bytes
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.fixtures.segments import transmit
from mfdtool.live.fd_sink import is_open
from mfdtool.schedule.acts import Take
from mfdtool.schedule.schedule import parse_schedule
from mfdtool.wire.vfio import DeviceStateHeader
from tests.support.captures import CAPTURES
from tests.support.vectors import VECTORS, observation, vector_observation

CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
HOLES = str(CAPTURES / "mtty-2dev-2ch-holes.pcap.gz")
GOOD = str(VECTORS / "v01-inorder.pcap.gz")
DEVICE = "0000:00:05.0/vfio"
DEV = f"dev={DEVICE}"
ORDERS = ["recorded", "in-order", "reverse", "config-first", "last-first", "round-robin"]


@pytest.fixture
def out_fd(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Give a descriptor for writing, and its file."""
    path = tmp_path / "device.bin"
    number = os.open(path, os.O_WRONLY | os.O_CREAT)
    yield number, path
    os.close(number)


def verdict(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    """Replay and give the JSON."""
    assert run(["replay", *arguments, "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def extracted(tmp_path: Path, capture: str, device: str) -> bytes:
    """Give what ``extract`` says that a device must get."""
    path = tmp_path / "extracted.bin"
    run(["extract", capture, "--device", device, "-o", str(path)])
    return path.read_bytes()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pace", ["observed", "eager", "held"])
def test_every_order_of_a_good_capture_completes_and_repeats(
    order: str, pace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = verdict(capsys, CLEAN)
    arguments = [CLEAN, "--profile", "10.0", "--order", order, "--policy", pace]
    found = verdict(capsys, *arguments)
    assert found["outcome"] == "completed"
    # How much waits depends on how fast load threads are.
    same = [{**device, "queued": 0} for device in recorded["devices"]]
    assert [{**device, "queued": 0} for device in found["devices"]] == same
    program, name, *again = shlex.split(found["reproduce"])
    assert (program, name) == ("mfdtool", "replay")
    assert verdict(capsys, *again) == found
    by_text = verdict(capsys, CLEAN, "--profile", "10.0", "--order", found["schedule"])
    assert {**by_text, "reproduce": ""} == {**found, "reproduce": ""}


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CLEAN]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "migration 0: completed (QEMU 10.0)"
    assert not any("schedule" in line for line in lines)
    assert lines[-1] == f"repeat with: mfdtool replay {CLEAN} --profile 10.0 --to model"
    assert not err
    assert run(["replay", CLEAN, "--order", "reverse"]) == 0
    assert "  schedule mfd1:" in capsys.readouterr().out


def test_faults_are_told_and_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [CLEAN, "--profile", "10.0", "--fault", f"drop:{DEV},idx=3"]
    found = verdict(capsys, *arguments, status=1)
    assert found["outcome"] == "stalled"
    assert found["faults"] == [
        {
            "fault": f"drop:{DEV},idx=3",
            "what": f"device_state {DEVICE} idx 3 data 16 bytes, dropped",
        }
    ]
    again = shlex.split(found["reproduce"])[2:]
    assert verdict(capsys, *again, status=1) == found
    assert run(["replay", CLEAN, "--fault", f"hold:{DEV},idx=0:{DEV},idx=5"]) == 0
    out = capsys.readouterr().out
    assert f"fault hold:{DEV},idx=0:{DEV},idx=5: device_state {DEVICE} idx 0" in out
    assert "held until behind multifd-3#26" in out
    texts = [
        (f"truncate:{DEV},idx=1:290", "cut to 290 bytes"),
        (f"corrupt:{DEV},idx=1:288=ff", "1 byte from offset 288 on set to ff"),
        (f"corrupt:{DEV},idx=1:288+2", "2 bytes from offset 288 on inverted"),
        (f"set:{DEV},idx=1:flags=2", "flags set to 2"),
        (f"duplicate:{DEV},idx=1", "duplicated"),
        (f"duplicate:{DEV},idx=1:multifd-0", "duplicated on multifd-0"),
        (f"disconnect:{DEV},idx=1", "its channel ends behind it"),
        (f"disconnect:{DEV},idx=1:rst", "its channel is reset behind it"),
    ]
    for text, what in texts:
        run(["replay", CLEAN, "--fault", text])
        assert f"fault {text}: device_state {DEVICE} idx 1 data 16 bytes, {what}\n" in (
            capsys.readouterr().out
        )


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ((f"drop:{DEV},idx=3", f"set:{DEV},idx=3:idx=4"), "it changes nothing"),
        (("disconnect:multifd-1#19", "disconnect:multifd-1#21"), "disconnect:multifd-1#21: with"),
        (
            (f"hold:{DEV},idx=0:{DEV},idx=1", f"hold:{DEV},idx=1:{DEV},idx=0"),
            "these packets wait for each other",
        ),
    ],
)
def test_faults_that_contradict_each_other(
    texts: tuple[str, str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", CLEAN, "--fault", texts[0], "--fault", texts[1]]) == 3
    out, err = capsys.readouterr()
    assert (out, complaint in err) == ("", True)


def test_schedule_is_saved_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reverse.txt"
    found = verdict(capsys, CLEAN, "--order", "reverse", "--reassign", "--save", str(path))
    assert path.read_text() == found["schedule"] + "\n"
    again = verdict(capsys, CLEAN, "--order", f"file:{path}", "--profile", "10.0")
    assert again["schedule"] == found["schedule"]
    path.unlink()
    assert verdict(capsys, *shlex.split(again["reproduce"])[2:]) == again
    other = verdict(capsys, CLEAN, "--order", found["schedule"], "--policy", "held")
    assert other["schedule"] == found["schedule"].replace(":observed:", ":held:")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no schedule"),
        (b"hello\n", "it is no schedule"),
        (b"\xff\xfe", "it is no schedule"),
        (b"mfd9:0:observed:m", "version mfd9 is not known"),
        (b"mfd1:000000000000:observed:m", "the schedule was made for trace 000000000000"),
        (b"mfd1:d6fae27a86cb:observed:9xzz", "the trace has no channel zz"),
        (b"mfd1:d6fae27a86cb:observed:999xm", "the schedule wants more"),
        (b"mfd1:d6fae27a86cb:observed:99999xm", "the schedule has more than 4888 steps"),
    ],
)
def test_files_that_are_no_schedule_of_it(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schedule"
    path.write_bytes(content)
    assert run(["replay", CLEAN, "--order", f"file:{path}"]) == 3
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "replay"])
def test_capture_with_a_name_like_an_option(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "-dash.pcap.gz").symlink_to(CLEAN)
    monkeypatch.chdir(tmp_path)
    assert run([command, "--json", "--", "-dash.pcap.gz"]) == 0
    found = json.loads(capsys.readouterr().out)
    program, *again = shlex.split(found["reproduce"])
    assert (program, again[:2]) == ("mfdtool", [command, "./-dash.pcap.gz"])
    assert run([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"] == found["devices"]


def test_schedule_of_a_later_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CLEAN, "--order", "mfd2:a:b:c"]) == 3
    assert "version mfd2 is not known" in capsys.readouterr().err


def test_schedule_that_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CLEAN, "--order", f"file:{tmp_path}/none"]) == 3
    assert "No such file or directory" in capsys.readouterr().err
    assert run(["replay", CLEAN, "--save", f"{tmp_path}/none/there"]) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--trace"],
        ["--order", "backwards"],
        ["--fault", "lose:main#1"],
        ["--fault", "drop:main"],
        ["--step", "main"],
        ["--until", "#1"],
        ["--to", "nowhere"],
        ["--to", "fd:1"],
        ["--to", "fd:2"],
        ["--to", "fd:x"],
        ["--policy", "lazy"],
        ["--reassign"],
        ["--reassign", "--order", "file:x"],
        ["--order", "random:1", "--policy", "held"],
        ["--policy", "steps"],
        ["--order", "reverse", "--policy", "steps"],
        ["--device", DEVICE],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    assert run(["replay", CLEAN, *arguments]) == 2


def test_which_orders_move_packets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CLEAN, "--order", "random:3", "--reassign"]) == 2
    wanted = "goes with the orders in-order, reverse, config-first, last-first, round-robin only"
    assert wanted in " ".join(capsys.readouterr().err.split())


def test_packets_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--until", "--step"):
        assert run(["replay", CLEAN, option, "multifd-9#1"]) == 3
        assert "there is no channel multifd-9" in capsys.readouterr().err
    assert run(["replay", CLEAN, "--fault", "drop:main#99999"]) == 3
    assert "there is no packet main#99999" in capsys.readouterr().err


def test_until_shows_the_state_and_invents_no_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CLEAN, "--until", f"{DEV},idx=2"]) == 0
    out = capsys.readouterr().out
    assert f"multifd-0#22: device_state {DEVICE} idx 2 data 16 bytes\n" in out
    assert "vfio_load_state_device_buffer_incoming  (0000:00:05.0) idx 2\n" in out
    assert f"  {DEVICE}: " in out
    assert "migration 0: stopped (QEMU 10.0)\n  at multifd-0#22, as asked" in out
    found = verdict(capsys, CLEAN, "--profile", "10.0", "--until", "multifd-0#22")
    assert (found["outcome"], found["stopped"]) == (None, "multifd-0#22")
    assert found["devices"][0]["outcome"] is None
    assert found["findings"] == []
    assert verdict(capsys, *shlex.split(found["reproduce"])[2:]) == found


def test_until_that_is_never_reached(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", CLEAN, "--fault", f"drop:{DEV},idx=3", "--until", "main#141"]
    assert run(arguments) == 1
    out, err = capsys.readouterr()
    assert "migration 0: stalled" in out
    assert "mfdtool: main#141 was not read by the destination\n" in err


def test_step_shows_each_packet_and_pauses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[str] = []
    monkeypatch.setattr(click, "pause", lambda info, err: pauses.append(info))
    assert run(["replay", CLEAN, "--step", f"{DEV},idx=0", "--step", f"{DEV},idx=1"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n  next: ") == len(pauses) == 2
    assert run(["replay", CLEAN, "--step", "all", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["outcome"] == "completed"
    assert err.count("\n  next: ") > 200
    for text in (
        "main#0 connects",
        "multifd-0 ends",
        "step of the main thread",
        f"step of the load thread of {DEVICE}",
        f"wrote buffer 0, 16 bytes, to {DEVICE}",
        "connecting: 1 of 4 channels are there",
        "syncing: has ",
        "joining: waits for the load thread",
        "starved: waits for idx",
        "nothing, the destination has completed",
    ):
        assert text in err


def test_trace_is_that_of_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", CLEAN, "--trace"]) == 0
    expected = capsys.readouterr().out
    assert run(["replay", CLEAN, "--trace"]) == 0
    out, err = capsys.readouterr()
    assert out == expected
    assert err.startswith("mfdtool: repeat with: mfdtool replay ")


def test_steps_that_no_thread_could_take(capsys: pytest.CaptureFixture[str]) -> None:
    digest = verdict(capsys, CLEAN)["schedule"].split(":")[1]
    assert run(["replay", CLEAN, "--order", f"mfd1:{digest}:observed:d0,s"]) == 1
    out = capsys.readouterr().out
    assert "2 steps of the schedule could not be taken" in out
    assert "migration 0: stalled" in out


def test_deepest_queue_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run(["explore", CLEAN, "--jobs", "1", "--json"])
    worst = json.loads(capsys.readouterr().out)["worst_queue"]
    again = shlex.split(worst["reproduce"])[2:]
    found = verdict(capsys, *again, status=1)
    assert found["devices"][0]["queued"] == worst["bytes"] == 4204
    acts = parse_schedule(worst["schedule"]).acts or ()
    entries = observation("mtty-4ch-clean").recording.entries
    missing = len(entries) - sum(isinstance(act, Take) for act in acts)
    assert found["left_out"] == missing > 0
    run(["replay", *again])
    lines = capsys.readouterr().out.splitlines()
    left_out = f"  {missing} items of the recording do not arrive: the schedule leaves them out"
    device = f"  device {DEVICE}: starved, 24 bytes, up to 4,204 bytes waited, not restored"
    assert lines[2:4] == [left_out, device]


def test_limit_of_the_queue_is_that_of_a_release_that_has_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [CLEAN, "--policy", "held", "--destination", "max-queued=4203"]
    found = verdict(capsys, *words, status=1)
    assert (found["profile"], found["findings"][0]["name"]) == ("10.1", "queue-limit")
    again = verdict(capsys, *shlex.split(found["reproduce"])[2:], status=1)
    assert again["findings"][0] == found["findings"][0]
    assert run(["replay", *words, "--profile", "10.0"]) == 2
    assert "QEMU 10.0 has no property for max-queued." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("10.0", "to which QEMU 10.0 sets no limit"),
        ("10.1", "so x-migration-max-queued-buffers-size must be at least 4204"),
    ],
)
def test_exploration_names_the_limit_that_a_release_has(
    release: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["explore", CLEAN, "--jobs", "1", "--profile", release])
    lines = capsys.readouterr().out.splitlines()
    assert f"deepest queue: 4,204 bytes wait for {DEVICE}, {told}:" in lines


def test_depth_is_not_told_where_nobody_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    run(["replay", CLEAN])
    assert "waited, " not in capsys.readouterr().out
    held = verdict(capsys, CLEAN, "--policy", "held")
    eager = verdict(capsys, CLEAN, "--policy", "eager", "--order", "in-order")
    assert [found["devices"][0]["queued"] for found in (held, eager)] == [4204, 4172]


def test_policy_steps_needs_steps(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = verdict(capsys, CLEAN)["schedule"]
    reverse = verdict(capsys, CLEAN, "--order", "reverse")["schedule"]
    for schedule in (recorded, reverse):
        assert run(["replay", CLEAN, "--order", schedule, "--policy", "steps"]) == 3
        assert "this schedule has no steps of threads" in capsys.readouterr().err
    picked = verdict(capsys, CLEAN, "--order", "random:1")["schedule"]
    found = verdict(capsys, CLEAN, "--order", picked, "--policy", "steps")
    assert (found["outcome"], found["schedule"]) == ("completed", picked)
    eager = verdict(capsys, CLEAN, "--order", picked, "--policy", "eager")["schedule"]
    assert eager == picked.replace(":steps:", ":eager:")
    found = verdict(capsys, CLEAN, "--order", eager, "--policy", "steps")
    assert (found["outcome"], found["schedule"]) == ("completed", picked)


@pytest.mark.parametrize("order", ["recorded", "reverse", "round-robin"])
def test_descriptor_gets_what_extract_gives(
    order: str, out_fd: tuple[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number, path = out_fd
    found = verdict(capsys, CLEAN, "--order", order, "--to", f"fd:{number}")
    assert (found["sink"], found["order"]) == (f"fd:{number}", "exact")
    assert path.read_bytes() == extracted(tmp_path, CLEAN, DEVICE)


def test_one_of_several_devices(
    out_fd: tuple[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number, path = out_fd
    target = ["replay", HOLES, "--to", f"fd:{number}"]
    assert run(target) == 2
    assert f"name it with --device ({DEVICE}, 0000:00:06.0/vfio)" in capsys.readouterr().err
    assert run([*target, "--device", "00:07.0"]) == 2
    assert run([*target, "--device", "00:06.0"]) == 0
    assert f"into fd:{number}, the order is exact" in capsys.readouterr().out
    assert path.read_bytes() == extracted(tmp_path, HOLES, "00:06.0")


def test_a_descriptor_that_only_mfdtool_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own files get the lowest numbers that are free; none of them is the device."""
    free = [number for number in range(3, 64) if not is_open(number)]
    for number in free[:8]:
        assert run(["replay", CLEAN, "--to", f"fd:{number}"]) == 5
        assert f"fd:{number}: Bad file descriptor" in capsys.readouterr().err
    # What cannot be read is told first.
    assert run(["replay", "/none", "--to", f"fd:{free[0]}"]) == 3


def test_descriptors_that_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CLEAN, "--to", "fd:987"]) == 5
    assert "fd:987: Bad file descriptor" in capsys.readouterr().err
    full = os.open("/dev/full", os.O_WRONLY)
    assert run(["replay", CLEAN, "--to", f"fd:{full}"]) == 5
    os.close(full)
    out, err = capsys.readouterr()
    assert "migration 0: failed" in out
    assert "load of migration failed: No space left on device" in out
    assert "data of the main stream: 0 of 16 bytes written, then errno 28" in err


def test_buffer_that_would_block_is_told_with_its_idx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = assemble(Plan(channels=2, devices=[Device(buffers=[bytes(10), bytes(1 << 20)])]))
    path = tmp_path / "made.pcapng"
    path.write_bytes(pcapng_bytes(transmit(made)))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found = verdict(capsys, str(path), "--to", f"fd:{writer}", status=5)
    os.close(reader)
    os.close(writer)
    assert found["outcome"] == "failed"
    assert found["stderr"] == ["NAME: writing state buffer 1 failed: 11"]


def test_nobody_reads(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run(["replay", CLEAN, "--to", f"fd:{writer}"]) == 5
    os.close(writer)
    assert "Broken pipe" in capsys.readouterr().out


def test_bytes_that_were_not_captured_stop_the_writing(
    tmp_path: Path, out_fd: tuple[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    number, written = out_fd
    whole = bytearray(gzip.decompress(Path(GOOD).read_bytes()))
    (packet,) = [
        frame
        for frame in vector_observation("v01-inorder").frames
        if isinstance(frame.value, DeviceStateHeader) and frame.value.idx == 2
    ]
    at = 24
    for _ in range(packet.record - 1):
        at += 16 + int.from_bytes(whole[at + 8 : at + 12], "little")
    length = int.from_bytes(whole[at + 8 : at + 12], "little")
    whole[at + 8 : at + 12] = (length - 4).to_bytes(4, "little")
    del whole[at + 16 + length - 4 : at + 16 + length]
    path = tmp_path / "snapped.pcap"
    path.write_bytes(whole)
    assert run(["replay", str(path), "--to", f"fd:{number}"]) == 5
    assert "idx 2: 4 of 16 bytes were not captured; 56 bytes" in capsys.readouterr().err
    assert written.read_bytes() == extracted(tmp_path, GOOD, DEVICE)[:56]


def test_several_migrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = gzip.decompress(Path(GOOD).read_bytes())
    second = gzip.decompress((CAPTURES / "mtty-dst-lacks-device.pcap.gz").read_bytes())
    both = tmp_path / "both.pcap"
    both.write_bytes(first + second[24:])
    assert run(["replay", str(both)]) == 3
    assert "there are 2 migrations, name the --migration" in capsys.readouterr().err
    assert run(["replay", str(both), "--migration", "9"]) == 3
    assert run(["replay", str(both), "--migration", "0"]) == 4
    assert "--migration 0" in capsys.readouterr().out
    assert run(["replay", str(both), "--migration", "1"]) == 1
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(first[:24])
    assert run(["replay", str(empty)]) == 3


@pytest.mark.parametrize(("threshold", "status"), [("error", 0), ("note", 1)])
@pytest.mark.parametrize("command", ["check", "replay"])
def test_fail_on(
    command: str, threshold: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, CLEAN, "--fail-on", threshold, "--json"]) == status
    again = shlex.split(json.loads(capsys.readouterr().out)["reproduce"])
    assert run(again[1:]) == status


@pytest.mark.parametrize("order", ["random:7", "pct:7,3"])
def test_orders_by_dice_are_the_same_every_time(
    order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for name in ("first", "second"):
        path = tmp_path / name
        assert run(["replay", GOOD, "--order", order, "--save", str(path)]) == 0
        texts.append(path.read_text())
        assert f"--order {order}" in capsys.readouterr().out
    assert texts[0] == texts[1]
    assert run(["replay", GOOD, "--order", f"file:{tmp_path / 'first'}"]) == 0


def test_dice_want_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", GOOD, "--order", "random:x"]) == 3
    assert "'random:x' is not random:SEED" in capsys.readouterr().err


def test_one_item_that_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    run(["replay", CLEAN, "--order", "random:3"])
    one = "  1 item of the recording does not arrive: the schedule leaves it out"
    assert one in capsys.readouterr().out.splitlines()
