# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts as JSON and text."""

from __future__ import annotations

import json
from dataclasses import replace

from mfdtool.loader.blob import blob_of
from mfdtool.loader.events import Deliver
from mfdtool.loader.findings import finding
from mfdtool.loader.recording import Entry
from mfdtool.loader.state import Outcome
from mfdtool.replay.verdict import DeviceOutcome, DeviceVerdict, Verdict
from mfdtool.report.verdict import rule_json, rule_text, verdict_json, verdict_text
from mfdtool.rules import RULES
from tests.support.playbook import DEVICE, packet

ENTRY = Entry(Deliver(0, packet(2)), "multifd-2", 21, 3056)
VERDICT = Verdict(
    migration=1,
    outcome=Outcome.STALLED,
    error=None,
    recorded_error="NAME: state buffer 2 already filled",
    stderr=(),
    profile="10.0",
    devices=(
        DeviceVerdict(
            idstr=DEVICE,
            instance_id=0,
            outcome=DeviceOutcome.STARVED,
            restored=False,
            reset=False,
            buffers=3,
            bytes=72,
            sha256="00ff",
            queued=4204,
        ),
    ),
    findings=(
        finding("queue-depth", "some bytes waited", device=DEVICE),
        finding("idx-duplicate", "idx 2 is there already", entry=ENTRY, device=DEVICE),
        finding("profile-guessed", "taken to be QEMU 10.0"),
    ),
    reproduce="mfdtool check x",
)


def test_json_has_every_field_of_the_interface() -> None:
    shown = json.loads(json.dumps(verdict_json(VERDICT)))
    assert shown["devices"] == [
        {
            "idstr": DEVICE,
            "instance_id": 0,
            "outcome": "starved",
            "restored": False,
            "reset": False,
            "buffers": 3,
            "bytes": 72,
            "sha256": "00ff",
            "queued": 4204,
        }
    ]
    assert shown["findings"][1] == {
        "rule": "MFD211",
        "name": "idx-duplicate",
        "severity": "error",
        "migration": 0,
        "channel": "multifd-2",
        "number": 21,
        "offset": 3056,
        "device": DEVICE,
        "message": "idx 2 is there already",
        "source": "vfio/migration-multifd.c:vfio_load_state_buffer_insert",
    }
    assert shown["findings"][0]["channel"] is None
    del shown["devices"], shown["findings"]
    assert shown == {
        "format": 1,
        "migration": 1,
        "outcome": "stalled",
        "error": None,
        "recorded_error": "NAME: state buffer 2 already filled",
        "stderr": [],
        "profile": "10.0",
        "sink": "model",
        "order": "exact",
        "schedule": None,
        "faults": [],
        "stopped": None,
        "idle_steps": 0,
        "left_out": 0,
        "reproduce": "mfdtool check x",
    }


def test_text_puts_the_worst_first() -> None:
    assert verdict_text(VERDICT) == [
        "migration 1: stalled (QEMU 10.0)",
        f"  device {DEVICE}: starved, 3 buffers, 72 bytes, not restored",
        "  it records, and does not print:",
        "    NAME: state buffer 2 already filled",
        f"  error MFD211 idx-duplicate: multifd-2 #21, {DEVICE}: idx 2 is there already",
        f"  note MFD240 queue-depth: {DEVICE}: some bytes waited",
        "  note MFD601 profile-guessed: taken to be QEMU 10.0",
    ]


def test_text_of_a_device_that_was_reset() -> None:
    device = DeviceVerdict(
        idstr=DEVICE,
        instance_id=0,
        outcome=DeviceOutcome.LOADED,
        restored=False,
        reset=True,
        buffers=0,
        bytes=24,
        sha256=None,
    )
    lost = Verdict(
        migration=0,
        outcome=Outcome.COMPLETED,
        error="an error",
        recorded_error=None,
        stderr=("an error",),
        profile="11.1",
        devices=(device,),
        findings=(),
    )
    assert verdict_text(lost) == [
        "migration 0: completed (QEMU 11.1)",
        f"  device {DEVICE}: loaded, 24 bytes, reset, its state is lost",
        "  the destination prints:",
        "    an error",
    ]
    assert blob_of(b"").length == 0


def test_rules() -> None:
    rule = RULES["MFD210"]
    assert rule_text(rule) == [
        "MFD210 idx-invalid (error)",
        "  idx is below 0xffffffff; otherwise the receive thread fails.",
        "  QEMU: vfio/migration-multifd.c:vfio_multifd_load_state_buffer",
    ]
    assert rule_json(rule) == {
        "format": 1,
        "rule": "MFD210",
        "name": "idx-invalid",
        "severity": "error",
        "sentence": "idx is below 0xffffffff; otherwise the receive thread fails.",
        "source": "vfio/migration-multifd.c:vfio_multifd_load_state_buffer",
    }


def test_text_says_that_the_recording_is_incomplete() -> None:
    gap = finding("capture-gap", "14 bytes were not captured")
    first, second, *_ = verdict_text(replace(VERDICT, findings=(gap,)))
    assert first.startswith("migration ")
    assert "incomplete recording" in second
    assert "incomplete recording" not in verdict_text(VERDICT)[1]
