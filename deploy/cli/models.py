"""`castline models`: lists, shows, verifies, compares and copies model versions, and chooses which version judges which line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli import models_choice
from deploy.cli.labelled_data import DEPTH_BITS_OF_VERSION, choose_depth_bits, echo_learned, echo_unreadable
from models.registry import (
    BUNDLED_VERSIONS,
    LocalRegistry,
    RemoteRegistry,
    add_drift_reference,
    locate_version,
    open_registry,
    parse_remote_url,
    read_verified_manifest,
)
from models.registry.model_card import make_model_card
from streams.atomic_file import write_atomically
from streams.errors import ModelError, SettingsError
from streams.printable import make_printable
from streams.settings import load_settings
from streams.signatures import sign_manifest

if TYPE_CHECKING:
    from models.evaluation.evaluation_report import EvaluationReport

ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=BUNDLED_VERSIONS,
    show_default="the versions that the project ships",
    help="Folder of the versions, or an fsspec address such as s3://bucket/castline/versions.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
DATA_HELP = "Labelled pictures: a folder of class folders or a CSV list, as for castline evaluate. May be repeated."


@click.group("models")
def command() -> None:
    """List, show, verify and choose model versions.

    Exit codes: 0 done, 1 a version is damaged, 3 there is no such version.
    """


@command.command("list")
@ROOT
@AS_JSON
def list_versions(root: Path, as_json: bool) -> int:
    """List the versions of a folder, and verify their checksums."""
    import json

    from rich.console import Console
    from rich.table import Table

    registry = open_registry(root)
    rows = []
    for name in registry.list_names():
        try:
            manifest = registry.open_version(name).manifest
        except ModelError as error:
            rows.append({"version": name, "state": str(error)})
            continue
        rows.append(
            {
                "version": name,
                "state": "verified",
                "created": f"{manifest.created:%Y-%m-%d %H:%M}",
                "pictures": str(sum(manifest.data.pictures.values())),
                "voters": ", ".join(
                    [f"{voter.name} {voter.weight:.2f}" for voter in manifest.voters]
                    + [scorer.name for scorer in manifest.scorers]
                    + (["details"] if manifest.details else [])
                ),
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
    """Print the manifest of VERSION. VERSION is a folder, or the name of a version that comes with Castline.

    A sentence on standard error says if VERSION was made with another picture decoder than this program uses.
    """
    manifest = locate_version(version).manifest
    click.echo(manifest.model_dump_json(indent=2, by_alias=True))
    if note := manifest.describe_decoder():
        click.echo(note, err=True)


@command.command("card")
@click.argument("version")
@ROOT
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write. Its suffix, .md or .html, gives the format.",
)
def card(version: str, root: Path, out: Path) -> None:
    """Write the model card of VERSION: one page for auditors. VERSION is a folder, or the name of a version in --root.

    The card says from which pictures the version was made, how well it judges, and what its limits are.
    """
    if out.suffix not in (".md", ".html"):
        raise click.BadParameter(f"{out} has the suffix {out.suffix!r}. Choose a name that ends with .md or .html.", param_hint="--out")
    folder = Path(version)
    registry, name = (
        (LocalRegistry(folder.absolute().parent), folder.absolute().name) if folder.is_dir() else (open_registry(root), version)
    )
    made = make_model_card(registry, name)
    try:
        write_atomically(out, made.to_html() if out.suffix == ".html" else made.to_markdown())
    except OSError as error:
        raise ModelError(f"Cannot write {out}: {error.strerror}. Choose another --out.") from error
    click.echo(f"{out}: model card of version {name}")


@command.command("verify")
@click.argument("version")
@click.option(
    "--runtime",
    "runtime_name",
    default="tensorflow",
    show_default=True,
    help="Runtime that judges the golden set, the test pictures of VERSION.",
)
def verify(version: str, runtime_name: str) -> int:
    """Verify that the files of VERSION are unchanged and its networks still give the recorded answers.

    The answers are recorded for a few dozen pictures inside VERSION, the golden set.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.anomaly.version_scorers import open_scorers
    from models.inference.golden_set import compare_golden_scores, compare_golden_set
    from models.inference.runtimes.runtime import open_runtime

    located = locate_version(version)
    comparisons = {}
    if located.manifest.voters:
        runtime = open_runtime(located, runtime_name, (8,))
        comparisons[runtime.name] = compare_golden_set(located, runtime)
    if located.manifest.scorers:
        comparisons["numpy, scores only"] = compare_golden_scores(located, open_scorers(located))
    tolerance = located.manifest.golden.tolerance
    click.echo(f"{located.folder}: {len(located.manifest.files)} files as recorded")
    for name, comparison in comparisons.items():
        click.echo(
            f"golden set of {comparison.pictures} pictures on {name}: "
            f"labels {'same' if comparison.same_labels else 'differ'}, largest distance {comparison.distance:.5f} (allowed {tolerance})"
        )
    if note := located.manifest.describe_decoder():
        click.echo(note)
    return 0 if all(one.same_labels and one.distance <= tolerance for one in comparisons.values()) else 1


