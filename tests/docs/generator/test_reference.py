"""Tests of the reference pages: every metric and every command is on its page, with an explanation."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from prometheus_client import REGISTRY

from deploy.cli.main import COMMANDS, castline
from docs.generator.reference import list_metrics, walk_commands
from tests.docs.pages import DOCS, ROOT


def test_every_metric_of_castline_is_on_the_page() -> None:
    exported = {family.name for family in REGISTRY.collect() if family.name.startswith("castline_")}
    on_page = set(re.findall(r"^\| `(castline_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert {name.removesuffix("_total") for name in on_page} == exported
    assert all(metric.section and metric.description for metric in list_metrics())


def test_every_command_has_its_help_on_the_page() -> None:
    page = (DOCS / "commands.md").read_text()
    paths = [context.command_path for context in walk_commands(castline, "castline")]
    assert [f"castline {name}" for name in COMMANDS] == [path for path in paths if path.count(" ") == 1]
    for path in paths:
        assert f"Usage: {path} " in page


def test_every_command_and_every_option_is_explained() -> None:
    unexplained = []
    for context in walk_commands(castline, "castline"):
        if not context.command.help:
            unexplained.append(context.command_path)
        for parameter in context.command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                unexplained.append(f"{context.command_path} {parameter.opts[0]}")
    assert unexplained == []


@pytest.mark.real
def test_help_imports_neither_tensorflow_nor_keras() -> None:
    code = (
        "import sys; from docs.generator.reference import make_commands_page; make_commands_page();"
        "sys.exit(', '.join(name for name in ('tensorflow', 'keras') if name in sys.modules) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"the help page imports: {found.stderr}"
