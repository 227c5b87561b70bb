# SPDX-License-Identifier: GPL-2.0-or-later
"""The model's trace laid beside the logs of real destinations."""

from __future__ import annotations

import re

import pytest

from mfdtool.loader.assume import assume
from mfdtool.loader.options import parse_options
from mfdtool.loader.state import Outcome
from mfdtool.replay.against import Divergence, compare
from mfdtool.replay.driver import Priority, Run, drive
from mfdtool.replay.log import parse_log
from tests.replay.test_vectors import run_vector
from tests.support.captures import NAMES, log
from tests.support.vectors import real_capture

DEVICE = "83b8f4f2-509f-382f-3c1e-000000000002"
SIGNAL = "terminating on signal"
STOPPED = ("mtty-2dev-2ch-holes", "mtty-4ch-clean", "mtty-8ch-ipv6", "mtty-main-stream-only")
STARVED = "vfio_load_state_device_buffer_starved"
_RUNS: dict[str, Run] = {}


def run_of(name: str) -> Run:
    """Drive a capture's destination, with the receive threads as far as can be."""
    if name not in _RUNS:
        said = ["device=none"] if name == "mtty-dst-lacks-device" else []
        recording = real_capture(name)
        destination, _ = assume(recording, parse_options(said))
        _RUNS[name] = drive(recording, destination, priority=Priority.MULTIFD, digests=False)
    return _RUNS[name]


def diverges(name: str, lines: list[str]) -> list[Divergence]:
    return compare(run_of(name), parse_log(lines))


@pytest.mark.parametrize("name", NAMES)
def test_no_divergence_from_the_real_log(name: str) -> None:
    parsed = parse_log(log(name))
    assert len(parsed.events) > 60
    assert compare(run_of(name), parsed) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_removed_line_is_missed(name: str) -> None:
    lines = log(name)
    missed = []
    for event in parse_log(lines).events[::3]:
        if not diverges(name, lines[: event.number - 1] + lines[event.number :]):
            missed.append(event.name)
    # A load thread may be woken for nothing, and then starves once more.
    assert set(missed) <= {STARVED}


@pytest.mark.parametrize("name", NAMES)
def test_every_altered_line_is_seen(name: str) -> None:
    lines = log(name)
    for event in parse_log(lines).events[::3]:
        line = lines[event.number - 1]
        altered = re.sub(r"\d+(?!.*\d)", lambda match: str(int(match[0]) + 1), line)
        if altered != line:
            changed = [*lines[: event.number - 1], altered, *lines[event.number :]]
            assert diverges(name, changed), altered


@pytest.mark.parametrize("name", NAMES)
def test_every_repeated_line_is_seen(name: str) -> None:
    lines = log(name)
    for event in parse_log(lines).events[::5]:
        if event.name != STARVED:
            repeated = [*lines[: event.number], lines[event.number - 1], *lines[event.number :]]
            assert diverges(name, repeated), event.text


@pytest.mark.parametrize("name", STOPPED)
def test_a_guest_that_is_stopped_later_is_another_matter(name: str) -> None:
    """A QEMU that is told to quit logs what follows a signal, without the signal."""
    assert run_of(name).outcome is Outcome.COMPLETED
    lines = [line for line in log(name) if SIGNAL not in line]
    assert len(parse_log(lines).events) >= len(parse_log(log(name)).events) + 4
    assert diverges(name, lines) == []
    # Whatever is before the end is still missed, and a running guest loads nothing.
    missing = diverges(name, [line for line in lines if "loadvm_state_cleanup" not in line])
    assert [found.expected for found in missing] == ["loadvm_state_cleanup "]
    (again,) = diverges(name, [*lines, "qemu_loadvm_state_section 1"])
    assert (again.line, again.expected) == (len(lines) + 1, None)


def test_a_device_that_changes_its_state_before_the_end_diverges() -> None:
    name = "mtty-4ch-clean"
    lines = log(name)
    stop = f"vfio_migration_set_state  ({DEVICE}) new state STOP, recover state ERROR"
    end = next(number for number, line in enumerate(lines) if "vfio_load_cleanup" in line)
    for at in range(1, end + 1):
        assert diverges(name, [*lines[:at], stop, *lines[at:]]), at
    assert diverges(name, [*lines[: end + 1], stop, *lines[end + 1 :]]) == []


def moved(name: str, what: str, before: str) -> list[Divergence]:
    """Move the first line that has a text before the first that has another."""
    lines = log(name)
    line = lines.pop(next(number for number, text in enumerate(lines) if what in text))
    lines.insert(next(number for number, text in enumerate(lines) if before in text), line)
    return diverges(name, lines)


