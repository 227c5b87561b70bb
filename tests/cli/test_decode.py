# SPDX-License-Identifier: GPL-2.0-or-later
"""``mfdtool decode`` and ``fields``: inputs, options, messages and exit statuses.

What they print for real captures is in the transcripts of tests/golden.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from mfdtool.cli import run
from mfdtool.packets import pcap
from tests.support.captures import CAPTURES, load
from tests.support.connections import capture_of

CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")
HEADER = bytes.fromhex("5145564d00000003")


def test_raw_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, multifd = tmp_path / "main", tmp_path / "multifd"
    main.write_bytes(HEADER + b"\0")
    multifd.write_bytes(bytes.fromhex("1122334400000001") + bytes(16) + b"\5" + bytes(39))
    arguments = ["decode", "--main", str(main), "--multifd", str(multifd), "-T", "jsonl"]
    assert run([*arguments, "-e", "kind,channel,record,time_last"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"format": 1, "kind": "main.header", "channel": "main"},
        {"format": 1, "kind": "main.eof", "channel": "main"},
        {"format": 1, "kind": "multifd.init", "channel": "multifd-5"},
    ]
    assert not err


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(bytes(load("mtty-4ch-clean"))))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run(["decode", "-", "-Y", "is_config", "-e", "channel,number"]) == 0
    assert capsys.readouterr().out == "multifd-3\t26\n"


def test_truncated_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(load("mtty-4ch-clean")[:300_000])
    assert run(["decode", str(path), "-Y", "kind == main.header", "-e", "kind"]) == 4
    out, err = capsys.readouterr()
    assert out == "main.header\n"
    assert err.splitlines() == [
        f"mfdtool: {path}, record 152, offset 300000: "
        "the file ends inside this record, 28074 bytes are missing",
        f"mfdtool: {path}, record 152: multifd-2 #18 multifd.ram at offset 22912: "
        "the capture ends inside it (the first loss; 'mfdtool info' counts all)",
        f"mfdtool: {path}: main stops at offset 398, before its end",
    ]


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        ({}, "no migration found: no TCP payload in 0 records"),
        ({(40000, 22): b""}, "no migration found: no TCP payload in 2 records"),
        (
            {(40000, 80): b"GET / HTTP/1.1\r\n", (40001, 80): b"GET", (40002, 22): b"SSH-2.0"},
            "no migration found: 3 TCP connections carry something else (server ports 22, 80)",
        ),
        (
            {(40000 + port, port): b"something" for port in range(1, 11)},
            "no migration found: 10 TCP connections carry something else"
            " (server ports 1, 2, 3, 4, 5, 6, 7, 8, ...)",
        ),
        (
            {(40000, 4444): b"\x16\x03\x01\x02\x00\x01", (40001, 4444): b"\x16\x03\x01\x02\x00"},
            "only TLS connections, to 192.0.2.2:4444: encrypted, cannot be decoded",
        ),
    ],
)
def test_no_migration(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    connections: dict[tuple[int, int], bytes],
    message: str,
) -> None:
    path = tmp_path / "other.pcapng"
    path.write_bytes(capture_of(connections))
    assert run(["decode", str(path)]) == 3
    assert capsys.readouterr().err == f"mfdtool: {path}: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a CAPTURE"),
        ([CLEAN, "--main", "x"], "take the place of CAPTURE"),
        ([CLEAN, "--page-size", "4095"], "4095 is none of 1024, 2048,"),
        ([CLEAN, "-T", "xml"], "'xml' is not one of"),
        ([CLEAN, "-T", "jsonl", "-x"], "-x goes with -T text or tree, not with jsonl"),
        ([CLEAN, "-T", "tree", "-e", "idx"], "-e goes with -T text, jsonl or csv"),
        ([CLEAN, "-T", "scapy", "-e", "idx"], "-e goes with -T text, jsonl or csv"),
        ([CLEAN, "-T", "scapy", "-x"], "-x goes with -T text or tree, not with scapy"),
        ([CLEAN, "--full"], "--full goes with -x"),
        ([CLEAN, "-c", "0"], "0 is not in the range x>=1"),
        ([CLEAN, "-e", "idx,nope"], "there is no field 'nope'"),
        ([CLEAN, "-Y", "idx =="], "expected a value"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run(["decode", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in " ".join(err.split())


def test_what_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", CLEAN, "--channel", "multifd-9", "--migration", "3"]) == 0
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [
        "mfdtool: no migration 3; the last is 0",
        "mfdtool: no channel multifd-9; there are main, multifd-0, multifd-1, multifd-2, multifd-3",
    ]


@pytest.mark.parametrize("command", ["decode", "stats"])
def test_device_that_is_not_there(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, CLEAN, "--device", "05.0", "--device", "00:05.0"]) == 0
    out, err = capsys.readouterr()
    assert "0000:00:05.0/vfio" in out
    assert err == "mfdtool: no device 05.0; there are 0000:00:05.0/vfio\n"


def test_what_may_still_come_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--channel", "main", "--channel", "nope", "--device", "00:05.0", "--device", "nope"]
    assert run(["decode", CLEAN, "-c", "1", "-e", "number", *wanted]) == 0
    assert capsys.readouterr() == ("7\n", "")
    assert run(["decode", CLEAN, "-c", "1", "--device", "nope"]) == 0
    assert capsys.readouterr().err == "mfdtool: no device nope; there are 0000:00:05.0/vfio\n"


def test_snap_length_without_payload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.pcap"
    view, headers = load("mtty-4ch-clean"), 14 + 20 + 32
    whole = pcap.read(view)
    cut = (
        pcap.record(
            view[one.offset : one.offset + headers], time_ns=one.time_ns, original=one.original
        )
        for one in whole
    )
    path.write_bytes(pcap.file_header(linktype=1, snaplen=headers) + b"".join(cut))
    assert run(["decode", str(path)]) == 3
    assert capsys.readouterr().err == (
        f"mfdtool: {path}: no migration found: 5 TCP connections, but none of their payload was"
        " captured (snaplen 66)\n"
    )


def test_page_size_reaches_the_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    multifd = tmp_path / "multifd"
    sync = bytes.fromhex("112233440000000100000001") + bytes(308 + 8 * 8)
    multifd.write_bytes(bytes.fromhex("1122334400000001") + bytes(56) + sync)
    arguments = ["decode", "--multifd", str(multifd), "--page-size", "65536", "-e", "kind,length"]
    assert run(arguments) == 0
    assert capsys.readouterr().out == "multifd.init\t64\nmultifd.sync\t384\n"


def test_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fields", "idx"]) == 0
    assert capsys.readouterr().out.startswith("idx  integer     place in the device's stream")
    assert run(["fields", "--json", "idx"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"][0]["name"] == "idx"
    assert run(["fields", "nope"]) == 2
