"""`castline evaluate`: judge labelled pictures and compare."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from models.evaluation.evaluation_report import CascadeEvaluation, EvaluationReport


@click.command("evaluate")
@click.option("--model", required=True, help="Folder of a version, or the name of one that the project ships.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder of class folders, or CSV list with the columns path and class; may be repeated.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.html and report.json, with strain tests and a gallery of the errors.",
)
@click.option("--runtime", default="tensorflow", show_default=True, help="What computes the networks.")
@click.option("--cascade", is_flag=True, help="Compare the cascade (LeNet alone where it is certain) with the whole ensemble.")
@click.option("--band", type=(float, float), metavar="LOW HIGH", help="Where LeNet is in doubt; else as the version records.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures for programs.")
def command(
    model: str,
    data: tuple[Path, ...],
    report: Path | None,
    runtime: str,
    cascade: bool,
    band: tuple[float, float] | None,
    as_json: bool,
) -> int:
    """Judge labelled pictures with a version: accuracy, misses, false alarms with 95 % intervals.

    Class folders must be named as the version's classes. Files that cannot be read are listed and left out. Exit codes: 0 done,
    2 wrong option, 3 the version or the pictures are at fault.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from rich.console import Console
    from rich.progress import Progress

    from models.evaluation.evaluation_report import evaluate_cascade, evaluate_version
    from models.evaluation.report_files import write_report
    from models.evaluation.robustness import make_disturbances
    from models.inference.ensemble import open_ensemble
    from models.registry import locate_version
    from models.training.labelled_pictures import find_pictures, read_pictures

    version = locate_version(model)
    entries = find_pictures(data)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        reading = bars.add_task("reading", total=len(entries))
        pictures = read_pictures(
            entries, version.manifest.preprocessing.side_px, version.manifest.classes, on_read=lambda done, total: bars.advance(reading)
        )
        ensemble = open_ensemble(version, runtime)
        judging = bars.add_task("judging", total=len(pictures) * (1 + len(make_disturbances()) if report else 1))
        found = evaluate_version(ensemble, pictures, with_robustness=report is not None, advance=lambda count: bars.advance(judging, count))
        compared = evaluate_cascade(found, open_ensemble(version, runtime, cascade=True, band=band), pictures) if cascade else None
    if as_json:
        more = {"cascade": compared.to_json()} if compared else {}
        click.echo(json.dumps({"model": version.name, "threshold": version.manifest.threshold, **found.to_json(), **more}, indent=2))
    else:
        _tell(version.name, found)
        if compared:
            _tell_cascade(compared)
    if report:
        click.echo(f"report: {write_report(report, version, found)}", err=as_json)
    return 0


def _tell(name: str, found: EvaluationReport) -> None:
    figures = found.figures
    click.echo(f"version {name} on {figures.pictures} pictures ({figures.defects} defective), {found.pictures_per_s:.0f} a second")
    click.echo(f"  accuracy      {figures.accuracy}")
    click.echo(f"  precision     {figures.precision}")
    click.echo(f"  recall        {figures.recall}")
    click.echo(f"  F1            {figures.f1:.4f}")
    click.echo(f"  misses        {figures.misses}")
    click.echo(f"  false alarms  {figures.false_alarms}")
    click.echo(f"  for review    {figures.reviews}")
    for voter, alone in found.voters.items():
        click.echo(f"  {voter} alone at 0.5: accuracy {alone.accuracy}")
    if len(found.sources) > 1:
        for source, part in found.sources.items():
            click.echo(f"  {source}: accuracy {part.accuracy}, misses {part.misses.count}, false alarms {part.false_alarms.count}")
    for bad in found.pictures.unreadable:
        click.echo(f"  left out: {bad.path}: {bad.message}")


def _tell_cascade(compared: CascadeEvaluation) -> None:
    click.echo(f"cascade: {compared.per_s:.0f} a second, against {compared.whole_per_s:.0f} of the whole ensemble")
    click.echo(f"  decided by LeNet alone  {compared.alone}")
    click.echo(f"  labels as the ensemble  {compared.agreement}")
    click.echo(f"  accuracy                {compared.figures.accuracy}")
    click.echo(f"  misses added {compared.misses_added}, false alarms added {compared.alarms_added}")
