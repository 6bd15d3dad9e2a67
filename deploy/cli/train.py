"""`castline train`: from folders of pictures to a model version."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.training.options import Options

if TYPE_CHECKING:
    from models.training.training_run import Course, Outcome


@click.command("train")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder of class folders (ok..., def...), or CSV list with the columns path and class; may be repeated.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new version; its name is the version's.")
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped.")
@click.option("--from", "start", metavar="VERSION", help="Go on from this version with new pictures (fine-tuning).")
@click.option("--epochs", type=int, help="Most epochs of AlexNet.")
@click.option("--lenet-epochs", type=int, help="Most epochs of LeNet.")
@click.option("--patience", type=int, help="Epochs without a better validation loss before a network stops; 0: never.")
@click.option("--side", "side_px", type=int, help="Side in pixels that pictures are resampled to.")
@click.option("--lenet-side", "lenet_side_px", type=int, help="Side in pixels that LeNet takes.")
@click.option("--lenet-width", type=int, help="Multiple of LeNet's 6 and 16 maps.")
@click.option("--dense-width", type=int, help="Width of AlexNet's fully connected layers.")
@click.option("--dense-layers", type=int, help="Number of AlexNet's fully connected layers.")
@click.option("--maps", type=float, help="Share of the paper's maps that AlexNet's convolutions keep.")
@click.option("--normalisation", type=click.Choice(["batch", "local-response"]), help="AlexNet's normalisation.")
@click.option("--head", type=click.Choice(["softmax", "logistic"]), help="Last layer.")
@click.option("--batch", type=int, help="Pictures of one step.")
@click.option("--rate", type=float, help="Learning rate.")
@click.option("--lenet-rate", type=float, help="LeNet's learning rate.")
@click.option("--dropout", type=float, help="AlexNet's dropout.")
@click.option(
    "--balance", type=float, help="How far small roots of pictures come more often: 0 not, 1 as often as the largest, up to 16 times."
)
@click.option("--turned", type=click.Choice(["free", "quarter"]), help="Turns of the augmentation: any angle, or right ones only.")
@click.option("--seed", type=int, help="Of the split, the weights and the augmentation.")
@click.option("--validation-share", type=float, help="Share of the groups of pictures kept for validation.")
@click.option("--near-rings", type=float, help="How near turned pictures are one group; 0 for right angles only, as before there was it.")
@click.option("--cost-miss", type=float, help="What a defect taken for good costs.")
@click.option("--cost-false-alarm", type=float, help="What a good part taken for a defect costs.")
@click.option("--review-share", type=float, help="Share of the validation pictures in the band of doubt.")
@click.option("--precision", type=click.Choice(["auto", "float32", "mixed_bfloat16"]), help="Arithmetic of the training.")
@click.option("--half/--full", default=None, help="Save weights in half precision.")
def command(data: tuple[Path, ...], out: Path, resume: bool, **chosen: Any) -> int:
    """Train the ensemble on folders of pictures.

    Ctrl-C keeps the best so far as a version; --resume goes on from there. Curves, split and a report on the pictures are in
    OUT.training. Exit codes: 0 done, 2 wrong option, 3 the pictures or the folder are at fault, 130 interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its greetings tear the progress bar
    from pydantic import ValidationError

    from models.training.training_run import Course

    try:
        options = Options(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"--{'-'.join(map(str, first['loc'])).replace('_', '-')}: {first['msg']}, found {first['input']}") from error
    out = out.absolute()
    line = shlex.join(["castline", *_relative(sys.argv[1:])])
    return _run(Course(options, data, out.parent, out.name, line), resume)


# An option's default is the training's own; here it is only told.
for _parameter in command.params:
    _told = Options.model_fields[_parameter.name].default if _parameter.name in Options.model_fields else None
    if isinstance(_parameter, click.Option) and _told is not None and not _parameter.is_flag:
        _parameter.help = f"{_parameter.help}  [default: {_told}]"


def _run(course: Course, resume: bool) -> int:
    from models.training.progress import Bars

    with Bars() as bars:
        outcome = course.run(bars, resume)
    tell(outcome)
    click.echo(f"curves, split and cleaning report: {course.records}")
    return 130 if outcome.interrupted else 0


def tell(outcome: Outcome) -> None:
    """Says what a training came to."""
    manifest = outcome.version.manifest
    found = manifest.figures
    click.echo(f"version {outcome.version.folder}{' (interrupted: the best so far)' if outcome.interrupted else ''}")
    click.echo(
        f"validated on {found['pictures']:.0f} pictures: accuracy {found['accuracy']:.4f}, {found['misses']:.0f} misses, "
        f"{found['false_alarms']:.0f} false alarms at threshold {manifest.threshold:.4f}; for review {found['reviews']:.0f}"
    )
    for voter in manifest.voters:
        click.echo(f"  {voter.name}: accuracy {found[f'{voter.name}_accuracy_at_half']:.4f} at 0.5, weight {voter.weight:.2f}")
    if not outcome.combination.better:
        click.echo("  the ensemble is not better than its best member on these pictures")


def _relative(arguments: list[str]) -> list[str]:
    """The command as it is written down: paths below the working folder relative to it, so that no machine's folders are told."""
    here = f"{Path.cwd()}{os.sep}"
    return [argument.replace(here, "") for argument in arguments]
