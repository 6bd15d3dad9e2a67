"""`castline top`: the live view of a running plant, from its metrics."""

from __future__ import annotations

import time
from pathlib import Path

import click

from streams.errors import SettingsError
from streams.settings import load_settings


@click.command("top")
@click.option("--targets", multiple=True, help="Target files as a glob, instead of this machine's run folder. May be given several times.")
@click.option("--every", "every_s", default=2.0, show_default=True, type=click.FloatRange(0.5, 60), help="Seconds between two looks.")
@click.option("--seconds", type=click.FloatRange(0.5), help="End after so long; without: at Ctrl-C.")
@click.option("--plain", is_flag=True, help="A status line every few seconds instead of the live view; so without a terminal.")
@click.pass_obj
def command(file: Path | None, targets: tuple[str, ...], every_s: float, seconds: float | None, plain: bool) -> int:
    """Watch the lines of a running plant: parts, verdicts, ages, queues and gates, and what an operator should act on.

    Reads the metrics pages that the processes announce in `<service.run_dir>/targets`; the topics are not touched. Counts are
    since the processes' start, ages and rates of the last minute. Exit status 3 when no process is announced.
    """
    from rich.console import Console

    from deploy.cli.plant_metrics import PlantWatch, look
    from deploy.cli.plant_metrics import targets as announced
    from deploy.demo.screens import LiveScreen, PlainScreen

    patterns = targets or (str(load_settings(file).service.run_dir / "targets" / "*.json"),)
    if not announced(patterns):
        raise SettingsError(f"expected running processes to be announced in {', '.join(patterns)}, found none")
    watch, out, began = PlantWatch(), Console(highlight=False), time.monotonic()
    with PlainScreen(out) if plain or not out.is_terminal else LiveScreen(out) as screen:
        try:
            while seconds is None or time.monotonic() - began < seconds:
                # Read anew each time: a process that was started again has another address.
                watch.add(look(announced(patterns), time.monotonic()))
                screen.show(watch.snapshot())
                time.sleep(every_s)
        except KeyboardInterrupt:
            return 0
    return 0
