"""The command `castline evaluate`: judges labelled pictures with a model version, and counts the wrong labels."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli.labelled_data import DEPTH_BITS_OF_VERSION, choose_depth_bits, echo_learned
from streams.settings import load_settings

if TYPE_CHECKING:
    from models.evaluation.evaluation_report import CascadeEvaluation, EvaluationReport
    from models.registry.version_report import LocalisationReport


@click.command("evaluate")
@click.option("--model", required=True, help="Folder of a model version, or the name of a version that comes with Castline.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder with a subfolder of pictures for each class, or CSV list with the columns path and class. You can repeat the option.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a report to this folder: report.html, report.json and PNG files. It includes robustness tests and pictures of the errors.",
)
@DEPTH_BITS_OF_VERSION
@click.option("--runtime", default="tensorflow", show_default=True, help="Runtime that computes the networks, for example openvino.")
@click.option(
    "--cascade",
    is_flag=True,
    help="Also judge with the cascade, and compare it with the whole ensemble. In the cascade, LeNet decides alone if it is certain.",
)
@click.option(
    "--band",
    type=(float, float),
    metavar="LOW HIGH",
    help="Limits for --cascade. If LeNet's defect probability is between LOW and HIGH, the other networks judge the picture too. "
    "The version has default limits.",
)
@click.option(
    "--masks",
    "masks_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Compare heat maps with the masks in this folder, which show where the defects are. The mask of def_front/a.jpeg is "
    "def_front/a.png: a grey 8-bit PNG of the same size, with 0 where there is no defect. Needs exactly one --data.",
)
@click.option(
    "--part-value",
    "part_values",
    type=click.IntRange(1, 255),
    multiple=True,
    help="Mask value that means the casting itself and not a defect. May be repeated. Needs --masks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON for programs.")
@click.pass_obj
def command(
    file: Path | None,
    model: str,
    data: tuple[Path, ...],
    report_folder: Path | None,
    depth_bits: int | None,
    runtime: str,
    cascade: bool,
    band: tuple[float, float] | None,
    masks_folder: Path | None,
    part_values: tuple[int, ...],
    as_json: bool,
) -> int:
    """Judge labelled pictures with a model version, and print accuracy, misses and false alarms with 95 % intervals.

    Each subfolder of a --data folder must have the name of a class of the version. If the version has no networks, any name is
    allowed, but the name of the class of good parts must begin with "ok".

    Pictures get the labels that an inspector with the same settings would give. Settings of a single line are not applied.

    With --masks, also print how well each kind of heat map shows where the defects are. At most 500 defective and 500 good pictures are
    used.

    Exit codes: 0 done, 2 wrong option, 3 the version, the pictures or the masks cannot be used.
    """
    if masks_folder and len(data) > 1:
        raise click.UsageError(
            "--masks needs exactly one --data: the pictures that the masks belong to. Evaluate other pictures in another run."
        )
    if part_values and not masks_folder:
        raise click.UsageError("--part-value can only be used together with --masks. Add --masks, or leave out --part-value.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from rich.console import Console
    from rich.progress import Progress

    from models.evaluation.evaluation_report import evaluate_cascade, evaluate_version
    from models.evaluation.localisation import evaluate_localisation, open_heat_sources, read_masked_pictures
    from models.evaluation.report_files import write_report
    from models.evaluation.robustness import make_disturbances
    from models.inference.ensemble import open_ensemble
    from models.registry import locate_version
    from models.training.labelled_pictures import find_pictures, read_pictures

    detail_time_s = load_settings(file).inspector.detail_time_s
    version = locate_version(model)
    depth_bits = choose_depth_bits(depth_bits, version.manifest)
    files = find_pictures(data)
    side_px, classes = version.manifest.preprocessing.side_px, version.manifest.picture_classes
    with Progress(console=Console(stderr=True), transient=True) as bars:
        ensemble = open_ensemble(version, runtime, detail_time_s=detail_time_s)
        reading = bars.add_task("reading", total=len(files))
        pictures = read_pictures(
            files,
            side_px,
            classes,
            depth_bits=depth_bits,
            on_read=lambda done, total: bars.advance(reading),
            details=ensemble.details,
        )
        masked, sources = None, []
        if masks_folder:
            masked = read_masked_pictures(pictures.files, masks_folder, pictures.classes[pictures.ok_class], part_values)
            sources = open_heat_sources(version)
        judging = bars.add_task("judging", total=len(pictures) * (1 + len(make_disturbances()) if report_folder else 1))
        report = evaluate_version(
            ensemble, pictures, with_robustness=report_folder is not None, advance=lambda count: bars.advance(judging, count)
        )
        if masked:
            locating = bars.add_task("locating", total=len(masked.pictures) * len(sources))
            localisation = evaluate_localisation(masked, sources, depth_bits, lambda count: bars.advance(locating, count))
            report = dataclasses.replace(report, localisation=localisation)
        comparison = None
        if cascade:
            cascaded = open_ensemble(version, runtime, cascade=True, band=band, detail_time_s=detail_time_s)
            comparison = evaluate_cascade(report, cascaded, pictures)
    echo_learned(pictures, version)
    if as_json:
        values = {"model": version.name, "threshold": version.manifest.threshold, **report.to_json()}
        click.echo(json.dumps(values | ({"cascade": comparison.to_json()} if comparison else {}), indent=2))
    else:
        _echo_report(version.name, report)
        if report.localisation:
            _echo_localisation(report.localisation)
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
    if figures.roc_auc is not None:
        click.echo(f"  AUROC         {figures.roc_auc:.4f}")
    for voter, alone in report.voters.items():
        click.echo(f"  {voter} alone at 0.5: accuracy {alone.accuracy}")
    if len(report.sources) > 1:
        for source, part in report.sources.items():
            click.echo(f"  {source}: accuracy {part.accuracy}, misses {part.misses.count}, false alarms {part.false_alarms.count}")
    for unreadable in report.pictures.unreadable:
        click.echo(f"  left out: {unreadable.path}: {unreadable.message}")


def _echo_localisation(report: LocalisationReport) -> None:
    from rich.console import Console
    from rich.table import Table

    first = next(iter(report.sources.values()))
    click.echo(f"heat maps of {first.defective} defective pictures ({first.defects} defects in their masks) and {first.good} good ones")
    table = Table("source", "pixel AUROC", "AUPRO 0.3", "AUPIMO", "hottest point within 8 px", "box IoU", box=None)
    for name, figures in report.sources.items():
        shares = (figures.pixel_auroc, figures.aupro, figures.aupimo, figures.box_iou)
        auroc, aupro, aupimo, box_iou = ("none" if share is None else f"{share:.4f}" for share in shares)
        table.add_row(name, auroc, aupro, aupimo, str(figures.pointing), box_iou)
    Console(width=140).print(table)
    for sentence in report.left_out:
        click.echo(f"  {sentence}")


def _echo_cascade(comparison: CascadeEvaluation) -> None:
    click.echo(f"cascade: {comparison.per_s:.0f} a second, against {comparison.whole_per_s:.0f} of the whole ensemble")
    click.echo(f"  decided by LeNet alone  {comparison.alone}")
    click.echo(f"  labels as the ensemble  {comparison.agreement}")
    click.echo(f"  accuracy                {comparison.figures.accuracy}")
    click.echo(f"  misses added {comparison.misses_added}, false alarms added {comparison.alarms_added}")
