"""The command `castline settings`: checks the settings, shows their values, and describes every setting."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import tomli_w
from pydantic_core import to_jsonable_python

from streams.errors import SettingsError
from streams.settings import Settings, load_settings


@click.group("settings")
def command() -> None:
    """Check, show or describe the settings. The environment variables CASTLINE_<SECTION>__<NAME> override the settings in castline.toml."""


@command.command("check")
@click.pass_obj
def check(file: Path | None) -> int:
    """Check the settings. If they are wrong, the command prints a line for each problem and ends with exit status 3."""
    try:
        settings = load_settings(file)
    except SettingsError as error:
        for problem in str(error).splitlines():
            click.echo(problem, err=True)
        return 3
    lines = ", ".join(line.name for line in settings.lines) or "none"
    click.echo(f"The settings are valid. Lines: {lines}. Kafka: {settings.kafka.bootstrap}.")
    return 0


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of TOML.")
@click.pass_obj
def show(file: Path | None, as_json: bool) -> None:
    """Show the values of all settings, defaults included. Secrets are masked, also within addresses."""
    values: dict[str, Any] = to_jsonable_python(load_settings(file), fallback=str)
    click.echo(json.dumps(values, indent=2) if as_json else tomli_w.dumps(_without_none(values)), nl=as_json)


def _without_none(values: Any) -> Any:
    """Removes the settings whose value is None, because TOML has no None."""
    if isinstance(values, dict):
        return {name: _without_none(value) for name, value in values.items() if value is not None}
    return [_without_none(value) for value in values] if isinstance(values, list) else values


@command.command("schema")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON Schema of the settings. Editors and other programs can use it to check a settings file.",
)
def schema(as_json: bool) -> None:
    """Describe every setting: name, type, bounds, default and meaning."""
    if as_json:
        click.echo(json.dumps(Settings.model_json_schema(), indent=2))
        return
    for setting in describe_settings():
        click.echo(f"{setting.name}  ({setting.kind}; {setting.default})\n    {setting.meaning}")


class SettingDescription(NamedTuple):
    """The description of one setting.

    - `name`: with the section, for example `batch.size`.
    - `kind`: type and bounds, for example `integer >= 1`.
    - `default`: "required", or "default " with the value as JSON.
    """

    name: str
    kind: str
    default: str
    meaning: str


def describe_settings() -> Iterator[SettingDescription]:
    """Yields the description of every setting, in the order of the schema."""
    root = Settings.model_json_schema()
    yield from _describe_section(root, root, "")


def _describe_section(section: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[SettingDescription]:
    required = section.get("required", [])
    for name, schema_of_name in section["properties"].items():
        subsection, suffix = _resolve_section(schema_of_name, root)
        if subsection is not None:
            yield from _describe_section(subsection, root, f"{prefix}{name}{suffix}.")
        else:
            default = "required" if name in required else f"default {json.dumps(schema_of_name.get('default'))}"
            yield SettingDescription(f"{prefix}{name}", _describe_type(schema_of_name), default, schema_of_name.get("description", ""))


def _resolve_section(schema_of_name: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """Returns the JSON schema of a section, and a suffix for the section's name.

    The suffix is "[]" if the settings can have several such sections, as with `lines[]`. Otherwise the suffix is "". Returns None and "" if
    `schema_of_name` describes a single setting and no section.
    """
    items = schema_of_name.get("items", {})
    options = schema_of_name.get("anyOf", [])
    for node, suffix in ((schema_of_name, ""), (items, "[]"), *((option, "") for option in options)):
        if "$ref" in node:
            return root["$defs"][node["$ref"].rpartition("/")[2]], suffix
    return None, ""


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "pattern": "like"}
_TYPE_NAMES = {"null": "none", "password": "secret"}


def _describe_type(schema_of_name: Mapping[str, Any]) -> str:
    options = schema_of_name.get("anyOf")
    if options:
        return " or ".join(_describe_type(option) for option in options)
    if "enum" in schema_of_name:
        return " | ".join(str(word) for word in schema_of_name["enum"])
    kind = schema_of_name.get("format", schema_of_name.get("type", "any"))
    kind = _TYPE_NAMES.get(kind, kind)
    if kind == "array":
        kind = f"list of {schema_of_name.get('items', {}).get('type', 'any')}"
    bounds = " ".join(f"{sign} {schema_of_name[word]}" for word, sign in _BOUNDS.items() if word in schema_of_name)
    return f"{kind} {bounds}".strip()
