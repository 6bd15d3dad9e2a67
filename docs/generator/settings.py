"""The page of the settings."""

from __future__ import annotations

from collections import defaultdict

from deploy.cli.settings import describe_settings
from docs.generator.tables import page, table
from streams.settings import FILE_VARIABLE, VARIABLE_PREFIX, Settings

_INTRODUCTION = f"""Settings are read from a file (`--settings FILE`, else the one that `{FILE_VARIABLE}` names, else
`castline.toml` where it exists); the environment overrides it. An unknown name or a value out of bounds is refused
at the start. `castline settings check` says whether they are right, `castline settings show` what is in force.

Secrets belong in the environment or a file, never in `castline.toml`."""
_LINES = f"""The lines are one list. In the environment they are given whole, as JSON: `{VARIABLE_PREFIX}LINES='[{{"name": "line-1"}}]'`."""


def pages() -> dict[str, str]:
    sections: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for name, kind, default, meaning in describe_settings():
        section, _, setting = name.rpartition(".")
        sections[section].append(
            (f"`{setting}`", _variable(section, setting), f"`{kind}`", f"`{default.removeprefix('default ')}`", meaning)
        )
    parts = [_INTRODUCTION]
    for section, rows in sections.items():
        title = section.replace("[]", "")
        head: tuple[str, ...] = ("setting", "variable", "type and bounds", "default", "meaning")
        parts.append(f"## [[{title}]]" if section.endswith("[]") else f"## [{title}]")
        if "[]" in section:
            parts.append(_LINES if section == "lines[]" else "Within each of `[[lines]]`.")
            rows, head = [(row[0], *row[2:]) for row in rows], (head[0], *head[2:])
        else:
            parts.append(f"{Settings.model_fields[section].description}")
        parts.append(table(head, rows))
    return {"settings.md": page("Settings", *parts)}


def _variable(section: str, setting: str) -> str:
    return f"`{VARIABLE_PREFIX}{section.upper()}__{setting.upper()}`"
