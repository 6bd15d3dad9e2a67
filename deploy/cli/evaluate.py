"""`castline evaluate`: judges labelled pictures with a model version, and counts how often it disagrees with their labels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from models.evaluation.evaluation_report import CascadeEvaluation, EvaluationReport


@click.command("evaluate")
@click.option("--model", required=True, help="Folder of a model version, or the name of a version that comes with Castline.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder with a subfolder of pictures for each class, or CSV list with the columns path and class. The option may be repeated.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a report to this folder: report.html, report.json and PNG files. It includes robustness tests and pictures of the errors.",
)
@click.option(
    "--depth-bits",
    type=click.IntRange(8, 16),
    help="For pictures of more than 8 bits: the number of bits that the camera really uses, for example 12 in 16-bit files. The setting "
    "depth_bits of a line has the same meaning.",
)
@click.option("--runtime", default="tensorflow", show_default=True, help="Runtime that computes the networks, for example openvino.")
@click.option(
    "--cascade",
    is_flag=True,
    help="Also judge with the cascade, in which LeNet decides alone if it is certain, and compare it with the whole ensemble.",
)
@click.option(
    "--band",
    type=(float, float),
    metavar="LOW HIGH",
    help="For --cascade: if LeNet's defect probability lies between LOW and HIGH, the other networks judge the picture too. "
    "The default comes from the version.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON for programs.")
def command(
    model: str,
    data: tuple[Path, ...],
    report_folder: Path | None,
    depth_bits: int | None,
    runtime: str,
    cascade: bool,
    band: tuple[float, float] | None,
    as_json: bool,
) -> int:
    """Judge labelled pictures with a model version, and print accuracy, misses and false alarms with 95 % intervals.

    Each subfolder of a --data folder must have the name of a class of the version. Files that cannot be read are listed and left out.

    Exit codes: 0 done, 2 wrong option, 3 the version or the pictures cannot be used.
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
    files = find_pictures(data)
    side_px, classes = version.manifest.preprocessing.side_px, version.manifest.classes
    with Progress(console=Console(stderr=True), transient=True) as bars:
        reading = bars.add_task("reading", total=len(files))
        pictures = read_pictures(files, side_px, classes, depth_bits=depth_bits, on_read=lambda done, total: bars.advance(reading))
        ensemble = open_ensemble(version, runtime)
        judging = bars.add_task("judging", total=len(pictures) * (1 + len(make_disturbances()) if report_folder else 1))
        report = evaluate_version(
            ensemble, pictures, with_robustness=report_folder is not None, advance=lambda count: bars.advance(judging, count)
        )
        comparison = evaluate_cascade(report, open_ensemble(version, runtime, cascade=True, band=band), pictures) if cascade else None
    if as_json:
        values = {"model": version.name, "threshold": version.manifest.threshold, **report.to_json()}
        click.echo(json.dumps(values | ({"cascade": comparison.to_json()} if comparison else {}), indent=2))
    else:
        _echo_report(version.name, report)
        if comparison:
            _echo_cascade(comparison)
    if report_folder:
        click.echo(f"report: {write_report(report_folder, version, report)}", err=as_json)
    return 0


def _echo_report(name: str, report: EvaluationReport) -> None:
    figures = report.figures
    click.echo(f"version {name} on {figures.pictures} pictures ({figures.defects} defective), {report.pictures_per_s:.0f} a second")
    click.echo(f"  accuracy      {figures.accuracy}")
    click.echo(f"  precision     {figures.precision}")
    click.echo(f"  recall        {figures.recall}")
    click.echo(f"  F1            {figures.f1:.4f}")
    click.echo(f"  misses        {figures.misses}")
    click.echo(f"  false alarms  {figures.false_alarms}")
    click.echo(f"  for review    {figures.reviews}")
    for voter, alone in report.voters.items():
        click.echo(f"  {voter} alone at 0.5: accuracy {alone.accuracy}")
    if len(report.sources) > 1:
        for source, part in report.sources.items():
            click.echo(f"  {source}: accuracy {part.accuracy}, misses {part.misses.count}, false alarms {part.false_alarms.count}")
    for unreadable in report.pictures.unreadable:
        click.echo(f"  left out: {unreadable.path}: {unreadable.message}")


def _echo_cascade(comparison: CascadeEvaluation) -> None:
    click.echo(f"cascade: {comparison.per_s:.0f} a second, against {comparison.whole_per_s:.0f} of the whole ensemble")
    click.echo(f"  decided by LeNet alone  {comparison.alone}")
    click.echo(f"  labels as the ensemble  {comparison.agreement}")
    click.echo(f"  accuracy                {comparison.figures.accuracy}")
    click.echo(f"  misses added {comparison.misses_added}, false alarms added {comparison.alarms_added}")
