"""`castline models`: the versions on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from deploy.cli import models_choice
from models.registry import BUNDLED_VERSIONS, RemoteRegistry, add_drift_reference, locate_version, open_registry, parse_remote_url
from streams.errors import ModelError

ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=BUNDLED_VERSIONS,
    show_default="the versions that the project ships",
    help="Folder of the versions, or an fsspec address.",
)


@click.group("models")
def command() -> None:
    """List, show, verify and choose model versions. Exit codes: 0 done, 1 a version is damaged, 3 there is no such version."""


@command.command("list")
@ROOT
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_versions(root: Path, as_json: bool) -> int:
    """The versions below a folder, each verified."""
    import json

    from rich.console import Console
    from rich.table import Table

    rows = []
    for name in open_registry(root).list_names():
        try:
            manifest = open_registry(root).open_version(name).manifest
        except ModelError as error:
            rows.append({"version": name, "state": str(error)})
            continue
        voters = ", ".join(f"{voter.name} {voter.weight:.2f}" for voter in manifest.voters)
        rows.append(
            {
                "version": name,
                "state": "verified",
                "created": f"{manifest.created:%Y-%m-%d %H:%M}",
                "pictures": str(sum(manifest.data.pictures.values())),
                "voters": voters,
                "threshold": f"{manifest.threshold:.4f}",
                "accuracy": f"{manifest.figures.get('accuracy', float('nan')):.4f}",
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        table = Table("version", "state", "created", "pictures", "voters", "threshold", "accuracy", title=str(root))
        for row in rows:
            table.add_row(*(row.get(str(column.header), "") for column in table.columns))
        Console().print(table)
    return 0 if all(row["state"] == "verified" for row in rows) else 1


@command.command("show")
@click.argument("version")
def show(version: str) -> None:
    """The manifest of VERSION: a folder, or the name of a version that the project ships."""
    click.echo(locate_version(version).manifest.model_dump_json(indent=2, by_alias=True))


@command.command("verify")
@click.argument("version")
@click.option("--runtime", default="tensorflow", show_default=True, help="Runtime that must judge the golden set as recorded.")
def verify(version: str, runtime: str) -> int:
    """Check VERSION's files against their checksums, and its golden set against its answers."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.inference.golden_set import compare_golden_set
    from models.inference.runtimes.runtime import open_runtime

    found = locate_version(version)
    opened = open_runtime(found, runtime, (8,))
    agreement = compare_golden_set(found, opened)
    good = agreement.same_labels and agreement.distance <= found.manifest.golden.tolerance
    click.echo(
        f"{found.folder}: {len(found.manifest.files)} files as recorded; golden set of {agreement.pictures} pictures on {opened.name}: "
        f"labels {'same' if agreement.same_labels else 'differ'}, largest distance {agreement.distance:.5f} "
        f"(allowed {found.manifest.golden.tolerance})"
    )
    return 0 if good else 1


@command.command("push")
@click.argument("version")
@click.option("--to", "url", required=True, help="Folder of versions as an fsspec address, such as s3://bucket/castline/versions.")
def push(version: str, url: str) -> None:
    """Copy VERSION to a shelf that other machines take their versions from (`model.root` of the settings), its manifest last."""

    if parse_remote_url(url) is None:
        raise click.BadParameter(f"expected an address such as s3://bucket/castline/versions, found {url!r}", param_hint="--to")
    click.echo(RemoteRegistry(url).push(locate_version(version)))


