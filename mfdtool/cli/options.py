# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments and options that several subcommands have, turned into the values that they mean.

::

    @click.command()
    @input_options
    @selection_options
    def command(source: Input, selection: Selection) -> int: ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from mfdtool.loader.assume import AUTO
from mfdtool.loader.options import DestinationOptions, parse_options
from mfdtool.rules import Severity
from mfdtool.stream.selection import Selection
from mfdtool.wire.constants import PAGE_SIZES
from mfdtool.wire.profile import PROFILES
from mfdtool.workflows.reading import Input, read_description

Callback: TypeAlias = Callable[..., Any]

_CHANNEL_HELP: Final = "Only this channel: main, return-path, multifd-0, ... (repeatable)."
_DEVICE_HELP: Final = "Only this device: 0000:00:05.0/vfio, 0000:00:05.0 or 00:05.0 (repeatable)."


def input_options(function: Callback | None = None, *, vmdesc: str = "--vmdesc") -> Callback:
    """Add CAPTURE and what can stand in its place; the function gets ``source``, an `Input`.

    ``vmdesc`` is what the option for a vmdescription is called.
    """
    if function is None:
        return functools.partial(input_options, vmdesc=vmdesc)

    @click.argument("capture", required=False)
    @click.option(
        "--main",
        "main_stream",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Instead of CAPTURE: the bytes of a main stream.",
    )
    @click.option(
        "--multifd",
        metavar="FILE",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Instead of CAPTURE: the bytes of a multifd channel (repeatable).",
    )
    @click.option(
        "--page-size",
        metavar="BYTES",
        type=int,
        help="Target page size, where the streams do not tell it.",
    )
    @click.option(
        vmdesc,
        "description",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Take this vmdescription, as extract --vmdesc writes it, not the streams' own.",
    )
    @functools.wraps(function)
    def wrapper(
        capture: str | None,
        main_stream: Path | None,
        multifd: tuple[Path, ...],
        page_size: int | None,
        description: Path | None,
        **rest: Any,
    ) -> Any:
        has_streams = main_stream is not None or bool(multifd)
        if capture is None and not has_streams:
            raise click.UsageError("name a CAPTURE ('-' is standard input), or --main, --multifd.")
        if capture is not None and has_streams:
            raise click.UsageError("--main and --multifd take the place of CAPTURE.")
        if page_size is not None and page_size not in PAGE_SIZES:
            sizes = ", ".join(map(str, reversed(PAGE_SIZES)))
            raise click.BadParameter(f"{page_size} is none of {sizes}.", param_hint="--page-size")
        source = Input(
            capture=capture,
            main=main_stream,
            multifd=multifd,
            page_size=page_size,
            description=None if description is None else read_description(description),
            described_by=description,
        )
        return function(source=source, **rest)

    return wrapper


def selection_options(function: Callback) -> Callback:
    """Add --migration, --channel and --device; the function gets ``selection``."""

    @click.option(
        "--migration",
        metavar="N",
        type=click.IntRange(min=0),
        help="Only this migration, from 0 in order of appearance.",
    )
    @click.option("--channel", "channels", metavar="NAME", multiple=True, help=_CHANNEL_HELP)
    @click.option("--device", "devices", metavar="NAME", multiple=True, help=_DEVICE_HELP)
    @functools.wraps(function)
    def wrapper(
        migration: int | None, channels: tuple[str, ...], devices: tuple[str, ...], **rest: Any
    ) -> Any:
        selection = Selection(
            migration=migration, channels=frozenset(channels), devices=frozenset(devices)
        )
        return function(selection=selection, **rest)

    return wrapper


fail_on_option: Final = click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in reversed(Severity)]),
    default=Severity.ERROR.value,
    show_default=True,
    help="Exit with 1 if there is a finding as severe as this.",
)

Said: TypeAlias = tuple[DestinationOptions, tuple[str, ...]]
"""What was said of a destination, and the same as text, to repeat it."""


def destination_options(function: Callback) -> Callback:
    """Add --profile and --destination; the function gets ``profile`` and ``destination``."""

    @click.option(
        "--profile",
        type=click.Choice([AUTO, *PROFILES]),
        default=AUTO,
        show_default=True,
        help="QEMU release of the destination.",
    )
    @click.option(
        "--destination",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_destination,
        help="Something about the destination (repeatable): device=none,"
        " device=0000:00:05.0/vfio, device=0000:00:05.0/vfio,mtty-ports=2, transfer=off,"
        " channels=4, config-after-iter=on, max-queued=1M, memory=8G, machine=pc-q35-10.0.",
    )
    @functools.wraps(function)
    def wrapper(profile: str, destination: Said, **rest: Any) -> Any:
        unknown = () if profile == AUTO else destination[0].unknown_to(PROFILES[profile])
        if unknown:
            raise click.UsageError(f"QEMU {profile} has no property for {' and '.join(unknown)}.")
        return function(profile=profile, destination=destination, **rest)

    return wrapper


def _destination(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Said:
    try:
        return parse_options(values), values
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
