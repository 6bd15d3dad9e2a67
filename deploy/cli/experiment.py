"""The command `castline experiment`: trains networks in many variants and prints a table of the results.

Finished trainings are kept, so after an interruption the same command trains only the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli.labelled_data import DEPTH_BITS, echo_unreadable
from deploy.cli.train import make_options
from deploy.cli.train_segmentation import KIND_HELP, MASKS_HELP, parse_kinds
from models.training.options import TrainingOptions

if TYPE_CHECKING:
    from models.evaluation.experiments.experiment import ResultTable
    from models.registry import Version
    from models.training.labelled_pictures import LabelledPictures
    from models.training.progress_bars import ProgressBars

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder with a subfolder of pictures for each class, or CSV list with the columns path and class. You can repeat the option.",
)


def DATA(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that adds the options --data and --depth-bits to a command.

    Its name is in capitals, like the names of the options OUT and SEEDS.
    """
    return _DATA(DEPTH_BITS(function))


OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder into which the command writes the finished trainings and the table.",
)


def _parse_numbers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(number) for number in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers. Write the numbers with commas between them, such as 1,2,3."
        ) from error


def _parse_lengths(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        lengths = tuple(dict.fromkeys(float(number) for number in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of numbers. Write the numbers with commas between them, such as 0.7,1."
        ) from error
    if not all(0 < length < float("inf") for length in lengths):
        raise click.BadParameter(f"{value!r} contains a length that is not above 0. Give lengths in millimetres.")
    return lengths


SEEDS = click.option(
    "--seeds",
    default="1,2,3",
    show_default=True,
    callback=_parse_numbers,
    help="Seeds of the random numbers, separated by commas. For each seed, the pictures are divided again and all networks are trained.",
)

RECIPE_OPTIONS: dict[str, tuple[Any, str]] = {
    "side_px": (int, "Side of the pictures after resampling, in pixels. AlexNet takes pictures of this size."),
    "lenet_side_px": (int, "Side of the pictures that LeNet takes, in pixels."),
    "lenet_width": (int, "Factor for the number of feature maps in LeNet's convolutions (6 and 16 in the paper)."),
    "maps": (float, "Factor for the number of feature maps in AlexNet's convolutions. 0.25 means a quarter of those in the paper."),
    "dense_width": (int, "Units of each fully connected layer of AlexNet."),
    "dense_layers": (int, "Number of AlexNet's fully connected layers before the output layer."),
    "epochs": (int, "Epochs of AlexNet."),
    "lenet_epochs": (int, "Epochs of LeNet."),
    "batch": (int, "Pictures in one training step."),
    "rate": (float, "AlexNet's learning rate after the warm-up."),
    "lenet_rate": (float, "LeNet's learning rate after the warm-up."),
    "dropout": (float, "Dropout of AlexNet's fully connected layers."),
    "balance": (
        float,
        "How often an epoch repeats the pictures of small folders. 0: never. 1: so often that each folder counts as much as the largest "
        "one.",
    ),
    "turned": (
        click.Choice(["free", "quarter"]),
        "Random rotation of the training pictures. free: by any angle. quarter: by right angles only.",
    ),
    "min_steps": (int, "Least number of training steps of each network, even with few pictures."),
}


def recipe_options(**defaults: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that adds training options to a command. Example: `recipe_options(epochs=30)` adds --epochs, by default 30."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, default in reversed(defaults.items()):
            kind, text = RECIPE_OPTIONS[name]
            flag = "--" + name.removesuffix("_px").replace("_", "-")
            function = click.option(flag, name, type=kind, default=default, show_default=True, help=text)(function)
        return function

    return decorate


@click.group("experiment")
def command() -> None:
    """Train variants of the networks on the same pictures, and print a table of the results.

    If you stop a command with Ctrl-C, run the same command again. It then continues the experiment.

    Exit codes: 0 done, 2 wrong option, 3 the pictures or the folder cannot be used, 130 interrupted.
    """


@command.command("layers")
@DATA
@OUT
@SEEDS
@click.option(
    "--layers",
    default="1,2,3",
    show_default=True,
    callback=_parse_numbers,
    help="Numbers of fully connected layers to compare, separated by commas. The output layer is counted too.",
)
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder or CSV list of further pictures. Every network is tested on them, and no network is trained with them.",
)
@recipe_options(side_px=96, maps=0.25, dense_width=256, epochs=30, batch=16, rate=1e-3, dropout=0.2, turned="quarter")
def layers(
    data: tuple[Path, ...], out: Path, seeds: tuple[int, ...], layers: tuple[int, ...], test: tuple[Path, ...], **chosen: Any
) -> int:
    """Compare AlexNet with different numbers of fully connected layers.

    For each seed, the pictures are divided at random into training and validation. Near-duplicates stay together. The table shows the share
    of validation pictures that get their correct class.
    """
    _silence_tensorflow()
    from models.evaluation.experiments.layers import LayersExperiment

    options = make_options(chosen)

    def run(bars: ProgressBars) -> ResultTable:
        pictures = _read(data, options.side_px, bars, options.depth_bits)
        test_pictures = _read(test, options.side_px, bars, options.depth_bits, pictures.classes) if test else None
        return LayersExperiment(options, layers, seeds, out).run(pictures, test_pictures, bars)

    return _run_and_show(out, run)


# These options have the defaults of `castline train`, so that the table shows what to expect of a normal training.
ENSEMBLE_RECIPE: dict[str, Any] = {
    name: TrainingOptions.model_fields[name].default
    for name in (
        *("side_px", "lenet_side_px", "lenet_width", "maps", "dense_width", "dense_layers", "epochs", "lenet_epochs"),
        *("batch", "rate", "lenet_rate", "dropout", "balance", "min_steps"),
    )
}


@command.command("voters")
@DATA
@OUT
@SEEDS
@recipe_options(**ENSEMBLE_RECIPE)
def voters(data: tuple[Path, ...], out: Path, seeds: tuple[int, ...], **chosen: Any) -> int:
    """Compare the ensemble with each of its networks and a support vector machine.

    For each seed, the command divides the pictures at random into training pictures and test pictures. Near-duplicates stay together. The
    table shows the figures on the test pictures.
    """
    _silence_tensorflow()
    from models.evaluation.experiments.comparison import Comparison, make_classifier_table, split_by_seeds

    options = make_options(chosen)

    def run(bars: ProgressBars) -> ResultTable:
        pictures = _read(data, options.side_px, bars, options.depth_bits)
        comparison = Comparison(options, out, "voters", with_svm=True)
        return make_classifier_table(comparison.run(pictures, split_by_seeds(pictures, options, seeds), bars))

    return _run_and_show(out, run)


@command.command("folds")
@DATA
@OUT
@click.option(
    "--folds",
    default=5,
    show_default=True,
    type=click.IntRange(2, 20),
    help="Number of folds into which the pictures are divided. Each fold is the test set once.",
)
@recipe_options(**ENSEMBLE_RECIPE)
def folds(data: tuple[Path, ...], out: Path, folds: int, **chosen: Any) -> int:
    """Cross-validate a training with the given options. Near-duplicates stay in the same fold.

    The table shows the figures of each fold, of all folds together, and of each folder of pictures, with 95 % intervals.
    """
    _silence_tensorflow()
    from models.evaluation.experiments.comparison import Comparison, make_fold_table, split_into_folds

    options = make_options(chosen)

    def run(bars: ProgressBars) -> ResultTable:
        pictures = _read(data, options.side_px, bars, options.depth_bits)
        comparison = Comparison(options, out, f"{folds} folds", with_svm=False)
        return make_fold_table(comparison.run(pictures, split_into_folds(pictures, options, folds), bars))

    return _run_and_show(out, run)


@command.command("autoencoder")
@DATA
@OUT
@SEEDS
@click.option("--side", "side_px", default=192, show_default=True, type=click.IntRange(64, 1024), help="Side of the pictures, in pixels.")
@click.option(
    "--steps", default=2500, show_default=True, type=click.IntRange(1), help="Number of batches in one training. A batch has 64 pictures."
)
@click.option(
    "--prototypes",
    default=64,
    show_default=True,
    type=click.IntRange(2),
    help="Number of learned patterns of good parts (prototypes) from which the autoencoder rebuilds a picture.",
)
@click.option("--good", type=click.IntRange(2), help="Learn from this many good pictures, drawn at random.  [default: all]")
def autoencoder(
    data: tuple[Path, ...],
    depth_bits: int | None,
    out: Path,
    seeds: tuple[int, ...],
    side_px: int,
    steps: int,
    prototypes: int,
    good: int | None,
) -> int:
    """Compare four variants of the autoencoder: complete, without its memory, without its adversary, and without both.

    The memory contains typical patterns of good parts. The adversary is a second network, which learns to tell rebuilt pictures from real
    ones. All variants learn from good pictures alone. The table shows how well each variant separates defective pictures from good ones.
    """
    _silence_tensorflow()
    from models.anomaly.memory_autoencoder import AutoencoderRecipe
    from models.evaluation.experiments.autoencoder import AutoencoderExperiment
    from models.evaluation.experiments.experiment import ExperimentFolder

    recipe = AutoencoderRecipe(steps=steps, prototypes=prototypes)

    def run(bars: ProgressBars) -> ResultTable:
        pictures = _read(data, side_px, bars, depth_bits)
        return AutoencoderExperiment(recipe, seeds, ExperimentFolder(out), good).run(pictures, bars)

    return _run_and_show(out, run)


@command.command("good-only")
@DATA
@OUT
@click.option("--side", "side_px", default=192, show_default=True, type=click.IntRange(64, 1024), help="Side of the pictures, in pixels.")
@click.option(
    "--per-group",
    default=30,
    show_default=True,
    type=click.IntRange(1),
    help="Largest number of near-duplicates of one casting. Further pictures of the casting are left out.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random numbers for the folds and the choice of pictures.")
@click.option(
    "--patch-memory",
    "features_name",
    metavar="VERSION",
    help="Also test the scorer `patch memory`, alone and together with the scorer `golden template`. The patch memory uses the first layer "
    "of the AlexNet in VERSION. VERSION must have learned from other castings than those in --data.",
)
def good_only(
    data: tuple[Path, ...], depth_bits: int | None, out: Path, side_px: int, per_group: int, seed: int, features_name: str | None
) -> int:
    """Cross-validate the scorers, which are models that learn from pictures of good parts alone.

    Each scorer is trained in three ways: with all good pictures, with a few good pictures, and with good pictures mixed with some
    defective pictures. For each way, the table shows how well the scorer finds defective parts.
    """
    _silence_tensorflow()
    from models.anomaly.patch_memory import PatchMemory, learn_patch_memory, read_first_convolution
    from models.anomaly.template import GoldenTemplate, learn_golden_template
    from models.evaluation.experiments.good_only import compare_good_only_scorers, make_good_only_table
    from models.pictures.part_finder import RememberingPartFinder
    from models.registry import locate_version

    find = RememberingPartFinder()
    scorers: dict[str, Any] = {GoldenTemplate.name: partial(learn_golden_template, find=find)}
    if features_name:
        convolution = read_first_convolution(locate_version(features_name))
        scorers[PatchMemory.name] = partial(learn_patch_memory, convolution=convolution, find=find)

    def run(bars: ProgressBars) -> ResultTable:
        pictures = _read(data, side_px, bars, depth_bits)
        return make_good_only_table(
            compare_good_only_scorers(pictures, scorers, per_group, seed=seed, on_progress=bars.on_cell_progress), pictures
        )

    return _run_and_show(out, run)


@command.command("heat-maps")
@OUT
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Pictures that have masks: a folder with a subfolder for each class.",
)
@click.option("--masks", "masks_folder", type=click.Path(path_type=Path, file_okay=False), required=True, help=MASKS_HELP)
@click.option("--kind", "kinds", multiple=True, required=True, metavar="VALUE=NAME", callback=parse_kinds, help=KIND_HELP)
@click.option(
    "--part-value",
    "part_values",
    type=click.IntRange(1, 255),
    multiple=True,
    help="Mask value that means the casting itself and not a defect.",
)
@click.option("--boxes", type=click.Path(path_type=Path), multiple=True, help="CSV list of boxes, as for castline train-segmentation.")
@click.option(
    "--good", type=click.Path(path_type=Path), multiple=True, help="Folder or CSV list of pictures of good parts, which need no masks."
)
@click.option(
    "--start",
    "start_name",
    default="demo",
    show_default=True,
    help="Each training starts with the weights of this version's segmentation head.",
)
@click.option(
    "--grad-cam",
    "grad_cam_name",
    help="Also test the Grad-CAM heat maps of this version. Choose a version that has not learned from the pictures in --data.",
)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2, 20), help="Number of folds.")
@click.option(
    "--steps",
    default=500,
    show_default=True,
    type=click.IntRange(1),
    help="Number of batches in the training of a segmentation head, which is a network that marks defects.",
)
@click.option("--side", "side_px", default=160, show_default=True, type=click.IntRange(64, 512), help="Side of the pictures, in pixels.")
@DEPTH_BITS
@click.option(
    "--autoencoder-steps",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Number of batches in the training of an autoencoder. 0: test no autoencoder.",
)
def heat_maps(
    out: Path,
    data: Path,
    masks_folder: Path,
    kinds: dict[int, str],
    part_values: tuple[int, ...],
    boxes: tuple[Path, ...],
    good: tuple[Path, ...],
    start_name: str,
    grad_cam_name: str | None,
    folds: int,
    steps: int,
    side_px: int,
    depth_bits: int | None,
    autoencoder_steps: int,
) -> int:
    """Compare four kinds of heat maps on pictures with masks: segmentation head, golden template, autoencoder and Grad-CAM.

    A segmentation head is a network that marks defects. The golden template finds differences from good parts.

    The table shows how well each kind finds the defects. The comparison is a cross-validation, in which near-duplicates stay in the same
    fold.
    """
    _silence_tensorflow()
    from models.anomaly.memory_autoencoder import AutoencoderRecipe, learn_memory_autoencoder
    from models.anomaly.template import GoldenTemplate, learn_golden_template
    from models.evaluation.experiments.experiment import ExperimentFolder
    from models.evaluation.experiments.heat_maps import HeatMapExperiment, read_heat_map_pictures
    from models.inference.grad_cam import open_grad_cam
    from models.networks.segmentation import load_segmentation_network
    from models.registry import locate_version
    from models.training.segmentation import SegmentationRecipe

    member = (start := locate_version(start_name)).manifest.segmentation
    inputs = {"start": _describe_content(start) if member else "none"}
    scorers: dict[str, Any] = {GoldenTemplate.name: learn_golden_template}
    if autoencoder_steps:
        scorers["MAA"] = partial(learn_memory_autoencoder, recipe=AutoencoderRecipe(steps=autoencoder_steps))
        inputs["MAA"] = f"{autoencoder_steps} steps"
    grad_cam = None
    if grad_cam_name:
        grad_cam_version = locate_version(grad_cam_name)
        grad_cam, inputs["grad-cam"] = open_grad_cam(grad_cam_version, side_px), _describe_content(grad_cam_version)
    experiment = HeatMapExperiment(
        SegmentationRecipe(side_px=side_px, steps=steps),
        folds,
        ExperimentFolder(out),
        scorers,
        {"grad-cam": grad_cam.compute_heat_map} if grad_cam else {},
        inputs,
        load_segmentation_network(start, member) if member else None,
    )

    def run(bars: ProgressBars) -> ResultTable:
        pictures, marks, has_mask = read_heat_map_pictures(
            data, masks_folder, boxes, good, side_px, kinds, part_values, depth_bits, bars.on_picture_read
        )
        for sentence in pictures.left_out:
            click.echo(sentence, err=True)
        return experiment.run(pictures, marks, has_mask, bars)

    return _run_and_show(out, run)