@command.command("push")
@click.argument("version")
@click.option("--to", "url", required=True, help="Folder of versions as an fsspec address, such as s3://bucket/castline/versions.")
def push(version: str, url: str) -> None:
    """Copy VERSION to a remote registry. Machines whose setting `model.root` names this registry can then use the version.

    The manifest is copied last. Other machines see the version only when its manifest exists, so they never see an incomplete copy.
    """
    if parse_remote_url(url) is None:
        raise click.BadParameter(f"{url!r} is a local folder. Use an address such as s3://bucket/castline/versions.", param_hint="--to")
    click.echo(RemoteRegistry(url).push(locate_version(version)))


@command.command("sign")
@click.argument("versions", metavar="VERSION...", nargs=-1, required=True)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the versions, or an fsspec address such as s3://bucket/castline/versions. The default is the setting `model.root`.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def sign(file: Path | None, versions: tuple[str, ...], root: Path | None, yes: bool) -> None:
    """Sign the manifest of each VERSION with the private key of the role administrator, from the folder `signing.private_keys`.

    A machine with the setting `signing.public_keys` refuses versions without this signature. The manifest names the checksums of all
    files, so the signature covers the whole version. The command verifies the checksums and shows each version. Then it asks if it may
    sign.
    """
    settings = load_settings(file)
    private_keys = settings.signing.private_keys
    if private_keys is None:
        raise SettingsError("signing.private_keys is not set, so nothing can be signed. Make keys with: castline topics keys")
    registry = open_registry(root or settings.model.root)
    signed = [(registry.open_version(name), registry.read_signature(name)) for name in versions]
    contents = []
    for version, signature in signed:
        content = read_verified_manifest(version)
        contents.append((version.name, content))
        made = f"{version.manifest.created:%Y-%m-%d %H:%M} by {version.manifest.made_by or 'an unknown person'}"
        note = ", has a signature" if signature else ""
        click.echo(f"{version.name}: made {make_printable(made)}, SHA-256 of the manifest {hashlib.sha256(content).hexdigest()}{note}")
    if not yes:
        click.confirm(f"Sign {'this version' if len(signed) == 1 else f'these {len(signed)} versions'}?", abort=True)
    for name, content in contents:
        registry.write_signature(name, sign_manifest(private_keys, name, content))
        click.echo(f"{name} is signed.")


