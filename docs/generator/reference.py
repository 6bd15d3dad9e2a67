"""Generates the reference pages: the commands with their help, the settings, and the metrics."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
from prometheus_client import Counter, Gauge, Histogram

from deploy.cli.main import castline
from deploy.cli.settings import describe_settings
from docs.generator.markdown import make_page, make_table
from streams import metrics
from streams.settings import FILE_VARIABLE, VARIABLE_PREFIX, Settings

_HELP_WIDTH = 100
_COMMANDS_INTRODUCTION = "This page shows what `castline COMMAND --help` prints for each command."
_SETTINGS_INTRODUCTION = f"""A process reads its settings from the file that the option `--settings FILE` names. Without this option, it
reads the file that the environment variable `{FILE_VARIABLE}` names. Without both, it reads `castline.toml` in the
current folder. Environment variables override the values of the file. A process does not start if a setting is unknown or its value
is outside its bounds.
The command `castline settings check` checks the settings, and `castline settings show` prints the values in use.

Write secrets into environment variables or into separate files, never into `castline.toml`."""
_LINES_INTRODUCTION = f"""A setting of a line has no environment variable, because the lines are a list. One environment variable
can contain the whole list as JSON, for example `{VARIABLE_PREFIX}LINES='[{{"name": "line-1"}}]'`."""
_METRICS_INTRODUCTION = """Every process serves its metrics at the address `/metrics`. The name of a metric ends with its base unit, such
as seconds or bytes, and the name of a counter ends with `_total`. A histogram has three series, with the endings `_bucket`, `_sum`
and `_count`. The module `streams/metrics.py` declares all metrics."""


@dataclass(frozen=True)
class MetricDescription:
    """A metric as `streams/metrics.py` declares it.

    `labels` are in the order of the declaration. `section` names the role that exports the metric.
    """

    name: str
    type: str
    labels: tuple[str, ...]
    description: str
    section: str

    @property
    def series(self) -> set[str]:
        """The names of the time series that Prometheus stores for this metric."""
        return {self.name, *(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count"))} if self.type == "histogram" else {self.name}


def walk_commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yields a click context for `command` and for each of its subcommands. `context.get_help()` returns the help text."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_HELP_WIDTH, max_content_width=_HELP_WIDTH)
    yield context
    if isinstance(command, click.Group):
        for subcommand_name in command.list_commands(context):
            subcommand = command.get_command(context, subcommand_name)
            assert subcommand is not None, f"{context.command_path} lists the command {subcommand_name} but does not have it"
            yield from walk_commands(subcommand, subcommand_name, context)


def make_commands_page() -> dict[str, str]:
    """Returns the page `commands.md`."""
    parts = [_COMMANDS_INTRODUCTION]
    for context in walk_commands(castline, "castline"):
        level = min(3, len(context.command_path.split()) + 1)
        parts += [f"{'#' * level} {context.command_path}", f"```text\n{context.get_help().rstrip()}\n```"]
    return {"commands.md": make_page("Commands", *parts)}


def make_settings_page() -> dict[str, str]:
    """Returns the page `settings.md`."""
    sections: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for path, type_text, default, description in describe_settings():
        section, _, name = path.rpartition(".")
        variable = f"`{VARIABLE_PREFIX}{path.replace('.', '__').upper()}`"
        sections[section].append((f"`{name}`", variable, f"`{type_text}`", f"`{default.removeprefix('default ')}`", description))
    parts = [_SETTINGS_INTRODUCTION]
    for section, rows in sections.items():
        title = section.replace("[]", "")
        head: tuple[str, ...] = ("setting", "variable", "type and bounds", "default", "meaning")
        parts.append(f"## [[{title}]]" if section.endswith("[]") else f"## [{title}]")
        if "[]" in section:
            parts.append(
                _LINES_INTRODUCTION
                if section == "lines[]"
                else "Each line has its own values of these settings. Write this section below the `[[lines]]` entry of its line."
            )
            # Leave out the column "variable", because the settings of a line have no environment variables.
            rows, head = [(row[0], *row[2:]) for row in rows], (head[0], *head[2:])
        else:
            parts.append(_describe_section(section))
        parts.append(make_table(head, rows))
    return {"settings.md": make_page("Settings", *parts)}


def _describe_section(section: str) -> str:
    model: Any = Settings
    for name in section.split("."):
        field = model.model_fields[name]
        model = field.annotation
    return f"{field.description}"


def list_metrics() -> list[MetricDescription]:
    """Returns all metrics in the order of their declaration."""
    return [
        _describe_metric(metric, section)
        for name, section in _read_sections().items()
        if isinstance(metric := getattr(metrics, name), Counter | Gauge | Histogram)
    ]


def make_metrics_page() -> dict[str, str]:
    """Returns the page `metrics.md`."""
    sections: dict[str, list[MetricDescription]] = defaultdict(list)
    for metric in list_metrics():
        sections[metric.section].append(metric)
    parts = [_METRICS_INTRODUCTION]
    for section, found in sections.items():
        rows = (
            (f"`{metric.name}`", metric.type, ", ".join(f"`{label}`" for label in metric.labels), metric.description) for metric in found
        )
        parts += [f"## {section}", make_table(("metric", "type", "labels", "meaning"), rows)]
    return {"metrics.md": make_page("Metrics", *parts)}


def _describe_metric(metric: Counter | Gauge | Histogram, section: str) -> MetricDescription:
    (family,) = metric.describe()
    # The client library stores the name of a counter without the ending `_total`, but Prometheus gets the name with it.
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return MetricDescription(name, family.type, tuple(metric._labelnames), family.documentation, section)


def _read_sections() -> dict[str, str]:
    """Maps the variable of each metric to the heading of a section, for example {"details_skipped": "Metrics of the inspector"}.

    In `streams/metrics.py`, the heading is the comment line above the metrics of a section.
    """
    sections, section = {}, ""
    for line in inspect.getsource(metrics).splitlines():
        if heading := re.match(r"# (.+)", line):
            section = heading[1]
        elif declaration := re.match(r"(\w+) = (Counter|Gauge|Histogram)\(", line):
            sections[declaration[1]] = section
    return sections
