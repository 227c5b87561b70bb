# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the generated parts of docs/: the reference of the command line, the loader's tables.

``python -m tools.docs`` writes them, ``python -m tools.docs --check`` tells what is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from mfdtool.cli import cli
from tools.loader_model import loader_model

DOCS: Final = Path(__file__).parent.parent / "docs"
WIDTH: Final = 100


def command_line_reference() -> str:
    """Give docs/cli.md: the help of every command, as the program prints it."""
    parts = ["# Command line", "", "Written by `make docs` from the program's own help.", ""]
    for name, command in _commands("mfdtool", cli):
        context = click.Context(command, info_name=name, max_content_width=WIDTH)
        context.help_option_names = ["-h", "--help"]
        parts += [f"## {name}", "", "```", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(parts)


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Give a command and, if it is a group, all that are in it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found is not None:
                yield from _commands(f"{name} {each}", found)


GENERATED: Final[Mapping[str, Callable[[], str]]] = {
    "cli.md": command_line_reference,
    "loader-model.md": loader_model,
}


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` give 1 if one of them is out of date."""
    stale = [
        name
        for name, generate in GENERATED.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text() != generate()
    ]
    for name in stale:
        if "--check" in arguments:
            print(f"docs/{name} is out of date: make docs")
        else:
            (DOCS / name).write_text(GENERATED[name]())
            print(f"docs/{name}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
