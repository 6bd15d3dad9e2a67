"""The command `castline train`: makes a model version from labelled pictures, or from pictures of good parts alone."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli.labelled_data import DEPTH_BITS
from models.training.options import TrainingOptions

if TYPE_CHECKING:
    from models.registry.manifest import Manifest
    from models.training.training_run import TrainingResult, TrainingRun


_GOOD_ONLY_OPTIONS = (
    "side_px",
    "depth_bits",
    "details",
    "alarm_share",
    "alarms_per_hour",
    "parts_per_hour",
    "defect_share",
    "cost_miss",
    "cost_false_alarm",
)


@click.command("train")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder whose subfolders are named after the classes (ok..., def...), or CSV list with the columns path and class. "
    "You can repeat the option.",
)
@click.option(
    "--good-only",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with pictures of good parts, instead of --data. The version then has no networks. It gives the label `review` to parts "
    "that differ from the good parts, and `ok` to all others. Twenty pictures are enough.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the new version. The name of the folder becomes the name of the version.",
)
@click.option("--resume", is_flag=True, help="Continue a training that was stopped.")
@click.option(
    "--from",
    "start",
    metavar="VERSION",
    help="Start from the weights of this version and train with new pictures (fine-tuning). Pictures that the version has learned are "
    "never used for the validation.",
)
@click.option("--epochs", type=int, help="Largest number of epochs of AlexNet.")
@click.option("--lenet-epochs", type=int, help="Largest number of epochs of LeNet.")
@click.option(
    "--patience",
    type=int,
    help="The training of a network stops early after this many epochs without a lower validation loss. 0: it does not stop early.",
)
@click.option("--side", "side_px", type=int, help="Side of the resampled pictures, in pixels. AlexNet takes pictures of this size.")
@DEPTH_BITS
@click.option("--lenet-side", "lenet_side_px", type=int, help="Side of the pictures that LeNet takes, in pixels.")
@click.option("--lenet-width", type=int, help="Factor for the number of feature maps in LeNet's convolutions (6 and 16 in the paper).")
@click.option("--dense-width", type=int, help="Units of each fully connected layer of AlexNet.")
@click.option("--dense-layers", type=int, help="Number of AlexNet's fully connected layers before the output layer.")
@click.option(
    "--maps",
    type=float,
    help="Factor for the number of feature maps in AlexNet's convolutions. 0.25 means a quarter of those in the paper.",
)
@click.option("--normalisation", type=click.Choice(["batch", "local-response"]), help="Kind of AlexNet's normalisation layers.")
@click.option("--head", type=click.Choice(["softmax", "logistic"]), help="Kind of the output layer. logistic is for two classes only.")
@click.option("--batch", type=int, help="Number of pictures in one training step.")
@click.option("--rate", type=float, help="AlexNet's learning rate after the warm-up.")
@click.option("--lenet-rate", type=float, help="LeNet's learning rate after the warm-up.")
@click.option("--dropout", type=float, help="Dropout of AlexNet's fully connected layers.")
@click.option(
    "--balance",
    type=float,
    help="How strongly an epoch repeats the pictures of small --data folders and lists, from 0 to 1. 0: no picture is repeated. 1: a "
    "folder with half as many pictures as the largest folder is used twice, and so on. No picture is used more than 16 times.",
)
@click.option(
    "--turned",
    type=click.Choice(["free", "quarter"]),
    help="Random rotation of the training pictures. free: by any angle. quarter: by right angles only.",
)
@click.option(
    "--handed",
    is_flag=True,
    default=None,
    help="Do not mirror pictures in the training. Use this if the mirror image of a good part would be a wrong part, like a left and a "
    "right glove.",
)
@click.option(
    "--min-steps",
    type=int,
    help="Minimum number of training steps of each network. If there are too few pictures for this many steps, each epoch uses the "
    "pictures several times.",
)
@click.option("--seed", type=int, help="Seed of the random numbers for the split, the initial weights and the augmentation.")
@click.option("--validation-share", type=float, help="Share of the pictures that are used for validation instead of training.")
@click.option(
    "--near-rings",
    type=float,
    help="Two pictures count as the same casting if their ring spectra differ by at most this value, from 0 to 1. A ring spectrum "
    "describes the rings around the centre of a picture, and hardly changes when the picture is turned. With 0, only mirrored copies and "
    "copies turned by right angles are found.",
)
@click.option("--cost-miss", type=float, help="Cost of a defective part that is judged good, in the unit of --cost-false-alarm.")
@click.option("--cost-false-alarm", type=float, help="Cost of a good part that is judged a defect, in the unit of --cost-miss.")
@click.option(
    "--review-share",
    type=float,
    help="Share of the validation pictures that get the label `review`: those with a defect probability close to the threshold.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed_bfloat16"]),
    help="Number type of the training. auto: mixed_bfloat16 if the machine computes faster with it, otherwise float32.",
)
@click.option(
    "--scorer",
    is_flag=True,
    default=None,
    help="With --data: also train a scorer, which learns from the good pictures alone. The scorer changes labels only on lines whose "
    "setting review-anomalies is on (castline lines set).",
)
@click.option(
    "--details",
    is_flag=True,
    default=None,
    help="Also search the pictures in their full size for defects that are too small for the networks. The search learns from the good "
    "pictures alone. The parts must look round from above.",
)
@click.option(
    "--alarm-share",
    type=float,
    help="Choose the scorer's cut-off so that at most this share of the good parts gets a higher anomaly score. If the version "
    "has a scorer and also searches for small defects (--details), half of this share is for the scorer and half for the search.",
)
@click.option(
    "--alarms-per-hour",
    type=float,
    help="Choose the scorer's cut-off so that at most this many good parts an hour get a higher anomaly score. Needs --parts-per-hour.",
)
@click.option("--parts-per-hour", type=float, help="Number of parts that the line makes in an hour, for --alarms-per-hour.")
@click.option(
    "--defect-share",
    type=float,
    help="Expected share of defective parts. The scorer gets the cut-off with the lowest costs for this share. The costs of errors are "
    "--cost-miss and --cost-false-alarm.",
)
@click.option("--half/--full", default=None, help="Save the weights in half precision, which takes half the disk space.")
def command(data: tuple[Path, ...], good_only: Path | None, out: Path, resume: bool, **chosen: Any) -> int:
    """Make a model version: train the ensemble on labelled pictures, or learn from pictures of good parts alone.

    With --good-only, the training takes less than two minutes. It uses only --side, --depth-bits, --details, and the options that choose
    the scorer's cut-off.

    Ctrl-C stops the training and saves the best weights so far. To continue, give the same command again with --resume. The folder
    OUT.training holds the training curves and a report on the pictures.

    Exit codes: 0 done, 2 wrong option, 3 the pictures or the folder cannot be used, 130 interrupted.
    """
    # Hide TensorFlow's messages, which would disturb the progress bars. TensorFlow reads this environment variable during its import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    given = {name: value for name, value in chosen.items() if value is not None}
    if bool(data) == bool(good_only):
        raise click.UsageError("Give either --data or --good-only.")
    options = make_options(given)
    out = out.absolute()
    command_line = shlex.join(["castline", *shorten_paths(sys.argv[1:])])
    if good_only:
        _expect_good_only_options(given, resume)
        return _learn_from_good_parts(good_only, out, options, command_line)
    from models.training.training_run import TrainingRun

    return _run(TrainingRun(options, data, out.parent, out.name, command_line), resume)


def _expect_good_only_options(given: dict[str, Any], resume: bool) -> None:
    useless = [name for name in given if name not in _GOOD_ONLY_OPTIONS] + (["resume"] if resume else [])
    if useless:
        option = useless[0].removesuffix("_px").replace("_", "-")
        raise click.UsageError(f"--{option} cannot be used with --good-only, because no network is trained. Leave out the option.")


def _learn_from_good_parts(folder: Path, out: Path, options: TrainingOptions, command_line: str) -> int:
    from models.training.good_only import ENOUGH_PICTURES, GoodOnlyRun
    from models.training.progress_bars import ProgressBars

    run = GoodOnlyRun(
        folder, out.parent, out.name, options.choose_objective(), options.side_px, options.depth_bits, command_line, options.details
    )
    with ProgressBars() as bars:
        result = run.run(bars)
    cut_off = result.cut_off
    click.echo(f"version {result.version.folder}")
    click.echo(
        f"learned from {cut_off.good_pictures} good pictures in {result.groups} groups of near-duplicates; cut-off {cut_off.score:.4f} for "
        f"{cut_off.alarm_share:.2%} false alarms; {cut_off.alarms} of the pictures are above the cut-off; with 95 % confidence at most "
        f"{cut_off.highest_alarm_share:.1%} of all good parts are above it"
    )
    _echo_details(result.version.manifest)
    if result.groups < ENOUGH_PICTURES:
        click.echo(
            f"Warning: the pictures show only {result.groups} different parts, so the cut-off is uncertain. Add pictures of other good "
            f"parts, until there are at least {ENOUGH_PICTURES}.",
            err=True,
        )
    return 0


def _echo_details(manifest: Manifest) -> None:
    details = manifest.details
    if details:
        click.echo(
            f"the search for small defects learned from {details.good_pictures} good pictures, in which the radius of the part is "
            f"{details.radius_px:.0f} px; cut-off {details.cut_off:.4f} for {details.alarm_share:.2%} false alarms; with 95 % confidence "
            f"at most {details.highest_alarm_share:.1%} of all good parts are above it"
        )


def make_options(values: dict[str, Any]) -> TrainingOptions:
    """Returns the options of a training. If a value is out of bounds, raises click.UsageError with the name of the option."""
    from pydantic import ValidationError

    try:
        return TrainingOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "-".join(map(str, first["loc"])).removesuffix("_px").replace("_", "-")
        value, reason = first["input"], first["msg"]
        raise click.UsageError(f"The value {value} of --{option} is not allowed: {reason}. Give another value.") from error


def echo_result(result: TrainingResult) -> None:
    """Prints the folder of the version and its figures on the validation pictures."""
    manifest = result.version.manifest
    figures = manifest.figures
    click.echo(f"version {result.version.folder}{' (interrupted: the best so far)' if result.was_interrupted else ''}")
    click.echo(
        f"validated on {figures['pictures']:.0f} pictures: accuracy {figures['accuracy']:.4f}, {figures['misses']:.0f} misses, "
        f"{figures['false_alarms']:.0f} false alarms at threshold {manifest.threshold:.4f}; for review {figures['reviews']:.0f}"
    )
    for voter in manifest.voters:
        click.echo(f"  {voter.name}: accuracy {figures[f'{voter.name}_accuracy_at_half']:.4f} at 0.5, weight {voter.weight:.2f}")
    if not result.combination.beats_members and max(voter.weight for voter in manifest.voters) < 1:
        click.echo("  the ensemble is not better than its best member on these pictures")
    _echo_details(manifest)
    for warning in manifest.warnings:
        click.echo(warning)


def _run(run: TrainingRun, resume: bool) -> int:
    from models.training.progress_bars import ProgressBars

    with ProgressBars() as bars:
        result = run.run(bars, resume)
    echo_result(result)
    click.echo(f"curves, split and report on the pictures: {run.training_dir}")
    return 130 if result.was_interrupted else 0


def shorten_paths(arguments: list[str]) -> list[str]:
    """Makes paths below the working folder relative, because the manifest should not name folders of this machine."""
    working_folder = f"{Path.cwd()}{os.sep}"
    return [argument.replace(working_folder, "") for argument in arguments]


def _show_defaults() -> None:
    """Adds the defaults of the training options to their help texts.

    The options have no default in click, because the command must know which options the person has given.
    """
    for parameter in command.params:
        default = TrainingOptions.model_fields[parameter.name].default if parameter.name in TrainingOptions.model_fields else None
        if isinstance(parameter, click.Option) and default is not None and not parameter.is_flag:
            parameter.help = f"{parameter.help}  [default: {default}]"


_show_defaults()