def test_order_between_threads() -> None:
    clean = "mtty-4ch-clean"
    (loaded,) = moved(clean, f"load_start  ({DEVICE}) idx 0", "starved")[:1]
    assert loaded.why == "a buffer is loaded that has not come in"
    (early,) = moved(clean, "vfio_load_bufs_thread_start", "multifd_recv_sync_main_wait")
    assert early.why == "a load thread runs before SWITCHOVER_START"
    flush = moved(clean, "multifd_recv_unfill channel 3 packet_num 1 ", "sync_main packet num 3")
    assert any("a flush ends after a SYNC of 3 of 4 channels" in one.why for one in flush)
    behind = moved(clean, "unfill channel 0 packet_num 7 ", "sync_main_signal channel 0")
    assert "behind a SYNC" in str(behind[0])
    config = moved(clean, "vfio_load_device_config_state_start", "buffer_incoming")
    assert config[0].why == "a config is loaded that has not come in"


def test_threads_may_come_in_another_order() -> None:
    name = "mtty-4ch-clean"
    lines = log(name)
    swapped = 0
    for number in range(len(lines) - 1):
        one, other = lines[number], lines[number + 1]
        if one.startswith("multifd_recv_unfill channel 2") and other.startswith(
            "multifd_recv_unfill channel 0"
        ):
            again = [*lines[:number], other, one, *lines[number + 2 :]]
            assert diverges(name, again) == []
            swapped += 1
    assert swapped


def test_errors_are_compared() -> None:
    name = "mtty-dst-lacks-device"
    lines = log(name)
    at = next(number for number, line in enumerate(lines) if "Unknown savevm section" in line)
    other = [*lines[:at], lines[at].replace("05.0", "07.0"), *lines[at + 1 :]]
    (different,) = diverges(name, other)
    assert different.thread == "stderr"
    assert str(different).startswith(f"line {at + 1}, stderr: the log has Unknown savevm")
    less = [line for line in lines if "load of migration failed" not in line]
    (missing,) = diverges(name, less)
    assert str(missing) == (
        "at its end, stderr: the log has nothing more; the model has load of migration failed:"
        " Invalid argument"
    )


def test_receive_threads_may_be_cut_short() -> None:
    name = "mtty-dst-lacks-device"
    lines = log(name)
    at = lines.index("multifd_recv_terminate_threads error 0") + 1
    cut = "multifd_recv_terminate_threads error 1"
    assert diverges(name, [*lines[:at], *[cut] * 4, *lines[at:]]) == []
    (more,) = diverges(name, [*lines[:at], *[cut] * 5, *lines[at:]])
    assert (more.thread, more.got, more.expected) == ("failing receive threads", cut, None)
    (early,) = diverges(name, [*lines[: at - 1], cut, *lines[at - 1 :]])
    assert early.line == at
    good = log("mtty-4ch-clean")
    at = good.index("multifd_recv_terminate_threads error 0") + 1
    assert diverges("mtty-4ch-clean", [*good[:at], cut, *good[at:]])


def test_log_without_a_category_is_compared_as_far_as_it_goes() -> None:
    name = "mtty-4ch-clean"
    lines = [line for line in log(name) if not line.startswith(("loadvm", "multifd_recv"))]
    assert diverges(name, lines) == []


def test_log_of_another_migration() -> None:
    assert diverges("mtty-4ch-clean", log("mtty-8ch-ipv6"))


def test_stalled_destination_may_stop_anywhere_but_not_go_on() -> None:
    run, _ = run_vector("v05-missing-3")
    name = "vfio_load_state_device_buffer"
    lines = [
        "vfio_load_bufs_thread_start  (dev)",
        f"{name}_incoming  (dev) idx 0",
        f"{name}_start  (dev)",
        f"{name}_load_start  (dev) idx 0",
    ]
    threads = {one.thread for one in compare(run, parse_log(lines))}
    assert threads == {"main"}
    more = [*lines, f"{name}_load_end  (dev) idx 0", f"{name}_load_start  (dev) idx 3"]
    assert "load thread of dev" in {one.thread for one in compare(run, parse_log(more))}


def test_aborted_destination_may_stop_anywhere() -> None:
    run, _ = run_vector("v21-huge-idx")
    lines = ["vfio_load_bufs_thread_start  (dev)", "qemu-system-x86_64: some last words"]
    assert compare(run, parse_log(lines)) == []


def test_unknown_packets_belong_to_no_channel() -> None:
    lines = log("mtty-4ch-clean")
    lines.insert(100, "vfio_load_state_device_buffer_incoming  (83b8f4f2) idx 99")
    assert any(one.thread == "receive thread" for one in diverges("mtty-4ch-clean", lines))


def test_log_lines() -> None:
    parsed = parse_log(
        [
            "qemu-system-x86_64: warning: before anything",
            "vfio_migration_realize  (name)",
            "123@1700000000.5:multifd_recv_thread_start 3",
            "vfio_load_cleanup without a name",
            "",
            "# ?",
            "qemu-system-x86_64: an error",
            "qemu-system-x86_64: terminating on signal 15 from pid 1",
            "multifd_recv_thread_start 4",
        ]
    )
    assert [(event.number, event.text) for event in parsed.events] == [
        (3, "multifd_recv_thread_start 3")
    ]
    assert parsed.errors == ((7, "an error"),)
    assert parsed.last == 8
    assert parsed.events[0].first_number == 3
    assert parse_log(["loadvm_state_setup "]).events[0].first_number == -1
