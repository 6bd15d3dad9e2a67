"""Finds the `castline` and `make` commands that pages show, and checks that these commands and their options exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import click

from deploy.cli.main import castline
from tests.docs.pages import ROOT, CodeBlock, list_pages, read_blocks, read_inline_code

# The castline command to which `make TARGET ARGS=...` passes its arguments.
_COMMAND_OF_TARGET = {"demo": ["demo"], "bench": ["bench", "pipeline"]}
_SHELL_LANGUAGES = {"", "sh", "bash", "shell", "console", "text"}
_OPERATORS = {"|", ">", ">>", "&&", "||", ";", "&", "2>"}


def list_make_targets() -> set[str]:
    """Returns the targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def find_shown_commands() -> Iterator[tuple[str, list[str]]]:
    """Yields the name of a page and the words of a command for each `castline` or `make` command that a page shows."""
    for page in list_pages():
        if page.name == "commands.md":  # this page is generated from the commands
            continue
        lines = [line for block in read_blocks(page) if block.language in _SHELL_LANGUAGES for line in _join_lines(block)]
        for line in [*lines, *read_inline_code(page)]:
            if words := _parse_command(line):
                yield page.name, words


def _join_lines(block: CodeBlock) -> list[str]:
    return block.text.replace("\\\n", " ").splitlines()


def _parse_command(line: str) -> list[str] | None:
    """Returns the words of a `castline` or `make` command, or None for another line.

    A prompt, words that set variables, and the path of the virtual environment are removed.
    """
    if not re.match(r"^\s*(\$ )?([A-Z_]+=\S+ )*(\.venv/bin/)?(castline|make)( |$)", line):
        return None
    words = shlex.split(line, comments=True)
    while words[0] == "$" or re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    operators = [index for index, word in enumerate(words) if word in _OPERATORS]
    return [words[0].removeprefix(".venv/bin/"), *words[1 : min(operators, default=len(words))]]


def find_problem(words: Sequence[str]) -> str:
    """Says what is wrong with a command. Returns an empty text for a command that exists with its options."""
    return _find_make_problem(words[1:]) if words[0] == "make" else _find_castline_problem(words[1:])


def _find_make_problem(words: Sequence[str]) -> str:
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    for target in targets:
        if target not in list_make_targets():
            return f"the Makefile has no target {target}"
    arguments = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
    test_paths = [word.partition("::")[0] for text in arguments for word in shlex.split(text) if word.startswith("tests/")]
    for path in test_paths:
        if path != "tests/..." and not (ROOT / path).exists():
            return f"there is no {path}"
    for target in targets:
        if target in _COMMAND_OF_TARGET and arguments:
            return _find_castline_problem([*_COMMAND_OF_TARGET[target], *shlex.split(arguments[0])])
    return ""


def _find_castline_problem(words: Sequence[str]) -> str:
    command: click.Command = castline
    context = click.Context(command, info_name="castline")
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            option = _find_option(context, name)
            if option is None:
                return f"{context.command_path} has no option {name}"
            if not equals and not option.is_flag and not option.count and remaining:
                remaining.pop(0)
        elif isinstance(command, click.Group):
            subcommand = command.get_command(context, word)
            if subcommand is None:
                return f"{context.command_path} has no command {word}"
            command, context = subcommand, click.Context(subcommand, info_name=word, parent=context)
    return ""


def _find_option(context: click.Context, name: str) -> click.Option | None:
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option) and name in (*parameter.opts, *parameter.secondary_opts):
            return parameter
    return None
