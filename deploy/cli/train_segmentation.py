"""The command `castline train-segmentation`: trains a network that marks defects and names their kinds, and writes a new version."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from deploy.cli.labelled_data import DEPTH_BITS_OF_VERSION, choose_depth_bits
from deploy.cli.train import shorten_paths

KIND_HELP = (
    "Kind of defect that a value in the masks means, such as '1=blow hole'. Repeat the option for each value. Several values can have the "
    "same name."
)

MASKS_HELP = (
    "Folder of masks of the pictures in --data. The mask of def_front/a.jpeg is def_front/a.png: a grey 8-bit PNG of the same size. A "
    "pixel is 0 where there is no defect. Elsewhere it has the value of a kind of defect."
)


def parse_kinds(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[int, str]:
    """Returns the kind of defect of each mask value. Raises click.BadParameter if a text does not have the form VALUE=NAME."""
    kinds: dict[int, str] = {}
    for text in values:
        number, _, name = text.partition("=")
        if not (number.strip().isdigit() and 1 <= int(number) <= 255 and 1 <= len(name.strip()) <= 40):
            raise click.BadParameter(
                f"{text!r} does not name a kind of defect. Write VALUE=NAME with a value from 1 to 255, such as '1=blow hole'."
            )
        kinds[int(number)] = name.strip()
    return kinds


@click.command("train-segmentation")
@click.argument("version")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the new version. The name of the folder becomes the name of the version.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Pictures that have masks: a folder with a subfolder for each class, or a CSV list.",
)
@click.option(
    "--masks",
    "masks_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help=MASKS_HELP,
)
@click.option("--kind", "kinds", multiple=True, metavar="VALUE=NAME", callback=parse_kinds, help=KIND_HELP)
@click.option(
    "--part-value",
    "part_values",
    type=click.IntRange(1, 255),
    multiple=True,
    help="Mask value that means the casting itself and not a defect. May be repeated.",
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="CSV list of boxes around defects, with the columns image, x, y, w, h and, if known, kind. Paths are relative to the folder of "
    "the list. A data set of the station contains such a list, manifest.csv. May be repeated.",
)
@click.option(
    "--good",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder with a subfolder for each class, or CSV list. The training also uses its pictures of good parts. May be repeated.",
)
@click.option(
    "--start",
    "start_name",
    default="demo",
    show_default=True,
    help="A version that has a segmentation head. The training starts with the weights of this head if VERSION has no head of its own. "
    "With 'none', it starts with random weights.",
)
@click.option(
    "--steps",
    default=2000,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Number of training steps. Each step uses one batch of pictures.",
)
@click.option("--batch", default=16, show_default=True, type=click.IntRange(2, 256), help="Pictures in one batch.")
@click.option("--rate", default=2e-3, show_default=True, type=click.FloatRange(0, 1, min_open=True), help="Highest learning rate.")
@click.option(
    "--validation-share",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Share of the pictures that are used for validation instead of training. The manifest gets the results of the validation. 0: no "
    "validation.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of all random choices.")
@DEPTH_BITS_OF_VERSION
def command(
    version: str,
    out: Path,
    data: Path | None,
    masks_folder: Path | None,
    kinds: dict[int, str],
    part_values: tuple[int, ...],
    boxes: tuple[Path, ...],
    good: tuple[Path, ...],
    start_name: str,
    steps: int,
    batch: int,
    rate: float,
    validation_share: float,
    seed: int,
    depth_bits: int | None,
) -> int:
    """Train a segmentation head for VERSION, and write a new version that has this head.

    A segmentation head is a small network that finds defects and names their kinds. It learns from masks, which name the kind of each
    pixel, and from boxes.

    The new version gives the same labels as VERSION. If VERSION already has a head, the training continues with this head. Otherwise the
    training begins with the head of the version in --start.

    Exit codes: 0 done, 2 wrong option, 3 the version or the pictures cannot be used, 130 interrupted. An interrupted training writes
    nothing.
    """
    if (data is None) != (masks_folder is None):
        raise click.UsageError("--data and --masks belong together. Give both, or leave out both and give --boxes.")
    if masks_folder is None and not boxes:
        raise click.UsageError("There is nothing to learn from. Give --data with --masks, or --boxes.")
    if masks_folder is not None and not kinds:
        raise click.UsageError("--kind is missing. Name the kind of each mask value, for example with --kind '1=blow hole'.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from rich.console import Console
    from rich.progress import Progress

    from models.evaluation.segmentation_figures import measure_head
    from models.registry import locate_version
    from models.training.labelled_pictures import find_pictures
    from models.training.marked_pictures import list_boxed_files, list_good_files, list_masked_files, read_marked_pictures
    from models.training.segmentation import SegmentationRecipe
    from models.training.segmentation_run import SegmentationRun

    located, out = locate_version(version), out.absolute()
    manifest = located.manifest
    depth_bits = choose_depth_bits(depth_bits, manifest)
    ok_class, side_px = manifest.classes[manifest.ok_class], find_head_side(manifest.preprocessing.side_px)
    start = None if start_name == "none" else locate_version(start_name)
    files = [file for path in boxes for file in list_boxed_files(path, ok_class)]
    if data is not None and masks_folder is not None:
        files += list_masked_files(find_pictures([data]), masks_folder, ok_class)
    files += list_good_files(find_pictures(good), ok_class) if good else []
    recipe = SegmentationRecipe(side_px=side_px, steps=steps, batch=batch, rate=rate, handed=manifest.handed, seed=seed)
    command_line = shlex.join(["castline", *shorten_paths(sys.argv[1:])])
    run = SegmentationRun(located, out.parent, out.name, recipe, validation_share, measure_head, command_line, start)
    try:
        with Progress(console=Console(stderr=True), transient=True) as bars:
            reading = bars.add_task("reading", total=len(files))
            pictures = read_marked_pictures(files, side_px, kinds, part_values, depth_bits, lambda done, total: bars.advance(reading))
            training = bars.add_task("training", total=steps)
            made = run.run(pictures, lambda done, total, loss: bars.update(training, completed=done, description=f"loss {loss:.3f}"))
    except KeyboardInterrupt:
        click.echo("Interrupted. No version was written.", err=True)
        return 130
    for sentence in pictures.left_out:
        click.echo(sentence)
    member = made.manifest.segmentation
    assert member is not None
    counts = ", ".join(f"{count} {name}" for name, count in member.pictures.items())
    click.echo(f"version {made.folder}: a segmentation head for {', '.join(member.kinds)}, trained on pictures: {counts}")
    if member.figures:
        click.echo(f"validated on {member.figures['pictures']:.0f} pictures:")
        for name, value in member.figures.items():
            if name != "pictures":
                click.echo(f"  {name.replace('_', ' '):14} {value:.4f}")
    return 0


def find_head_side(side_px: int) -> int:
    """Returns the side of the pictures for a segmentation head: `side_px` rounded up to a multiple of 16, but at most 224 px.

    `side_px` is the side of the pictures for the networks of the version.
    """
    return min(224, -(-side_px // 16) * 16)