@command.command("make-demo")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new version.")
def make_demo(out: Path) -> int:
    """Make the weights again that the project ships: trained on rendered castings only, a quarter of an hour on two cores."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from deploy.cli.train import echo_result
    from models.synthetic.demo_version import make_demo_version
    from models.training.progress_bars import ProgressBars

    out = out.absolute()
    with ProgressBars() as bars:
        result = make_demo_version(out.parent, out.name, bars, bars.on_casting_rendered)
    echo_result(result)
    return 130 if result.was_interrupted else 0


@command.command("reference")
@click.argument("version")
@click.option("--data", type=click.Path(path_type=Path), multiple=True, required=True, help="Labelled pictures, as for evaluate.")
def reference(version: str, data: tuple[Path, ...]) -> None:
    """Give VERSION the reference that drift is measured against, where it was made before there was one.

    Brightness, sharpness and defect probability of labelled pictures that it did not learn from, such as those it was evaluated on.
    A training does this by itself.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.evaluation.evaluation_report import evaluate_version
    from models.inference.drift import make_drift_reference
    from models.inference.ensemble import open_ensemble
    from models.training.labelled_pictures import find_pictures, read_pictures

    found = locate_version(version)
    pictures = read_pictures(find_pictures(data), found.manifest.preprocessing.side_px, found.manifest.classes)
    examined = evaluate_version(open_ensemble(found), pictures)
    add_drift_reference(found, make_drift_reference(pictures.pixels, examined.probability, examined.is_defect))
    click.echo(f"{found.folder}: a reference of {len(pictures)} pictures; restart its inspectors to measure against it")


@command.command("optimise")
@click.argument("version")
@click.option("--data", type=click.Path(path_type=Path), multiple=True, help="Pictures that a runtime must label as TensorFlow does, too.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def optimise(version: str, data: tuple[Path, ...], as_json: bool) -> None:
    """Try VERSION on every runtime that is installed here and record the fastest that judges its golden set as recorded.

    Networks are converted on this machine from the version's weights, once, into the user's cache folder. The record stands
    beside the version; `runtime = "auto"` takes it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import json
    from dataclasses import asdict

    from models.inference.runtimes.runtime import RUNTIMES, find_obstacle, open_runtime
    from models.inference.runtimes.selection import select_runtime
    from models.training.labelled_pictures import find_pictures, read_pictures

    left_out = {name: why for name in RUNTIMES if (why := find_obstacle(name))}
    usable = [name for name in RUNTIMES if name not in left_out]
    found = locate_version(version)
    pixels = read_pictures(find_pictures(data), found.manifest.preprocessing.side_px).pixels if data else None
    trial = select_runtime(found, usable, (1, 8, 32), open_runtime, pixels=pixels)
    if as_json:
        click.echo(json.dumps({**asdict(trial), "left_out": left_out}, indent=2))
        return
    for each in trial.measured:
        click.echo(f"{each.runtime:16} batch {each.batch:2}: {each.per_s:7.1f} a second, same labels, distance {each.distance}")
    for name, why in trial.refused.items():
        click.echo(f"{name:16} refused: {why}")
    for name, why in left_out.items():
        click.echo(f"{name:16} left out: {why}")
    click.echo(f"chosen: {trial.chosen}")


@command.command("compare")
@click.argument("first")
@click.argument("second")
@click.option("--data", type=click.Path(path_type=Path), multiple=True, required=True, help="Labelled pictures, as for evaluate.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def compare(first: str, second: str, data: tuple[Path, ...], as_json: bool) -> None:
    """Judge labelled pictures with two versions and list those they judge differently."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import json

    from models.evaluation.evaluation_report import evaluate_version, list_differences
    from models.inference.ensemble import open_ensemble
    from models.training.labelled_pictures import find_pictures, read_pictures

    entries = find_pictures(data)
    found = []
    for name in (first, second):
        version = locate_version(name)
        pictures = read_pictures(entries, version.manifest.preprocessing.side_px, version.manifest.classes)
        found.append(evaluate_version(open_ensemble(version), pictures))
    apart = list_differences(*found)
    if as_json:
        shown = [{"version": name, **each.figures.model_dump()} for name, each in zip((first, second), found, strict=True)]
        click.echo(json.dumps({"versions": shown, "list_differences": apart}, indent=2))
        return
    for name, each in zip((first, second), found, strict=True):
        figures = each.figures
        click.echo(f"{name}: accuracy {figures.accuracy}, misses {figures.misses.count}, false alarms {figures.false_alarms.count}")
    click.echo(f"judged differently: {len(apart)}")
    for row in apart:
        click.echo(f"  {row['path']} ({row['class']}): {row['first']} / {row['second']}")


for _choice in (models_choice.choose, models_choice.shadow, models_choice.roll_back, models_choice.status):
    command.add_command(_choice)
