"""The command `castline lines`: shows and changes the settings of a line while it runs, such as its share of defects.

The settings are records on a Kafka topic, which all inspectors follow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydantic import ValidationError

from deploy.cli.labelled_data import DEPTH_BITS_OF_VERSION, choose_depth_bits, echo_learned, echo_unreadable
from deploy.cli.replay import TimeParameter
from models.inference.line_outlook import PARTS_PER_HOUR as DEFAULT_PARTS_PER_HOUR
from models.inference.line_outlook import LineComparison, Outlook, compare_settings, find_share, make_present_outlook
from models.inference.line_threshold import DecisionRule, make_decision_rule
from models.registry import Manifest, open_plant_registry
from streams.errors import ModelError, SettingsError
from streams.identity import format_time
from streams.live_line_settings import LiveSettingsByLine, publish_live_line_settings, read_live_line_settings
from streams.model_choices import ModelChoices, read_model_choices
from streams.printable import make_printable
from streams.records import MAX_REGIONS, MIN_REGION_AREA, LiveLineSettings, Region, RegionPoint
from streams.settings import Settings, load_settings

ROLE = "lines"
_MIN_SHARE = 0.00001
# The settings that the option --clear can remove. Each is mapped to its field in LiveLineSettings, and to the value of the field after the
# removal.
_FIELDS: Mapping[str, tuple[str, Any]] = {
    "defect-share": ("defect_share", None),
    "threshold": ("threshold", None),
    "miss-risk": ("miss_risk", None),
    "review-anomalies": ("review_anomalies", None),
    "mm-per-px": ("mm_per_px", None),
    "inspect": ("inspect_regions", ()),
    "ignore": ("ignore_regions", ()),
    "planned-stop-until": ("planned_stop_until", None),
}
_BOX_NUMBERS = 4

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
PARTS_PER_HOUR = click.option(
    "--parts-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_PARTS_PER_HOUR,
    show_default=True,
    help="Number of parts an hour on the line. The expected rejects and misses are computed from it.",
)


class RegionParameter(click.ParamType):
    """Parses a region: a rectangle LEFT,TOP,RIGHT,BOTTOM, or a polygon of at least three corners X,Y separated by spaces."""

    name = "region"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Region:
        if isinstance(value, Region):
            return value
        try:
            corners = [tuple(float(number) for number in corner.split(",")) for corner in str(value).split()]
            if len(corners) == 1 and len(corners[0]) == _BOX_NUMBERS:
                left, top, right, bottom = corners[0]
                if left >= right or top >= bottom:
                    raise ValueError
                corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            region = Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in corners))
        except ValueError:
            self.fail(
                f"{value!r} is not a region. Give LEFT,TOP,RIGHT,BOTTOM, such as 0.1,0.1,0.9,0.8, or at least three corners X,Y, such as "
                '"0.5,0.1 0.9,0.9 0.1,0.9". All numbers are shares of the picture, from 0 to 1.',
                param,
                ctx,
            )
        if region.area < MIN_REGION_AREA:
            self.fail(f"{value!r} is too small. A region has at least {MIN_REGION_AREA:.2%} of the picture's area.", param, ctx)
        return region


@click.group("lines")
def command() -> None:
    """Show and change the settings of a line while it runs, such as threshold and share of defects.

    Inspectors apply a change from their next batch on.

    Exit codes: 0 done, 2 wrong option, 3 not done because of the settings, the model version or Kafka.
    """


@command.command("show")
@click.option("--line", "line", help="Show this line only.  [default: all lines]")
@PARTS_PER_HOUR
@AS_JSON
@click.pass_obj
def show(file: Path | None, line: str | None, parts_per_hour: float, as_json: bool) -> None:
    """Show the settings of the lines, the present threshold, and how many rejects and misses per hour are expected."""
    settings = load_settings(file)
    lines = [settings.find_line(line).name] if line is not None else [one.name for one in settings.lines]
    live, choices = read_live_line_settings(settings, ROLE), read_model_choices(settings, ROLE)
    rows = [_describe_line(settings, name, live, choices, parts_per_hour) for name in lines]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo("\n".join(map(make_printable, _format_line(row))))


@command.command("set")
@click.option("--line", "line", required=True, help="Name of the line.")
@click.option(
    "--defect-share",
    type=click.FloatRange(_MIN_SHARE, 1 - _MIN_SHARE),
    help="Expected share of defective parts on the line, such as 0.01. The threshold is computed from this share and from the costs of the "
    "model version.",
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Lowest defect probability that counts as a defect. Overrides --defect-share."
)
@click.option(
    "--miss-risk",
    type=click.FloatRange(_MIN_SHARE, 1 - _MIN_SHARE),
    help="Largest share of the defective parts that may get the label ok. With 0.01, at most 1 of 100 defective parts is expected to pass. "
    "Parts that are not certain enough get the label review. A smaller risk needs a model version with more defective validation pictures.",
)
@click.option(
    "--review-anomalies/--no-review-anomalies",
    default=None,
    help="Use the model version's scorer, which has learned from good parts alone. A part that the networks call good gets the label "
    "review if its score is above the cut-off of the scorer.",
)
@click.option("--mm-per-px", type=click.FloatRange(0, 1000, min_open=True), help="Millimetres on the part for each pixel of the picture.")
@click.option(
    "--inspect",
    type=RegionParameter(),
    multiple=True,
    help="Region of the picture to inspect: LEFT,TOP,RIGHT,BOTTOM, or corners X,Y separated by spaces. All numbers are from 0 to 1. "
    "Anomaly scores and heat maps only use these regions, but the networks of the ensemble still judge the whole picture. "
    "May be repeated. The new regions replace all earlier ones.",
)
@click.option(
    "--ignore",
    type=RegionParameter(),
    multiple=True,
    help="Region of the picture to ignore, in the format of --inspect. May be repeated. The new regions replace all earlier ones.",
)
@click.option("--planned-stop-until", type=TimeParameter(), help="End of a planned stop of the line, such as 2026-01-31T12:00:00Z.")
@click.option("--clear", type=click.Choice(list(_FIELDS)), multiple=True, help="Remove this setting of the line. May be repeated.")
@PARTS_PER_HOUR
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@AS_JSON
@click.pass_obj
def set_line(
    file: Path | None, /, line: str, clear: tuple[str, ...], parts_per_hour: float, yes: bool, as_json: bool, **given: Any
) -> None:
    """Change settings of a line. Settings that are not named stay as they are.

    If the change affects labels, the command first shows how many rejects and misses per hour are expected, and asks for confirmation.
    """
    settings = load_settings(file)
    name = settings.find_line(line).name
    changes = _collect_changes(given, clear)
    live, choices = read_live_line_settings(settings, ROLE), read_model_choices(settings, ROLE)
    before = live.find(name) or LiveLineSettings(line=name, set_by="", set_at=datetime.now(UTC))
    try:
        record = before.copy_with(**changes, set_by=settings.service.name_user(), set_at=datetime.now(UTC))
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"No inspector would accept these settings: {first['loc'][0]}: {first['msg']}.") from error
    manifest = open_plant_registry(settings).read_manifest(choices.find(name).version)
    if changes.get("review_anomalies") and not (manifest.scorers or manifest.details):
        raise ModelError(
            f"Version {manifest.version}, which judges {name}, has no scorer that has learned from good parts alone. Choose a version with "
            "a scorer first. castline train --scorer makes such a version."
        )
    comparison = compare_settings(manifest, before, record, parts_per_hour)
    if not as_json:
        for sentence in _format_comparison(comparison):
            click.echo(sentence)
        if record.threshold is not None and record.defect_share is not None:
            click.echo("The threshold overrides the share of defects. To use the share, remove the threshold with --clear threshold.")
    if record.decision != before.decision and not yes:
        click.confirm(f"Change the settings of {name}?", abort=True, err=True)
    publish_live_line_settings(settings, record, ROLE)
    if as_json:
        result = {"settings": json.loads(record.encode()), "decision": record.decision, "before": None, "after": None}
        click.echo(json.dumps(result | {"before": asdict(comparison.before), "after": asdict(comparison.after)}, indent=2))
    else:
        click.echo(f"The settings of {name} are changed. Inspectors apply them from their next batch on.")


def _collect_changes(given: Mapping[str, Any], clear: tuple[str, ...]) -> dict[str, Any]:
    """Returns the settings that the options change, with their new values.

    Raises click.UsageError if the options are wrong, for example if no option changes anything.
    """
    fields = {"inspect": "inspect_regions", "ignore": "ignore_regions"}
    changes = {fields.get(name, name): value for name, value in given.items() if value not in (None, ())}
    for name in ("inspect_regions", "ignore_regions"):
        if len(changes.get(name, ())) > MAX_REGIONS:
            raise click.UsageError(
                f"There are {len(changes[name])} regions to {name.removesuffix('_regions')}, but at most {MAX_REGIONS} are possible. "
                "Leave out some of them."
            )
    for option in clear:
        name, unset = _FIELDS[option]
        if name in changes:
            raise click.UsageError(f"The command both sets and clears {option}. Do only one of the two.")
        changes[name] = unset
    if not changes:
        raise click.UsageError("There is nothing to change. Give at least one setting, such as --defect-share 0.01, or --clear.")
    return changes


def _format_comparison(comparison: LineComparison) -> list[str]:
    if comparison.before == comparison.after:
        return []
    lines = []
    if comparison.line_share is not None:
        lines.append(f"{comparison.title}:")
    for title, outlook in (("before", comparison.before), ("after", comparison.after)):
        lines.append(f"  {title:7}{outlook.describe()}")
    return lines


def _describe_line(settings: Settings, line: str, live: LiveSettingsByLine, choices: ModelChoices, parts_per_hour: float) -> dict[str, Any]:
    """Returns what `castline lines show` prints about a line. If its model version cannot be read, `problem` says why."""
    record, version = live.find(line), choices.find(line).version
    row: dict[str, Any] = {
        "line": line,
        "version": version,
        "settings": json.loads(record.encode()) if record else None,
        "decision": record.decision if record else "",
        "parts_per_hour": parts_per_hour,
        "defect_share": record.defect_share if record else None,
        "outlook": None,
        "problem": "",
    }
    try:
        manifest = open_plant_registry(settings).read_manifest(version)
        share = find_share(manifest, record)
        row |= {"defect_share": share, "outlook": asdict(make_present_outlook(manifest, record, share, parts_per_hour))}
    except ModelError as error:
        row["problem"] = str(error)
    return row


def _format_line(row: Mapping[str, Any]) -> list[str]:
    record: LiveLineSettings | None = LiveLineSettings.model_validate(row["settings"]) if row["settings"] else None
    by = f", set by {record.set_by} at {format_time(record.set_at)}" if record else ", nothing set"
    lines = [f"{row['line']}: version {row['version']}{by}"]
    for option, (name, unset) in _FIELDS.items():
        value = getattr(record, name, unset)
        if value != unset:
            shown = f"{len(value)} regions" if isinstance(value, tuple) else format_time(value) if isinstance(value, datetime) else value
            lines.append(f"  {option}: {shown}")
    if row["outlook"]:
        share = f" at {row['parts_per_hour']:g} parts an hour and {row['defect_share']:.3%} defects" if row["defect_share"] else ""
        lines.append(f"  {Outlook(**row['outlook']).describe()}{share}")
    return lines + ([f"  {row['problem']}"] if row["problem"] else [])


@command.command("estimate")
@click.argument("line")
@click.option(
    "--newest",
    type=click.IntRange(100, 10_000_000),
    default=100_000,
    show_default=True,
    help="Use at most this many parts of the line. The newest parts are used.",
)
@PARTS_PER_HOUR
@AS_JSON
@click.pass_obj
def estimate(file: Path | None, line: str, newest: int, parts_per_hour: float, as_json: bool) -> None:
    """Estimate the share of defective parts on LINE, and show how many rejects and misses to expect with this share.

    The estimate is computed from the defect probabilities of the parts. If people have reviewed at least 20 parts,
    the reviews correct the estimate.

    This command changes nothing. To use the estimate, call castline lines set.
    """
    from station.configuration import configure

    settings = load_settings(file)
    name = settings.find_line(line).name
    configure(settings)
    from station.archive.database import find_database_fault
    from station.line_settings.share_estimate import estimate_share

    if fault := find_database_fault():
        raise SettingsError(f"The parts of {name} cannot be read, because {fault}. Start the database, or correct station.database.")
    live, choices = read_live_line_settings(settings, ROLE), read_model_choices(settings, ROLE)
    manifest = open_plant_registry(settings).read_manifest(choices.find(name).version)
    found = estimate_share(name, manifest, newest)
    before = live.find(name) or LiveLineSettings(line=name, set_by="", set_at=datetime.now(UTC))
    comparison = compare_settings(manifest, before, before.model_copy(update={"defect_share": found.share}), parts_per_hour)
    titled = {"from probabilities": found.uncorrected, "corrected by reviews": found.corrected}
    estimates = {title: one for title, one in titled.items() if one}
    since = format_time(found.since)
    if as_json:
        values = {"line": name, "version": manifest.version, "parts": found.parts, "reviewed": found.reviewed, "since": since}
        values |= {"defect_share": before.defect_share, "estimates": {key: asdict(one) for key, one in estimates.items()}}
        click.echo(json.dumps(values | {"before": asdict(comparison.before), "after": asdict(comparison.after)}, indent=2))
        return
    click.echo(f"{name}, version {manifest.version}: {found.parts} parts since {since}, {found.reviewed} of them reviewed")
    for title, one in estimates.items():
        click.echo(f"  share of defects {title}: {one.value:.3%} (95 %: {one.low:.3%} to {one.high:.3%})")
    if found.warning:
        click.echo(f"  {found.warning}")
    click.echo(f"  share of defects that is set: {'none' if before.defect_share is None else f'{before.defect_share:.3%}'}")
    for sentence in _format_comparison(comparison):
        click.echo(f"  {sentence}")
    click.echo(f"To use this share: castline lines set --line {name} --defect-share {found.share:g}")


@command.command("simulate")
@click.option("--model", required=True, help="Folder of a model version, or the name of a version that comes with Castline.")
@click.option(
    "--split",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file split.csv that the training of the version MODEL wrote. The simulation uses the validation pictures in this file.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Labelled pictures, instead of --split: a folder with a subfolder for each class, or a CSV list with the columns path and class. "
    "The version must not have learned from these pictures. You can repeat the option.",
)
@click.option(
    "--defect-share", type=click.FloatRange(_MIN_SHARE, 1 - _MIN_SHARE), required=True, help="Share of defective parts on the line."
)
@click.option(
    "--miss-risk",
    type=click.FloatRange(_MIN_SHARE, 1 - _MIN_SHARE),
    help="Also simulate the rule of castline lines set --miss-risk: at most this share of the defective parts gets the label ok.",
)
@click.option(
    "--costs",
    type=(float, float, float),
    default=(10, 1, 1),
    show_default=True,
    metavar="MISS FALSE-ALARM REVIEW",
    help="Costs of a miss, a false alarm and a review: three numbers in the same currency.",
)
@DEPTH_BITS_OF_VERSION
@click.option("--parts", type=click.IntRange(1000, 10_000_000), default=100_000, show_default=True, help="Number of parts to simulate.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random numbers.")
@AS_JSON
@click.pass_obj
def simulate(
    file: Path | None,
    model: str,
    split: Path | None,
    data: tuple[Path, ...],
    defect_share: float,
    miss_risk: float | None,
    costs: tuple[float, float, float],
    depth_bits: int | None,
    parts: int,
    seed: int,
    as_json: bool,
) -> None:
    """Simulate a line with a given share of defects, and show the mean cost of a part.

    The command judges labelled pictures, and draws the parts of the line from them at random.

    It compares three rules. The first rule lets every part pass. The second rule uses the threshold of the version. The third rule uses
    the threshold that is computed for --defect-share. With --miss-risk, a fourth rule uses both --defect-share and --miss-risk.

    The mean cost of a part is the sum of the costs of all misses, false alarms and reviews, divided by the number of parts. For the 95 %
    interval of the mean cost, near-duplicate pictures count as one casting.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.evaluation.evaluation_report import evaluate_version
    from models.evaluation.line_simulation import PartCosts, estimate_cost_interval, find_validation_pictures, simulate_line
    from models.inference.ensemble import open_ensemble
    from models.registry import locate_version
    from models.registry.manifest import Costs
    from models.training.labelled_pictures import find_pictures, read_pictures
    from models.training.near_duplicates import group_near_duplicates

    if (split is None) == (not data):
        raise click.UsageError("Give either --split or --data.")
    version = locate_version(model)
    part_costs = PartCosts(*costs)
    rules, refused = _make_simulated_rules(
        version.manifest, version.manifest.model_copy(update={"costs": Costs(miss=costs[0], false_alarm=costs[1])}), defect_share, miss_risk
    )
    files = find_validation_pictures(split) if split else find_pictures(data)
    ensemble = open_ensemble(version, detail_time_s=load_settings(file).inspector.detail_time_s)
    depth_bits = choose_depth_bits(depth_bits, version.manifest)
    pictures = read_pictures(files, ensemble.side_px, version.manifest.picture_classes, depth_bits=depth_bits, details=ensemble.details)
    echo_unreadable(pictures)
    echo_learned(pictures, version)
    report = evaluate_version(ensemble, pictures)
    groups = group_near_duplicates(pictures.pixels, pictures.checksums)
    rows = {
        name: simulate_line(report.probability, report.is_defect, rule, defect_share, part_costs, parts, seed)
        for name, rule in rules.items()
    }
    intervals = {
        name: estimate_cost_interval(report.probability, report.is_defect, groups, rule, defect_share, part_costs, seed)
        for name, rule in rules.items()
    }
    castings = {kind: len(np.unique(groups[mask])) for kind, mask in (("good", ~report.is_defect), ("defective", report.is_defect))}
    if as_json:
        values = {
            name: {**asdict(row), "threshold": rule.threshold if (rule := rules[name]) else None, "cost_interval": asdict(intervals[name])}
            for name, row in rows.items()
        }
        result = {"version": version.name, "pictures": len(report.is_defect), "castings": castings, "rules": values, "refused": refused}
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(
        f"version {version.name}, {len(report.is_defect)} pictures of {castings['good']} good and {castings['defective']} defective "
        f"castings; {parts} parts, {defect_share:.3%} defects"
    )
    passing = defect_share * part_costs.miss
    for name, row in rows.items():
        threshold = f" {rule.threshold:.4f}" if (rule := rules[name]) else ""
        low, high = intervals[name].low, intervals[name].high
        interval = f" (95 %: {low:.4f} to {high:.4f}, {low / passing:.2f} to {high / passing:.2f} times that of passing every part)"
        click.echo(
            f"  {name}{threshold}: cost of a part {row.cost_per_part:.4f}{interval if rule else ''}; {row.misses} of {row.defects} defects "
            f"missed, {row.false_alarms} false alarms, {row.reviews} reviews ({row.reviews / row.parts:.2%})"
        )
    for name, reason in refused.items():
        click.echo(f"  {name}: not simulated. {reason}")


def _make_simulated_rules(
    manifest: Manifest, costly: Manifest, defect_share: float, miss_risk: float | None
) -> tuple[dict[str, DecisionRule | None], dict[str, str]]:
    """Returns the decision rules to simulate, and the reason for each rule that cannot be used."""
    rules: dict[str, DecisionRule | None] = {"every part passes": None, "threshold of the version": make_decision_rule(manifest)}
    refused = {}
    wanted = {"threshold for the share": None} | ({f"threshold for the share, miss risk {miss_risk:g}": miss_risk} if miss_risk else {})
    for name, risk in wanted.items():
        try:
            rules[name] = make_decision_rule(costly, line_share=defect_share, miss_risk=risk)
        except ModelError as error:
            refused[name] = str(error)
    return rules, refused
