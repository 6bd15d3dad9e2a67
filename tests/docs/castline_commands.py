"""Whether a command line that a page shows is one that the command line, or the Makefile, has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import click

from deploy.cli.main import castline
from tests.docs.pages import ROOT, Block, blocks, inline, pages

# Commands whose options `make TARGET ARGS=...` hands on.
_BEHIND = {"demo": ["demo"], "bench": ["bench", "pipeline"]}
_SHELL = {"", "sh", "bash", "shell", "console", "text"}
_ENDS = {"|", ">", ">>", "&&", "||", ";", "&", "2>"}


def targets() -> set[str]:
    """The targets of the Makefile that a person calls."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def shown() -> Iterator[tuple[str, list[str]]]:
    """Every `castline ...` and `make ...` that a page shows, in a block or in backticks, with the page's name."""
    for page in pages():
        if page.name == "commands.md":  # is the help itself
            continue
        lines = [line for block in blocks(page) if block.language in _SHELL for line in _lines(block)]
        for line in [*lines, *inline(page)]:
            if words := _command(line):
                yield page.name, words


def _lines(block: Block) -> list[str]:
    return block.text.replace("\\\n", " ").splitlines()


def _command(line: str) -> list[str] | None:
    """The words of a command of ours, or None. Words that set variables, a prompt and the path of the environment are taken off."""
    if not re.match(r"^\s*(\$ )?([A-Z_]+=\S+ )*(\.venv/bin/)?(castline|make)( |$)", line):
        return None
    words = shlex.split(line, comments=True)
    while words[0] == "$" or re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    cut = [place for place, word in enumerate(words) if word in _ENDS]
    return [words[0].removeprefix(".venv/bin/"), *words[1 : min(cut, default=len(words))]]


def problem(words: Sequence[str]) -> str:
    """What is wrong with the command; empty when nothing is."""
    return _of_make(words[1:]) if words[0] == "make" else _of_castline(words[1:])


def _of_make(words: Sequence[str]) -> str:
    called = [word for word in words if "=" not in word and not word.startswith("-")]
    for target in called:
        if target not in targets():
            return f"the Makefile has no target {target}"
    handed_on = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
    pieces = [word.partition("::")[0] for words_of in handed_on for word in shlex.split(words_of) if word.startswith("tests/")]
    for piece in pieces:
        if piece != "tests/..." and not (ROOT / piece).exists():
            return f"there is no {piece}"
    for target in called:
        if target in _BEHIND and handed_on:
            return _of_castline([*_BEHIND[target], *shlex.split(handed_on[0])])
    return ""


def _of_castline(words: Sequence[str]) -> str:
    command: click.Command = castline
    context = click.Context(command, info_name="castline")
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith("-") and word != "-":
            name, given, _ = word.partition("=")
            found = _option(context, name)
            if found is None:
                return f"{context.command_path} has no option {name}"
            if not given and not found.is_flag and not found.count and left:
                left.pop(0)
        elif isinstance(command, click.Group):
            below = command.get_command(context, word)
            if below is None:
                return f"{context.command_path} has no command {word}"
            command, context = below, click.Context(below, info_name=word, parent=context)
    return ""


def _option(context: click.Context, name: str) -> click.Option | None:
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option) and name in (*parameter.opts, *parameter.secondary_opts):
            return parameter
    return None
