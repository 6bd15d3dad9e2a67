"""The page of the command line: the help of every command, as it prints it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from deploy.cli.main import castline
from docs.generator.tables import page

_WIDTH = 100
_INTRODUCTION = "What `castline COMMAND --help` prints."


def walk(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """`command` and all commands below it, each in the context that its help is printed from."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH)
    yield context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None, f"{context.command_path} lists {below}, but has it not"
            yield from walk(found, below, context)


def pages() -> dict[str, str]:
    parts = [_INTRODUCTION]
    for context in walk(castline, "castline"):
        level = min(3, len(context.command_path.split()) + 1)
        parts += [f"{'#' * level} {context.command_path}", f"```text\n{context.get_help().rstrip()}\n```"]
    return {"commands.md": page("Commands", *parts)}
