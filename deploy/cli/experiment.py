"""`castline experiment`: the tables of many trainings. Each cell is kept when it is done; the same command goes on after a stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.training.options import Options

if TYPE_CHECKING:
    from models.evaluation.experiments.table import Table
    from models.training.collection import Collection
    from models.training.progress import Bars

DATA = click.option(
    "--data", type=click.Path(path_type=Path), multiple=True, required=True, help="Folder of class folders, or CSV list; may be repeated."
)
OUT = click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the cells and the table.")


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(each) for each in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"expected numbers with commas between them, found {value!r}") from error


SEEDS = click.option("--seeds", default="1,2,3", show_default=True, callback=_numbers, help="One training each; of split and weights.")


def recipe(**defaults: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a training that an experiment varies or holds, with the experiment's own defaults."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        kinds: dict[str, tuple[Any, str]] = {
            "side_px": (int, "Side in pixels of the pictures."),
            "lenet_side_px": (int, "Side in pixels that LeNet takes."),
            "lenet_width": (int, "Multiple of LeNet's maps."),
            "maps": (float, "Share of the paper's maps that AlexNet's convolutions keep."),
            "dense_width": (int, "Width of AlexNet's fully connected layers."),
            "dense_layers": (int, "AlexNet's fully connected layers before the answering one."),
            "epochs": (int, "Epochs of AlexNet."),
            "lenet_epochs": (int, "Epochs of LeNet."),
            "batch": (int, "Pictures of one step."),
            "rate": (float, "AlexNet's learning rate."),
            "lenet_rate": (float, "LeNet's learning rate."),
            "dropout": (float, "AlexNet's dropout."),
            "balance": (float, "How far small roots of pictures come more often, 0 to 1."),
            "turned": (click.Choice(["free", "quarter"]), "Turns of the augmentation."),
        }
        for name, default in reversed(defaults.items()):
            kind, said = kinds[name]
            flag = "--" + name.removesuffix("_px").replace("_", "-")
            function = click.option(flag, name, type=kind, default=default, show_default=True, help=said)(function)
        return function

    return decorate


@click.group("experiment")
def command() -> None:
    """Tables of many trainings on the same pictures. Ctrl-C stops after a batch; the same command goes on, and trains no finished cell
    again. Exit codes: 0 done, 2 wrong option, 3 the pictures or the folder are at fault, 130 interrupted.
    """


@command.command("layers")
@DATA
@OUT
@SEEDS
@click.option("--layers", default="1,2,3", show_default=True, callback=_numbers, help="Numbers of fully connected layers.")
@click.option("--test", type=click.Path(path_type=Path), multiple=True, help="Pictures kept apart, judged by every cell.")
@recipe(side_px=96, maps=0.25, dense_width=256, epochs=30, batch=16, rate=1e-3, dropout=0.2, turned="quarter")
def layers(
    data: tuple[Path, ...], out: Path, seeds: tuple[int, ...], layers: tuple[int, ...], test: tuple[Path, ...], **chosen: Any
) -> int:
    """AlexNet's recognition rate of any number of categories against its fully connected layers, the answering one counted in.

    Every seed has a split of its own, by groups of near-duplicates. The rate is that after the last epoch, on pictures that neither
    taught nor chose.
    """
    _quiet()
    from models.evaluation.experiments.layers import LayersExperiment

    options = _options(chosen)

    def work(bars: Bars) -> Table:
        pictures = _read(data, options.side_px, bars)
        apart = _read(test, options.side_px, bars, pictures.classes) if test else None
        return LayersExperiment(options, layers, seeds, out).run(pictures, apart, bars)

    return _told(out, work)


# That of `castline train`, so that its figures are what a training may be expected to come to.
ENSEMBLE_RECIPE: dict[str, Any] = {
    name: Options.model_fields[name].default
    for name in (
        *("side_px", "lenet_side_px", "lenet_width", "maps", "dense_width", "dense_layers", "epochs", "lenet_epochs"),
        *("batch", "rate", "lenet_rate", "dropout", "balance"),
    )
}


@command.command("voters")
@DATA
@OUT
@SEEDS
@recipe(**ENSEMBLE_RECIPE)
def voters(data: tuple[Path, ...], out: Path, seeds: tuple[int, ...], **chosen: Any) -> int:
    """A classifier without networks, each network alone and the ensemble: accuracy on the same grouped splits, several seeds.

    A share of the groups judges, and neither teaches nor chooses weights and threshold. Says whether the ensemble is better than its
    best member.
    """
    _quiet()
    from models.evaluation.experiments.comparison import Comparison, seeds_parts
    from models.evaluation.experiments.voters import voters_table

    options = _options(chosen)

    def work(bars: Bars) -> Table:
        pictures = _read(data, options.side_px, bars)
        return voters_table(Comparison(options, out, "voters", single=True).run(pictures, seeds_parts(pictures, options, seeds), bars))

    return _told(out, work)


@command.command("folds")
@DATA
@OUT
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2, 20), help="Parts of which each judges once.")
@recipe(**ENSEMBLE_RECIPE)
def folds(data: tuple[Path, ...], out: Path, folds: int, **chosen: Any) -> int:
    """Grouped cross-validation of a training's recipe: figures with 95 % intervals for each fold, pooled, and for each source."""
    _quiet()
    from models.evaluation.experiments.comparison import Comparison, folds_parts
    from models.evaluation.experiments.folds import folds_table

    options = _options(chosen)

    def work(bars: Bars) -> Table:
        pictures = _read(data, options.side_px, bars)
        return folds_table(
            Comparison(options, out, f"{folds} folds", single=False).run(pictures, folds_parts(pictures, options, folds), bars)
        )

    return _told(out, work)


def _quiet() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _options(chosen: dict[str, Any]) -> Options:
    from pydantic import ValidationError

    try:
        return Options(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{'-'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']}") from error


def _read(data: tuple[Path, ...], side_px: int, bars: Bars, classes: tuple[str, ...] | None = None) -> Collection:
    from models.training import collection
    from streams.errors import ModelError

    entries = collection.scan(data)
    done = iter(range(1, len(entries) + 1))
    pictures = collection.read(entries, side_px, classes, advance=lambda: bars.reading(next(done), len(entries)))
    for bad in pictures.unreadable:
        click.echo(f"left out: {bad.path}: {bad.message}", err=True)
    if len(set(pictures.labels)) < 2:
        raise ModelError(f"expected pictures of at least two classes, found only {', '.join(sorted({e.name for e in entries}))}")
    return pictures


def _told(out: Path, work: Callable[[Bars], Table]) -> int:
    from rich.console import Console
    from rich.table import Table as Shown

    from models.training.progress import Bars

    try:
        with Bars() as bars:
            table = work(bars)
    except KeyboardInterrupt:
        click.echo(f"interrupted; the same command goes on from {out}", err=True)
        return 130
    table.write(out)
    shown = Shown(*table.head, title=table.title)
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)
    for sentence in table.said:
        click.echo(sentence)
    click.echo(f"{out / 'table.csv'}, {out / 'table.md'}")
    return 0
