"""The commands `castline models choose`, `shadow`, `roll-back` and `status`: choose which version judges which line.

A choice is a record on a Kafka topic, which all inspectors read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from models.inference.line_outlook import PARTS_PER_HOUR, VersionComparison, compare_versions
from models.registry import Manifest, open_plant_registry
from streams.errors import CastlineError, ModelError
from streams.identity import format_time
from streams.live_line_settings import LiveSettingsByLine, read_live_line_settings
from streams.model_choices import ALL_LINES, EffectiveModel, ModelChoices, publish_model_choice, read_model_choices
from streams.printable import make_printable
from streams.records import ModelChoice
from streams.settings import Settings, load_settings

ROLE = "models"
LINE = click.option(
    "--line",
    "line",
    help="Name of a line. Without the option, the command applies to all lines for which no version was chosen with --line.",
)


@click.command("choose")
@click.argument("version")
@LINE
@click.option("--force", is_flag=True, help="Choose the version even if its classes differ from the classes of the present version.")
@click.option("--dry-run", is_flag=True, help="Only show the expected rejects and misses, and choose nothing.")
@click.option(
    "--parts-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    default=PARTS_PER_HOUR,
    show_default=True,
    help="Number of parts an hour on the line. The expected rejects and misses are computed from it.",
)
@click.pass_obj
def choose(file: Path | None, version: str, line: str | None, force: bool, dry_run: bool, parts_per_hour: float) -> None:
    """Choose VERSION for the lines: running inspectors load it and judge with it from then on.

    For each line, the command first shows how many rejects and misses per hour are expected before and after the change.

    Each inspector verifies the files of VERSION, and tests it on a few dozen pictures inside VERSION (the golden set). If a check fails,
    the inspector keeps the previous version and logs the reason. To try a refused version again, choose the version again.
    """
    settings, key = _load_settings_and_key(file, line)
    manifest = open_plant_registry(settings).open_version(version).manifest
    choices = read_model_choices(settings, ROLE)
    if not force:
        _check_classes(settings, manifest, choices, key)
    for note in (manifest.describe_training_pictures(), *manifest.all_warnings):
        if note:
            click.echo(note, err=True)
    for comparison in _compare_on_lines(settings, manifest, choices, key, parts_per_hour):
        click.echo(f"{comparison.title}:")
        if comparison.before:
            click.echo(f"  now    {comparison.before.describe()}")
        click.echo(f"  after  {comparison.after.describe()}")
    if dry_run:
        return
    _publish(settings, choices, choices.make_choice(key, version, settings.service.name_user(), datetime.now(UTC), force))


@click.command("shadow")
@click.argument("version")
@LINE
@click.pass_obj
def shadow(file: Path | None, version: str, line: str | None) -> None:
    """Let VERSION judge as a shadow, beside the chosen version. The answers of a shadow are counted and logged, but move no gate.

    If VERSION is `none`, the shadow ends.

    Without --line, the command applies to all lines except those for which a version or a shadow was once chosen with --line.
    """
    settings, key = _load_settings_and_key(file, line)
    name = None if version == "none" else open_plant_registry(settings).open_version(version).name
    choices = read_model_choices(settings, ROLE)
    if name == choices.find(key).version:
        raise ModelError(f"{name} already judges {key}. Choose another version as the shadow.")
    _publish(settings, choices, choices.make_shadow_choice(key, name, settings.service.name_user(), datetime.now(UTC)))


@click.command("roll-back")
@LINE
@click.pass_obj
def roll_back(file: Path | None, line: str | None) -> None:
    """Choose the previous version again. Repeated calls go further back, up to eight versions."""
    settings, key = _load_settings_and_key(file, line)
    choices = read_model_choices(settings, ROLE)
    record = choices.make_roll_back(key, settings.service.name_user(), datetime.now(UTC))
    open_plant_registry(settings).open_version(record.version)
    _publish(settings, choices, record)


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def status(file: Path | None, as_json: bool) -> int:
    """Show which version is chosen for each line, and whether its files on this machine are undamaged.

    Exit codes: 0 all versions are undamaged, 1 a version is missing or damaged on this machine.
    """
    settings = load_settings(file)
    choices = read_model_choices(settings, ROLE)
    rows = [_describe_line(settings, line.name, choices.find(line.name)) for line in settings.lines]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            shadow = f", shadow {row['shadow']}" if row["shadow"] else ""
            by = f", by {row['chosen_by']} at {row['chosen_at']}" if row["chosen_by"] else ""
            previous = f", before it {', '.join(row['previous'])}" if row["previous"] else ""
            text = f"{row['line']}: {row['version']}{shadow} (chosen for {row['chosen_for']}{by}{previous}); {row['state']}"
            click.echo(make_printable(text))
            for note in (row["decoder"], row["training_pictures"]):
                if note:
                    click.echo(f"  {note}")
    return 0 if all(row["state"] == "verified" for row in rows) else 1


def _load_settings_and_key(file: Path | None, line: str | None) -> tuple[Settings, str]:
    """Returns the settings of Castline, and the key of the model choice.

    The key is the name of `line`. If `line` is None, the key is `*`, which means all lines for which no version was chosen separately.
    """
    settings = load_settings(file)
    return settings, settings.find_line(line).name if line is not None else ALL_LINES


def _publish(settings: Settings, choices: ModelChoices, record: ModelChoice) -> None:
    before = choices.find(record.line)
    publish_model_choice(settings, record, ROLE)
    lines = "all lines that have no model choice of their own" if record.line == ALL_LINES else record.line
    shadow = f", with {record.shadow} as its shadow" if record.shadow else ""
    earlier = f"before: {before.version}" if before.version != record.version else "as before"
    click.echo(make_printable(f"{lines}: {record.version} is chosen{shadow} ({earlier})"))


def _find_changed_lines(settings: Settings, choices: ModelChoices, key: str) -> list[str]:
    """Returns the lines whose version can change if a person makes a choice for `key`.

    The key `*` stands for all lines that have no model choice of their own. Any other key is the name of a line.
    """
    return [key] if key != ALL_LINES else [line.name for line in settings.lines if line.name not in choices.by_key]


def _compare_on_lines(
    settings: Settings, manifest: Manifest, choices: ModelChoices, key: str, parts_per_hour: float
) -> list[VersionComparison]:
    registry = open_plant_registry(settings)
    try:
        live = read_live_line_settings(settings, ROLE)
    except CastlineError as error:
        click.echo(f"The settings of the lines cannot be read, so the estimates leave them out: {error}", err=True)
        live = LiveSettingsByLine()
    comparisons = []
    for line in _find_changed_lines(settings, choices, key):
        try:
            present: Manifest | None = registry.read_manifest(choices.find(line).version)
        except ModelError:
            present = None
        comparisons.append(compare_versions(line, present, manifest, live.find(line), parts_per_hour))
    return comparisons


def _check_classes(settings: Settings, manifest: Manifest, choices: ModelChoices, key: str) -> None:
    """Raises ModelError if `manifest` has other classes than the present version of a line.

    Checks the line `key`. If `key` is `*`, checks all lines that have no model choice of their own.
    """
    registry = open_plant_registry(settings)
    for line in _find_changed_lines(settings, choices, key):
        try:
            present = registry.open_version(choices.find(line).version).manifest
        except ModelError as error:
            raise ModelError(
                f"The present version of {line} cannot be read: {error} To choose {manifest.version} without comparing the classes, add "
                "--force."
            ) from None
        if not present.has_same_classes(manifest):
            raise ModelError(
                f"{manifest.version} has the classes {manifest.describe_classes()}. The present version of {line}, {present.version}, has "
                f"{present.describe_classes()}. To choose {manifest.version} nevertheless, add --force."
            )


def _describe_line(settings: Settings, line: str, model: EffectiveModel) -> dict[str, str | list[str] | None]:
    choice = model.choice
    return {
        "line": line,
        "version": model.version,
        "shadow": model.shadow,
        "chosen_for": model.decided_for,
        "chosen_by": choice.chosen_by if choice else None,
        "chosen_at": format_time(choice.chosen_at) if choice else None,
        "previous": list(choice.previous) if choice else [],
        "state": _verify_versions(settings, [name for name in (model.version, model.shadow) if name]),
        **_describe_manifest(settings, model.version),
    }


def _describe_manifest(settings: Settings, name: str) -> dict[str, str]:
    """Returns two warnings about version `name`. A warning is "" if it does not apply.

    - `decoder`: the version was trained with another picture decoder.
    - `training_pictures`: the version was trained on rendered pictures only.
    """
    try:
        manifest = open_plant_registry(settings).read_manifest(name)
    except ModelError:
        return {"decoder": "", "training_pictures": ""}
    return {"decoder": manifest.describe_decoder(), "training_pictures": manifest.describe_training_pictures()}


def _verify_versions(settings: Settings, names: Iterable[str]) -> str:
    """Returns "verified" if all versions are undamaged. Otherwise returns what is wrong with the first missing or damaged version."""
    registry = open_plant_registry(settings)
    for name in names:
        try:
            registry.open_version(name)
        except ModelError as error:
            return str(error)
    return "verified"
