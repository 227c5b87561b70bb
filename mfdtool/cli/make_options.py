# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of ``mfdtool make``, turned into a plan of a migration and a network for it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
from click.core import ParameterSource

from mfdtool.fixtures.pci import EXPRESS_SIZE, pci_config
from mfdtool.fixtures.plan import (
    ORDERS,
    PAGE_SIZES,
    Compression,
    Device,
    Order,
    Pages,
    Plan,
    RamBlock,
    random_order,
)
from mfdtool.fixtures.segments import DEFAULT_PORT, Network
from mfdtool.packets.link import EtherType
from mfdtool.wire.multifd import page_count_for
from mfdtool.wire.profile import DEFAULT_PROFILE, PROFILES

if TYPE_CHECKING:
    # Generic for the type checker, and in newer releases of click only.
    AnyType: TypeAlias = click.ParamType[Any]
else:
    AnyType = click.ParamType

Callback: TypeAlias = Callable[..., Any]

SIZE_LIMIT: Final = 1 << 30
"""Most bytes of device state and RAM: a migration is made in memory."""

CHUNK_LIMIT: Final = 64 << 20

_PRECOPY_READS: Final = 2
_RANDOM_ORDER: Final = re.compile(r"random:(\d{1,18})")
_SIZE: Final = re.compile(r"(\d{1,18})([KMG]?)")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DEVICE: Final = re.compile(
    r"(?:(?P<idstr>.+?/vfio)|(?P<domain>[0-9a-f]{4}:)?(?P<slot>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]))"
    r"(?::(?P<size>\w+))?"
)
_DEVICE_KEYS: Final = (
    "precopy",
    "config",
    "vectors",
    "transfer",
    "config-after-iter",
    "channels",
    "instance",
)
_SWITCHES: Final = {"on": True, "off": False}


# What is written behind an option


