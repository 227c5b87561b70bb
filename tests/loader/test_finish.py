# SPDX-License-Identifier: GPL-2.0-or-later
"""How it ends: the guest runs, a device is reset, or everything is given up."""

from __future__ import annotations

from typing import Any

from mfdtool.loader.commands import Abort, Complete, Reset, SetState
from mfdtool.loader.state import Outcome
from tests.support.playbook import MTTY_CONFIG, Playbook, packet, with_device

RESET = (
    "NAME: Failed setting device state to {}. Recover state is ERROR. Resetting device:"
    " Invalid argument"
)


def loaded(**changes: Any) -> Playbook:
    """Load a device that got one buffer, and let it run."""
    book = Playbook(with_device(**changes)).switch_over()
    config = packet(1, MTTY_CONFIG, config=True)
    return book.receive(0, packet(0, b"x"), config).run().finish()


def test_device_runs() -> None:
    book = Playbook().switch_over().receive(0, packet(0, config=True)).run().finish()
    states = [command.state for command in book.commands if isinstance(command, SetState)]
    assert states == ["RESUMING", "RUNNING_P2P", "RUNNING"]
    assert book.commands[-1] == Complete()
    assert book.traced("multifd_recv_terminate_threads") == [(0,), (0,)]
    assert len(book.traced("multifd_recv_thread_end")) == 2


def test_incomplete_device_is_reset_and_the_guest_runs() -> None:
    book = loaded(mtty_ports=1)
    assert book.outcome is Outcome.COMPLETED
    assert book.stderr == [RESET.format("RUNNING_P2P")]
    assert Reset(0) in book.commands
    assert book.rules[-1] == "device-reset"
    assert book.state.devices[0].reset


def test_device_without_p2p_is_reset_in_the_second_pass() -> None:
    assert loaded(mtty_ports=1, has_p2p=False).stderr == [RESET.format("RUNNING")]


def test_c8_device_that_cannot_be_reset_aborts() -> None:
    book = loaded(mtty_ports=1, can_reset=False)
    text = "qemu: hardware error: NAME: Failed resetting device, err: Invalid argument"
    assert book.ends == [Abort(text)]
    assert book.outcome is Outcome.ABORTED
