# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest fixtures for projects that test migration code. See docs/fixtures.md.

The plugin is loaded into every test run of an environment that mfdtool is installed in, so it
imports nothing but pytest until one of its fixtures is asked for.

Random migrations are drawn from a seed that is the same in every run: the test's own id, or what
``--mfdtool-seed`` says. A test that fails shows the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol
from zlib import crc32

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from mfdtool.fixtures.generate import Shape
    from mfdtool.fixtures.migration import DeviceStream, Migration
    from mfdtool.fixtures.plan import Plan
    from mfdtool.fixtures.segments import Network

SEED_OPTION: Final = "--mfdtool-seed"

_SEED: Final = pytest.StashKey[int]()


class MigrationFactory(Protocol):
    """Makes migrations: a planned one, or the next random one."""

    def __call__(
        self,
        plan: Plan | None = None,
        *,
        shape: Shape | None = None,
        defects: Sequence[str] = (),
    ) -> Migration:
        """Make a migration.

        Args:
            plan: what it shall be like; random without it.
            shape: bounds of a random one.
            defects: what to break in it, each ``NAME[:AT][@DEVICE]``.

        Raises:
            ValueError: the plan cannot be carried out, or a defect not be put in.
        """


class CaptureWriter(Protocol):
    """Writes captures of migrations to files."""

    def __call__(
        self,
        migration: Migration | None = None,
        *,
        network: Network | None = None,
        name: str = "migration.pcapng",
    ) -> Path:
        """Write a capture into the test's temporary directory.

        Args:
            migration: what is captured; a random one without it.
            network: how it travels; in order and complete without it.
            name: the file's name; one that ends with ``.pcap`` is written in that format.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that fixes the seed."""
    parser.getgroup("mfdtool").addoption(
        SEED_OPTION,
        type=int,
        metavar="N",
        help="seed of random migrations, instead of one per test",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Say how to repeat a test that failed with random migrations."""
    report = yield
    if report.failed and _SEED in item.stash:
        report.sections.append(("mfdtool", f"repeat with {SEED_OPTION}={item.stash[_SEED]}"))
    return report


@pytest.fixture
def mfdtool_rng(request: pytest.FixtureRequest) -> Random:
    """Give the random generator that this test's migrations are drawn from."""
    from random import Random

    chosen = request.config.getoption(SEED_OPTION)
    seed = crc32(request.node.nodeid.encode()) if chosen is None else int(chosen)
    request.node.stash[_SEED] = seed
    return Random(seed)


@pytest.fixture
def migration_factory(mfdtool_rng: Random) -> MigrationFactory:
    """Give a function that makes migrations, planned, random and broken."""
    from mfdtool.fixtures.assemble import assemble
    from mfdtool.fixtures.defects import break_migration
    from mfdtool.fixtures.generate import ANY_SHAPE, random_plan

    def make(
        plan: Plan | None = None,
        *,
        shape: Shape | None = None,
        defects: Sequence[str] = (),
    ) -> Migration:
        migration = assemble(plan or random_plan(mfdtool_rng, shape or ANY_SHAPE))
        for defect in defects:
            migration = break_migration(migration, defect)
        return migration

    return make


@pytest.fixture
def migration(migration_factory: MigrationFactory) -> Migration:
    """Give a random, valid migration with device state on multifd channels."""
    from mfdtool.fixtures.generate import Shape

    return migration_factory(shape=Shape(multifd_transfer=True))


@pytest.fixture
def capture_file(
    migration_factory: MigrationFactory, mfdtool_rng: Random, tmp_path: Path
) -> CaptureWriter:
    """Give a function that writes a capture of a migration to a file."""
    from mfdtool.fixtures.captures import pcap_bytes, pcapng_bytes
    from mfdtool.fixtures.segments import transmit

    def write(
        migration: Migration | None = None,
        *,
        network: Network | None = None,
        name: str = "migration.pcapng",
    ) -> Path:
        sent = transmit(migration or migration_factory(), network, mfdtool_rng)
        path = tmp_path / name
        path.write_bytes(pcap_bytes(sent) if path.suffix == ".pcap" else pcapng_bytes(sent))
        return path

    return write


@pytest.fixture
def vfio_device_stream(migration: Migration) -> DeviceStream:
    """Give what a destination writes to the first device of `migration`."""
    return migration.device_stream()