@command.command("make-demo")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new version.")
def make_demo(out: Path) -> int:
    """Train a new copy of the version `demo`, which comes with Castline. It learns from rendered castings only.

    The training takes half an hour on two processor cores.
    """
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
@click.option("--data", type=click.Path(path_type=Path), multiple=True, required=True, help=DATA_HELP)
@DEPTH_BITS_OF_VERSION
def reference(version: str, data: tuple[Path, ...], depth_bits: int | None) -> None:
    """Add a drift reference to VERSION. Only old versions need this command, because every training now records a drift reference.

    Inspectors compare new pictures with the drift reference. Give labelled pictures that were not used to train VERSION.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.evaluation.evaluation_report import evaluate_version
    from models.inference.drift import make_drift_reference
    from models.inference.ensemble import open_ensemble
    from models.training.labelled_pictures import find_pictures, read_pictures
    from models.training.near_duplicates import group_near_duplicates

    located = locate_version(version)
    if not located.manifest.voters:
        raise ModelError(
            f"Version {located.name} has no networks. Its drift reference was recorded when it was made, so nothing needs to be done."
        )
    manifest = located.manifest
    depth_bits = choose_depth_bits(depth_bits, manifest)
    pictures = read_pictures(find_pictures(data), manifest.preprocessing.side_px, manifest.picture_classes, depth_bits=depth_bits)
    echo_unreadable(pictures)
    echo_learned(pictures, located)
    report = evaluate_version(open_ensemble(located), pictures)
    groups = group_near_duplicates(pictures.pixels, pictures.checksums)
    add_drift_reference(located, make_drift_reference(pictures.pixels, report.probability, report.is_defect, groups))
    click.echo(f"{located.folder} has a drift reference of {len(pictures)} pictures now. Restart its inspectors to use it.")
    if LocalRegistry(located.folder.parent).read_signature(located.name):
        click.echo(
            f"The manifest has changed, so its signature does not fit any more. Sign it again with: castline models sign {located.name}"
        )


@command.command("optimise")
@click.argument("version")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder or CSV list of pictures. A runtime is refused if its labels for these pictures differ from TensorFlow's labels in "
    "float32. You can repeat the option.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the result, runtimes.json. The Models page shows the result if the folder is named VERSION.report and lies beside "
    "VERSION.",
)
@DEPTH_BITS_OF_VERSION
@AS_JSON
def optimise(version: str, data: tuple[Path, ...], report_folder: Path | None, depth_bits: int | None, as_json: bool) -> None:
    """Find the fastest runtime for VERSION on this kind of machine. Inspectors with the setting `model.runtime = "auto"` use it.

    VERSION holds a few dozen pictures with recorded answers, the golden set. A runtime that gives other answers is refused.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import json
    from dataclasses import asdict

    from models.inference.runtimes.runtime import RUNTIMES, find_obstacle, open_runtime
    from models.inference.runtimes.selection import select_runtime, write_runtime_report
    from models.training.labelled_pictures import find_pictures, read_pictures

    obstacles = {name: obstacle for name in RUNTIMES if (obstacle := find_obstacle(name))}
    usable = [name for name in RUNTIMES if name not in obstacles]
    located = locate_version(version)
    if not located.manifest.voters:
        raise ModelError(f"Version {located.name} has no networks, so there is no runtime to choose. Nothing needs to be done.")
    pixels = None
    if data:
        depth_bits = choose_depth_bits(depth_bits, located.manifest)
        pictures = read_pictures(find_pictures(data), located.manifest.preprocessing.side_px, depth_bits=depth_bits)
        echo_unreadable(pictures)
        pixels = pictures.pixels
    selection = select_runtime(located, usable, (1, 8, 32), open_runtime, pixels=pixels)
    if report_folder is not None:
        write_runtime_report(report_folder, located, selection, 0 if pixels is None else len(pixels))
    if as_json:
        click.echo(json.dumps({**asdict(selection), "left_out": obstacles}, indent=2))
        return
    for each in selection.measured:
        click.echo(f"{each.runtime:16} batch {each.batch:2}: {each.per_s:7.1f} a second, same labels, distance {each.distance}")
    for name, reason in selection.refused.items():
        click.echo(f"{name:16} refused: {reason}")
    for name, obstacle in obstacles.items():
        click.echo(f"{name:16} not measured: {obstacle}")
    click.echo(f"chosen: {selection.chosen}")


@command.command("compare")
@click.argument("first")
@click.argument("second")
@click.option("--data", type=click.Path(path_type=Path), multiple=True, required=True, help=DATA_HELP)
@DEPTH_BITS_OF_VERSION
@AS_JSON
@click.pass_obj
def compare(file: Path | None, first: str, second: str, data: tuple[Path, ...], depth_bits: int | None, as_json: bool) -> None:
    """Judge labelled pictures with two versions, and list where the labels differ."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import json

    from models.evaluation.evaluation_report import evaluate_version, list_differences
    from models.inference.ensemble import open_ensemble
    from models.training.labelled_pictures import find_pictures, read_pictures

    detail_time_s = load_settings(file).inspector.detail_time_s
    names, files = (first, second), find_pictures(data)
    reports: list[EvaluationReport] = []
    for name in names:
        version = locate_version(name)
        ensemble = open_ensemble(version, detail_time_s=detail_time_s)
        depth = choose_depth_bits(depth_bits, version.manifest)
        pictures = read_pictures(files, ensemble.side_px, version.manifest.picture_classes, depth_bits=depth, details=ensemble.details)
        if not reports or pictures.unreadable != reports[-1].pictures.unreadable:
            echo_unreadable(pictures)
        reports.append(evaluate_version(ensemble, pictures))
    differences = list_differences(*reports)
    if as_json:
        versions = [{"version": name, **report.figures.model_dump()} for name, report in zip(names, reports, strict=True)]
        click.echo(json.dumps({"versions": versions, "differences": differences}, indent=2))
        return
    for name, report in zip(names, reports, strict=True):
        figures = report.figures
        click.echo(f"{name}: accuracy {figures.accuracy}, misses {figures.misses.count}, false alarms {figures.false_alarms.count}")
    click.echo(f"judged differently: {len(differences)}")
    for row in differences:
        click.echo(f"  {row['path']} ({row['class']}): {row['first']} / {row['second']}")


for _subcommand in (models_choice.choose, models_choice.shadow, models_choice.roll_back, models_choice.status):
    command.add_command(_subcommand)