@command.command("light")
@DATA
@OUT
@SEEDS
@recipe_options(side_px=96, maps=0.25, dense_width=256, epochs=12, batch=16, rate=1e-3, lenet_rate=2e-3, dropout=0.2, min_steps=1000)
def light(data: tuple[Path, ...], out: Path, seeds: tuple[int, ...], **chosen: Any) -> int:
    """Compare LeNet and AlexNet with MobileNetV2 and NASNetMobile, all untrained at the start.

    The table shows the number of parameters, the time to judge one picture, and the accuracy on the validation pictures.
    """
    _silence_tensorflow()
    from models.evaluation.experiments.light import LightExperiment

    options = make_options({**chosen, "lenet_epochs": chosen["epochs"], "lenet_side_px": chosen["side_px"]})

    def run(bars: ProgressBars) -> ResultTable:
        return LightExperiment(options, seeds, out).run(_read(data, options.side_px, bars, options.depth_bits), bars)

    return _run_and_show(out, run)


@command.command("small-defects")
@OUT
@click.option("--good", default=40, show_default=True, type=click.IntRange(8), help="Number of good castings to learn from.")
@click.option("--tested", default=50, show_default=True, type=click.IntRange(1), help="Number of castings to test with.")
@click.option(
    "--defective",
    type=click.IntRange(1),
    help="For this many of the tested castings, pictures with defects are rendered, too.  [default: all]",
)
@click.option("--side", "side_px", default=2236, show_default=True, type=click.IntRange(512, 7000), help="Side of the pictures, in pixels.")
@click.option("--part-mm", default=300.0, show_default=True, type=click.FloatRange(1, 10000), help="Diameter of the part, in millimetres.")
@click.option(
    "--lengths",
    "lengths_mm",
    default="1",
    show_default=True,
    callback=_parse_lengths,
    help="Lengths of the defects in millimetres, separated by commas.",
)
@click.option("--seed", default=17, show_default=True, type=click.IntRange(0), help="Seed of the random numbers.")
def small_defects(
    out: Path, good: int, tested: int, defective: int | None, side_px: int, part_mm: float, lengths_mm: tuple[float, ...], seed: int
) -> int:
    """Measure whether small defects are found in large pictures. The command renders the pictures, which takes about 4 s for each casting.

    For the good pictures, and for each kind and length of defect, the table shows how many pictures would count as defective.
    """
    _silence_tensorflow()
    from models.evaluation.experiments.small_defects import SmallDefectExperiment

    experiment = SmallDefectExperiment(good, tested, side_px, part_mm, lengths_mm, seed, out, defective)
    return _run_and_show(out, lambda bars: experiment.run(bars.on_cell_progress))


