"""`castline settings`: are they right, what are they, what could they be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import tomli_w
from pydantic_core import to_jsonable_python

from streams.errors import SettingsError
from streams.settings import Settings, load_settings


@click.group("settings")
def command() -> None:
    """Check, show or describe the settings: castline.toml, overridden by CASTLINE_<SECTION>__<NAME>."""


@command.command("check")
@click.pass_obj
def check(file: Path | None) -> int:
    """Read the settings as every process would. Exit status 3, and a line for each problem, when they are refused."""
    try:
        settings = load_settings(file)
    except SettingsError as error:
        for problem in str(error).splitlines():
            click.echo(problem, err=True)
        return 3
    lines = ", ".join(line.name for line in settings.lines) or "none"
    click.echo(f"the settings are right; lines: {lines}; Kafka: {settings.kafka.bootstrap}")
    return 0


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of TOML.")
@click.pass_obj
def show(file: Path | None, as_json: bool) -> None:
    """The settings in force, defaults included; secrets are masked."""
    values = effective(load_settings(file))
    click.echo(json.dumps(values, indent=2) if as_json else tomli_w.dumps(_without_none(values)), nl=as_json)


@command.command("schema")
@click.option("--json", "as_json", is_flag=True, help="JSON Schema, for editors and checks of your own.")
def schema(as_json: bool) -> None:
    """Every setting: its name, type and bounds, default and meaning."""
    if as_json:
        click.echo(json.dumps(Settings.model_json_schema(), indent=2))
        return
    for name, kind, default, meaning in described():
        click.echo(f"{name}  ({kind}; {default})\n    {meaning}")


def effective(settings: Settings) -> dict[str, Any]:
    """All values as JSON types; a secret that is set is masked, one that is not is empty."""
    plain: dict[str, Any] = to_jsonable_python(settings, fallback=str)
    return plain


def _without_none(values: Any) -> Any:
    # TOML has no null: an absent name is the same to us.
    if isinstance(values, dict):
        return {name: _without_none(value) for name, value in values.items() if value is not None}
    return [_without_none(value) for value in values] if isinstance(values, list) else values


def described() -> Iterator[tuple[str, str, str, str]]:
    """Name with its section, type with bounds, default, and meaning of every setting."""
    whole = Settings.model_json_schema()
    yield from _described(whole, whole, "")


def _described(node: Mapping[str, Any], whole: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    required = node.get("required", [])
    for name, found in node["properties"].items():
        section, step = _section(found, whole)
        if section is not None:
            yield from _described(section, whole, f"{prefix}{name}{step}.")
        else:
            default = "required" if name in required else f"default {json.dumps(found.get('default'))}"
            yield f"{prefix}{name}", _kind(found), default, found.get("description", "")


def _section(found: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    for node, step in ((found, ""), (found.get("items", {}), "[]"), *((option, "") for option in found.get("anyOf", []))):
        if "$ref" in node:
            return whole["$defs"][node["$ref"].rpartition("/")[2]], step
    return None, ""


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "pattern": "like"}


def _kind(found: Mapping[str, Any]) -> str:
    options = found.get("anyOf")
    if options:
        return " or ".join(_kind(option) for option in options)
    if "enum" in found:
        return " | ".join(str(word) for word in found["enum"])
    kind = {"null": "none", "password": "secret"}.get(
        found.get("format", found.get("type", "")), found.get("format", found.get("type", "any"))
    )
    if kind == "array":
        kind = f"list of {found.get('items', {}).get('type', 'any')}"
    bounds = " ".join(f"{sign} {found[word]}" for word, sign in _BOUNDS.items() if word in found)
    return f"{kind} {bounds}".strip()