def parse_size(text: str) -> int:
    """Read ``4096``, ``64K``, ``1M`` or ``2G``.

    Raises:
        ValueError: it is not written like that.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size, as in 4096, 64K or 1M")
    return int(match[1]) * _UNITS[match[2]]


def parse_order(text: str) -> Order:
    """Read an order's name, or ``random:SEED``.

    Raises:
        ValueError: there is no such order.
    """
    match = _RANDOM_ORDER.fullmatch(text)
    if match is not None:
        return random_order(Random(int(match[1])))
    if text not in ORDERS:
        raise ValueError(f"no order {text!r}, only {', '.join(ORDERS)} and random:SEED")
    return ORDERS[text]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device whose contents are still to be drawn."""

    idstr: str
    size: int
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def precopy_size(self) -> int:
        """Bytes of its state that precede the switchover."""
        return parse_size(self.options.get("precopy", "0"))

    def device(self, rng: Random, *, chunk: int, can_transfer: bool) -> Device:
        """Draw the contents.

        Unless told, a device has multifd transfer if the migration lets it.

        Raises:
            ValueError: an option's value makes no sense.
        """
        options = self.options
        channels = options.get("channels", "")
        precopy = self.precopy_size
        return Device(
            idstr=self.idstr,
            instance_id=parse_size(options.get("instance", "0")),
            precopy=_draw(rng, precopy, -(-precopy // _PRECOPY_READS)) if precopy else (),
            buffers=_draw(rng, self.size, chunk),
            config=pci_config(
                size=parse_size(options.get("config", str(EXPRESS_SIZE))),
                vectors=parse_size(options.get("vectors", "0")),
            ),
            transfer=_switch(options["transfer"]) if "transfer" in options else can_transfer,
            config_after_iter=_switch(options.get("config-after-iter", "off")),
            channels=[parse_size(number) for number in channels.split("+") if channels],
        )


def parse_device(text: str) -> DeviceSpec:
    """Read ``IDSTR[:SIZE][,KEY=VALUE...]``; the idstr may be a PCI address.

    Raises:
        ValueError: it is not written like that.
    """
    head, *rest = text.split(",")
    match = _DEVICE.fullmatch(head)
    if match is None:
        raise ValueError(f"{head!r} is not IDSTR[:SIZE], as in 0000:00:05.0/vfio:64M")
    options = dict(option.partition("=")[::2] for option in rest)
    for key in options:
        if key not in _DEVICE_KEYS:
            raise ValueError(f"{key!r} is none of {', '.join(_DEVICE_KEYS)}")
    return DeviceSpec(
        idstr=match["idstr"] or f"{match['domain'] or '0000:'}{match['slot']}/vfio",
        size=parse_size(match["size"] or "64K"),
        options=options,
    )


def _switch(text: str) -> bool:
    if text not in _SWITCHES:
        raise ValueError(f"{text!r} is neither on nor off")
    return _SWITCHES[text]


def _draw(rng: Random, size: int, chunk: int) -> list[bytes]:
    """Draw ``size`` bytes in pieces of ``chunk``, the last one shorter."""
    return [rng.randbytes(min(chunk, size - at)) for at in range(0, size, chunk)]


class Parsed(AnyType):
    """An option whose text a function reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text; a usage error if it makes no sense."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class _Share(click.FloatRange):
    """A share from 0 to 1. NaN compares with no bound, so the range alone lets it pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number; a usage error if it is none."""
        share = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return share


SIZE_TYPE: Final = Parsed("size", parse_size)
_POSITIVE: Final = click.IntRange(min=1)
_COUNT: Final = click.IntRange(min=0)
_SHARE: Final = _Share(0, 1)

# Options

_PLAN_OPTIONS: Final = (
    click.option(
        "--profile",
        type=click.Choice(list(PROFILES)),
        default=DEFAULT_PROFILE.name,
        show_default=True,
        help="The source's release.",
    ),
    click.option("--machine", default="", metavar="NAME", help="Machine type."),
    click.option(
        "--channels",
        type=click.IntRange(0, 255),
        default=4,
        show_default=True,
        help="multifd channels; 0 is a migration without multifd.",
    ),
    click.option(
        "--device",
        "devices",
        type=Parsed("device", parse_device),
        multiple=True,
        default=("0000:00:05.0/vfio:64K",),
        show_default=True,
        metavar="IDSTR[:SIZE][,KEY=VALUE...]",
        help="A VFIO device and the size of its state (repeatable). Keys: precopy=SIZE,"
        " config=256|4096, vectors=N, transfer=on|off, config-after-iter=on|off,"
        " channels=0+2+..., instance=N.",
    ),
    click.option(
        "--chunk",
        type=SIZE_TYPE,
        default="1M",
        show_default=True,
        help="Device bytes in one packet.",
    ),
    click.option(
        "--order",
        type=Parsed("order", parse_order),
        default="round-robin",
        show_default=True,
        metavar="ORDER",
        help=f"Which device packet comes first: {', '.join(ORDERS)}, random:SEED, as far as no"
        " packet overtakes another of its channel.",
    ),
    click.option("--late", type=_COUNT, default=0, help="Device packets behind the last SYNC."),
    click.option(
        "--page-size",
        type=click.Choice([str(size) for size in PAGE_SIZES]),
        default="4096",
        show_default=True,
        help="Target page size.",
    ),
    click.option("--ram", type=SIZE_TYPE, default="32M", show_default=True, help="RAM size."),
    click.option(
        "--rounds", type=_POSITIVE, default=2, show_default=True, help="How often RAM is scanned."
    ),
    click.option(
        "--pages", type=_COUNT, default=2, show_default=True, help="Pages sent in each round."
    ),
    click.option(
        "--compression",
        type=click.Choice([method.name.lower() for method in Compression]),
        default="none",
        show_default=True,
        help="Of RAM.",
    ),
    click.option("--return-path/--no-return-path", default=True, help="Capability return-path."),
    click.option("--switchover-ack", is_flag=True, help="Capability switchover-ack."),
)
_NETWORK_OPTIONS: Final = (
    click.option(
        "--segment-size",
        type=click.IntRange(1, 65475),
        default=1448,
        show_default=True,
        help="Payload bytes of a TCP segment.",
    ),
    click.option("--ragged", is_flag=True, help="Segments end anywhere."),
    click.option(
        "--interleaved", type=_COUNT, default=0, help="Segments that channels overtake each other."
    ),
    click.option("--lost", type=_SHARE, default=0.0, help="Share that is not captured."),
    click.option("--retransmitted", type=_SHARE, default=0.0, help="Share that comes twice."),
    click.option("--reordered", type=_SHARE, default=0.0, help="Share that comes late."),
    click.option(
        "--snaplen",
        type=click.IntRange(0, 0xFFFFFFFF),
        default=0,
        help="Bytes captured of a frame; 0 for all.",
    ),
    click.option(
        "--first-sequence",
        type=click.IntRange(0, 0xFFFFFFFF),
        default=1000,
        show_default=True,
        help="First sequence number of each stream.",
    ),
    click.option("--ipv6", is_flag=True, help="IPv6, not IPv4."),
    click.option(
        "--vlan", "vlans", type=click.IntRange(0, 4095), multiple=True, help="VLAN (repeatable)."
    ),
    click.option(
        "--port",
        type=click.IntRange(1, 39999),
        default=DEFAULT_PORT,
        show_default=True,
        help="Where the destination listens.",
    ),
    click.option("--one-sided", is_flag=True, help="Capture only what the source sends."),
)


def plan_options(function: Callback) -> Callback:
    """Add options about the migration; the function gets ``plan``, None with --random."""

    @functools.wraps(function)
    def wrapper(*, is_random: bool, seed: int, **options: Any) -> Any:
        own = {name: options.pop(name) for name in _names(_PLAN_OPTIONS)}
        plan = None
        if is_random:
            _refuse_any(own)
        else:
            try:
                plan = _plan(Random(seed), **own)
            except ValueError as error:
                raise click.UsageError(f"{error}.") from None
        return function(plan=plan, seed=seed, **options)

    decorated: Callback = wrapper
    for option in reversed(_PLAN_OPTIONS):
        decorated = option(decorated)
    decorated = click.option("--seed", type=_COUNT, default=0, help="Of all that is random.")(
        decorated
    )
    return click.option("--random", "is_random", is_flag=True, help="A random migration.")(
        decorated
    )


def network_options(function: Callback) -> Callback:
    """Add options about the network; the function gets ``network``."""

    @functools.wraps(function)
    def wrapper(**options: Any) -> Any:
        own = {name: options.pop(name) for name in _names(_NETWORK_OPTIONS)}
        vlans = tuple((EtherType.VLAN, number) for number in own.pop("vlans"))
        return function(network=Network(vlans=vlans, **own), **options)

    decorated: Callback = wrapper
    for option in reversed(_NETWORK_OPTIONS):
        decorated = option(decorated)
    return decorated


def _names(options: tuple[Callback, ...]) -> list[str]:
    """Give the names under which options are handed to a function."""
    command = click.Command("", params=[])
    for option in options:
        option(command)
    return [name for parameter in command.params if (name := parameter.name)]


def _refuse_any(options: Mapping[str, Any]) -> None:
    """Refuse options that a random migration does not heed."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name in options and given:
            raise click.UsageError(f"{parameter.opts[0]} does not go with --random.")


def _plan(
    rng: Random,
    *,
    profile: str,
    devices: tuple[DeviceSpec, ...],
    chunk: int,
    page_size: str,
    ram: int,
    rounds: int,
    pages: int,
    compression: str,
    channels: int,
    **others: Any,
) -> Plan:
    """Make the plan that the options describe.

    Raises:
        ValueError: they describe none.
    """
    if not 1 <= chunk <= CHUNK_LIMIT:
        raise ValueError(f"a chunk has 1 to {CHUNK_LIMIT} bytes")
    size = int(page_size)
    total = sum(spec.size + spec.precopy_size for spec in devices) + rounds * pages * size
    if total > SIZE_LIMIT:
        raise ValueError(f"{total} bytes of state and pages; at most {SIZE_LIMIT} can be made")
    usual = Plan(page_size=size).ram_blocks[0]
    block = RamBlock(name=usual.name, size=ram)
    method = Compression[compression.upper()]
    can_transfer = channels > 0 and method is Compression.NONE
    return Plan(
        profile=PROFILES[profile],
        page_size=size,
        blocks=[block],
        rounds=[_pages(rng, block, pages, size) for _ in range(rounds)],
        devices=[spec.device(rng, chunk=chunk, can_transfer=can_transfer) for spec in devices],
        compression=method,
        channels=channels,
        **others,
    )


def _pages(rng: Random, block: RamBlock, number: int, page_size: int) -> list[Pages]:
    """Draw contents of the first pages, and cut them into packets."""
    if number * page_size > block.size:
        raise ValueError(f"{block.name} has no {number} pages")
    most = page_count_for(page_size)
    return [
        Pages(
            ramblock=block.name,
            normal={
                page * page_size: rng.randbytes(page_size)
                for page in range(first, min(first + most, number))
            },
        )
        for first in range(0, number, most)
    ]
