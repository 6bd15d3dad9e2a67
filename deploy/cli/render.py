"""`castline render`: castings that no camera has seen, with known defects."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("render")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to; must be empty or absent.")
@click.option("--count", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Castings to draw.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The same seed draws the same castings.")
@click.option("--defect-share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Share of defective ones.")
def command(out: Path, count: int, seed: int, defect_share: float) -> None:
    """Draw impellers, good and defective, 300 x 300 px, in class folders.

    Writes ok_front/, def_front/, masks/def_front/ (pixel values 1 blow hole, 2 shrinkage, 3 cold shut, 4 chipping, 5 flash,
    6 scratch) and castings.csv.
    """
    from rich.console import Console
    from rich.progress import track

    from models.synthetic.folder import write_series

    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"--out: expected an empty folder, found files in {out}")
    steps = iter(track(range(count), "drawing", console=Console(stderr=True), transient=True))
    counts = write_series(out, count, seed, defect_share, advance=lambda: next(steps))
    next(steps, None)
    click.echo(f"{out}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
