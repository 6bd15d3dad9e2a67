"""The command `castline top`: shows the lines of a running plant in the terminal. The figures come from the metrics of the processes."""

from __future__ import annotations

import time
from pathlib import Path

import click

from streams.errors import SettingsError
from streams.settings import load_settings


@click.command("top")
@click.option(
    "--targets",
    multiple=True,
    help="Path pattern of the target files, which list the processes to show. The default is <service.run_dir>/targets/*.json. You "
    "can repeat the option.",
)
@click.option(
    "--every",
    "every_s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.5, 60),
    help="Interval at which the command reads the metrics of the processes, in seconds.",
)
@click.option("--seconds", type=click.FloatRange(0.5), help="End after this many seconds. The default is to run until Ctrl-C.")
@click.option(
    "--plain",
    is_flag=True,
    help="Print a line every few seconds instead of the live table. This is the default if the output is not a terminal.",
)
@click.pass_obj
def command(file: Path | None, targets: tuple[str, ...], every_s: float, seconds: float | None, plain: bool) -> int:
    """Watch the lines of a running plant.

    The view shows the parts of each line, the verdicts and their age, the waiting pictures and the state of the line. The states are
    disconnected, gate held, planned stop, running blind, camera silent, late, no castings and running. An alarm appears when an operator
    should act.

    The counts of a process begin at 0 when the process starts. The ages and rates are computed from the last minute. The exit status is 3
    if no process is listed in `<service.run_dir>/targets`.
    """
    from rich.console import Console

    from deploy.demo.plant_monitor import PlantMonitor, find_targets, read_plant_metrics
    from deploy.demo.terminal_view import LiveScreen, PlainScreen

    settings = load_settings(file)
    patterns = targets or (str(settings.service.run_dir / "targets" / "*.json"),)
    if not find_targets(patterns):
        places = ", ".join(patterns)
        raise SettingsError(f"No running process is listed in {places}. Start the plant with castline up, or pass another --targets.")
    monitor, output, started_at = PlantMonitor(settings), Console(highlight=False), time.monotonic()
    with PlainScreen(output) if plain or not output.is_terminal else LiveScreen(output) as screen:
        try:
            while seconds is None or time.monotonic() - started_at < seconds:
                # Read the list of processes again each time, because a restarted process has another address.
                monitor.add(read_plant_metrics(find_targets(patterns), time.monotonic()), time.time())
                screen.show(monitor.make_snapshot())
                time.sleep(every_s)
        except KeyboardInterrupt:
            return 0
    return 0
