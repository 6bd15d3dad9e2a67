"""The command `castline render`: renders pictures of castings with known defects."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("render")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to. It must be empty or absent."
)
@click.option("--count", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Number of castings to render.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Seed of the random numbers. The same seed gives the same castings.",
)
@click.option("--defect-share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Share of castings with a defect.")
def command(out: Path, count: int, seed: int, defect_share: float) -> None:
    """Render pictures of good and defective impellers, 300 x 300 px. Each class gets a folder, and castings.csv lists all castings.

    Masks show where the defects are. The value of a pixel names the kind of defect: 1 blow hole, 2 shrinkage, 3 cold shut, 4 chipping,
    5 flash, 6 scratch.
    """
    from rich.console import Console
    from rich.progress import track

    from models.synthetic.casting import write_castings

    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"The folder {out} holds files already. Give an empty or absent folder as --out.")
    steps = iter(track(range(count), "rendering", console=Console(stderr=True), transient=True))
    counts = write_castings(out, count, seed, defect_share, on_casting=lambda done, total: next(steps))
    next(steps, None)
    click.echo(f"{out}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
