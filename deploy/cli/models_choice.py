"""`castline models choose | shadow | roll-back | status`: which version judges which line, told to the running inspectors over Kafka."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from agents.inspector.model_switcher import classes, named
from models.registry import Version, open_registry
from streams.errors import ModelError
from streams.identity import format_time
from streams.model_choices import ALL_LINES, EffectiveModel, ModelChoices, publish_model_choice, read_model_choices
from streams.records import ModelChoice
from streams.settings import Settings, load_settings

ROLE = "models"
LINE = click.option("--line", "line", help="One line; all lines without a choice of their own where absent.")


@click.command("choose")
@click.argument("version")
@LINE
@click.option("--force", is_flag=True, help="Even when its classes are not those of the version in force.")
@click.pass_obj
def choose(file: Path | None, version: str, line: str | None, force: bool) -> None:
    """Put VERSION in force on running inspectors, from their next batch on.

    Its files are verified first, here and by every inspector, which also judges its golden set; where that fails the
    version before goes on, and the inspector says why. Chosen once more, a version that stayed out is tried again.
    """
    settings, key = _settings_and_key(file, line)
    chosen = open_registry(settings.model.root).open_version(version)
    choices = read_model_choices(settings, ROLE)
    if not force:
        _expect_same_classes(settings, chosen, choices, key)
    _publish(settings, choices, choices.make_choice(key, version, _who(), datetime.now(UTC), force))


@click.command("shadow")
@click.argument("version")
@LINE
@click.pass_obj
def shadow(file: Path | None, version: str, line: str | None) -> None:
    """Let VERSION judge silently beside the one in force, in idle time only; `none` ends it.

    What it says is counted and logged, never acted on. With --line, the line keeps the version that is in force on it
    from now on, whatever is chosen for all lines later.
    """
    settings, key = _settings_and_key(file, line)
    beside = None if version == "none" else open_registry(settings.model.root).open_version(version).name
    choices = read_model_choices(settings, ROLE)
    if beside == choices.find(key).version:
        raise ModelError(f"expected a version other than the one in force for {key}, found {beside}")
    _publish(settings, choices, choices.make_shadow_choice(key, beside, _who(), datetime.now(UTC)))


@click.command("roll-back")
@LINE
@click.pass_obj
def roll_back(file: Path | None, line: str | None) -> None:
    """Put the version before in force again; once more goes one further back, up to eight."""
    settings, key = _settings_and_key(file, line)
    choices = read_model_choices(settings, ROLE)
    record = choices.make_roll_back(key, _who(), datetime.now(UTC))
    open_registry(settings.model.root).open_version(record.version)
    _publish(settings, choices, record)


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def status(file: Path | None, as_json: bool) -> int:
    """What is chosen for each line, and whether it is whole on this machine.

    What an inspector really serves is castline_model_info of its /metrics. Exit status 1 when a version is not whole here.
    """
    settings = load_settings(file)
    choices = read_model_choices(settings, ROLE)
    rows = [_row(settings, line.name, choices.find(line.name)) for line in settings.lines]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            beside = f", shadow {row['shadow']}" if row["shadow"] else ""
            by = f", by {row['chosen_by']} at {row['chosen_at']}" if row["chosen_by"] else ""
            back = f", before it {', '.join(row['previous'])}" if row["previous"] else ""
            click.echo(f"{row['line']}: {row['version']}{beside} (chosen for {row['chosen_for']}{by}{back}); {row['state']}")
    return 0 if all(row["state"] == "verified" for row in rows) else 1


def _settings_and_key(file: Path | None, line: str | None) -> tuple[Settings, str]:
    settings = load_settings(file)
    return settings, settings.find_line(line).name if line is not None else ALL_LINES


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _publish(settings: Settings, choices: ModelChoices, record: ModelChoice) -> None:
    before = choices.find(record.line)
    publish_model_choice(settings, record, ROLE)
    where = "all lines without a choice of their own" if record.line == ALL_LINES else record.line
    beside = f", with {record.shadow} in its shadow" if record.shadow else ""
    was = f"before: {before.version}" if before.version != record.version else "as before"
    click.echo(f"{where}: {record.version} is chosen{beside} ({was})")


def _expect_same_classes(settings: Settings, chosen: Version, choices: ModelChoices, key: str) -> None:
    """Raises ModelError: when the version in force on a line that `key` stands for has other classes."""
    lines = [key] if key != ALL_LINES else [line.name for line in settings.lines if line.name not in choices.by_key]
    for line in lines:
        try:
            now = open_registry(settings.model.root).open_version(choices.find(line).version)
        except ModelError as error:
            raise ModelError(f"the classes of the version in force on {line} cannot be compared ({error}); choose with --force") from None
        if classes(now) != classes(chosen):
            raise ModelError(
                f"expected the classes of {now.name}, in force on {line}: {named(now)}; found those of {chosen.name}: {named(chosen)}; "
                "--force chooses it all the same"
            )


def _row(settings: Settings, line: str, now: EffectiveModel) -> dict[str, str | list[str] | None]:
    choice = now.choice
    return {
        "line": line,
        "version": now.version,
        "shadow": now.shadow,
        "chosen_for": now.decided_for,
        "chosen_by": choice.chosen_by if choice else None,
        "chosen_at": format_time(choice.chosen_at) if choice else None,
        "previous": list(choice.previous) if choice else [],
        "state": _state(settings, [name for name in (now.version, now.shadow) if name]),
    }


def _state(settings: Settings, versions: Iterable[str]) -> str:
    for name in versions:
        try:
            open_registry(settings.model.root).open_version(name)
        except ModelError as error:
            return str(error)
    return "verified"