def _describe_content(version: Version) -> str:
    """Returns the name of a version and a digest of its files. The digest tells apart two versions with the same name."""
    checksums = sorted(f"{name} {entry.sha256}" for name, entry in version.manifest.files.items())
    return f"{version.name} {hashlib.sha256(chr(10).join(checksums).encode()).hexdigest()[:16]}"


def _silence_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _read(
    data: tuple[Path, ...], side_px: int, bars: ProgressBars, depth_bits: int | None, classes: tuple[str, ...] | None = None
) -> LabelledPictures:
    from models.training.labelled_pictures import find_pictures, read_pictures

    pictures = read_pictures(find_pictures(data), side_px, classes, depth_bits=depth_bits, on_read=bars.on_picture_read)
    echo_unreadable(pictures)
    pictures.expect_two_classes()
    pictures.expect_enough(2)
    return pictures


def _run_and_show(out: Path, run: Callable[[ProgressBars], ResultTable]) -> int:
    from rich.console import Console
    from rich.table import Table

    from models.training.progress_bars import ProgressBars

    try:
        with ProgressBars() as bars:
            result = run(bars)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. The same command continues from {out}.", err=True)
        return 130
    result.save(out)
    table = Table(*result.head, title=result.title)
    for row in result.rows:
        table.add_row(*row)
    Console().print(table)
    for sentence in result.sentences:
        click.echo(sentence)
    click.echo(f"{out / 'table.csv'}, {out / 'table.md'}")
    return 0


