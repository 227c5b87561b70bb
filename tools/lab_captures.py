# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes all real captures of captures/ anew: ``make lab-captures``, as root.

    python -m tools.lab_captures [FOLDER]

The lab's machine records the migrations with a device. Those without one are recorded right here
by tools/record_ram_samples.py, in a network of their own. FOLDER is a copy of captures/, which is
what gets new files and a new manifest otherwise.

Every migration happens anew, so times, orders and packet numbers change: the golden transcripts
and the documents' examples must be written anew afterwards (``make golden docs``), what tests
count in these files looked at again, and all of it reviewed.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.live.lab.machine import Machine, installed
from tests.live.lab.scenario import Result
from tests.live.lab.scenarios.migration import RECORDED, SECONDS

ROOT: Final = Path(__file__).parents[1]
MANIFEST: Final = "MANIFEST.toml"

_SAMPLES: Final = ('ip link set lo up mtu 65000 && exec "$@"', "record_ram_samples")
"""A script for sh, and its name."""


def main(arguments: list[str]) -> int:
    """Record everything and put it in the place of the old; give the exit status."""
    target = Path(arguments[0]) if arguments else ROOT / "captures"
    lab = installed()
    if lab.missing:
        print(lab.missing, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "lab")
        out.mkdir()
        Machine(lab, out, [recorded.name for recorded in RECORDED], seconds=SECONDS).wait()
        for recorded in RECORDED:
            result = out / f"{recorded.name}.json"
            error = Result.read(result).error if result.exists() else "it was not recorded"
            if error:
                print(f"{recorded.name}: {error}", file=sys.stderr)
                return 1
        new = Path(folder, "new")
        new.mkdir()
        entries = _samples(new)
        for recorded in RECORDED:
            entries.update(_packed(out / recorded.name, new, recorded.name))
        manifest = target / MANIFEST
        text = updated(manifest.read_text(), entries)
        for name in entries:
            shutil.copyfile(new / name, target / name)
            print(f"{target / name}: {(new / name).stat().st_size:,} bytes")
        manifest.write_text(text)
    return 0


def _samples(target: Path) -> dict[str, dict[str, Any]]:
    """Record what needs no device; give what the manifest is to say of each file."""
    script, name = _SAMPLES
    told = subprocess.run(
        [
            *("unshare", "--net", "sh", "-c", script, name),
            *(sys.executable, "-m", "tools.record_ram_samples", str(target)),
        ],
        check=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    files: dict[str, dict[str, Any]] = tomllib.loads(told)["files"]
    return files


def _packed(source: Path, target: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Put a capture and its logs into a folder; give each file's name and entry."""
    capture = target / f"{name}.pcap.gz"
    capture.write_bytes(gzip.compress((source / "capture.pcap").read_bytes(), mtime=0))
    files = [capture]
    for side in ("src", "dst"):
        log = target / f"{name}.{side}.log"
        shutil.copyfile(source / f"{side}.log", log)
        files.append(log)
    for file in files:
        yield file.name, {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def updated(manifest: str, entries: Mapping[str, Mapping[str, str]]) -> str:
    """Write new values into entries of a manifest.

    Raises:
        ValueError: it is not the manifest of just these files.
    """
    for name, values in entries.items():
        for key, value in values.items():
            pattern = rf'(?m)(^\[files\."{re.escape(name)}"\]\n(?:\w+ = .*\n)*?{key} = ")[^"]*'
            manifest, count = re.subn(pattern, rf"\g<1>{value}", manifest)
            if count != 1:
                raise ValueError(f"the manifest has no {key} of {name}")
    if missing := set(tomllib.loads(manifest)["files"]) - set(entries):
        raise ValueError(f"nothing makes {', '.join(sorted(missing))}")
    return manifest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