@command.command("learning-curve")
@DATA
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the result. The Models page shows the result if the folder is named VERSION.report and lies beside the version.",
)
@recipe_options(lenet_side_px=96, lenet_epochs=15, min_steps=600)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def learning_curve(data: tuple[Path, ...], out: Path, as_json: bool, **chosen: Any) -> int:
    """Find out whether there are enough training pictures, and which labels are perhaps wrong.

    LeNet is trained on an eighth, a quarter, half and all of the pictures. On 1,000 pictures this takes some minutes. If a network that has
    not seen a picture is certain of another label, the label of the picture is perhaps wrong.

    The command writes learning-curve.json, learning-curve.png and contradicted.png.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.evaluation.experiments.learning_curve import compute_learning_curve, describe_as_json
    from models.training.labelled_pictures import find_pictures, read_pictures
    from models.training.progress_bars import ProgressBars

    options = make_options({"side_px": chosen["lenet_side_px"], **chosen})
    try:
        with ProgressBars() as bars:
            pictures = read_pictures(find_pictures(data), options.side_px, depth_bits=options.depth_bits, on_read=bars.on_picture_read)
            echo_unreadable(pictures)
            curve = compute_learning_curve(pictures, options, out, bars)
    except KeyboardInterrupt:
        click.echo("interrupted: the same command continues with the trainings that are missing", err=True)
        return 130
    if as_json:
        click.echo(describe_as_json(curve))
        return 0
    for point in curve.points:
        click.echo(f"{point.training_pictures:6} training pictures: errors {point.errors}")
    click.echo(curve.describe_gain())
    click.echo(f"Pictures that held-out networks contradict: {curve.contradicted_count}. They are listed in {out}.")
    return 0
