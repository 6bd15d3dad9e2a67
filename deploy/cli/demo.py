"""The command `castline demo`: runs a small simulated foundry on this machine, with the same processes as a real plant."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.demo.foundry import DemoOptions
    from deploy.demo.report import DemoReport

# The seed for the rendered castings of the demo. The version `demo` was trained with other seeds, so it has never seen these castings.
CASTINGS_SEED = 20261


@click.command("demo")
@click.option(
    "--seconds",
    type=click.FloatRange(1, 864_000),
    help="Run for this many seconds after all processes are ready. The default is to run until Ctrl-C.",
)
@click.option("--lines", default=3, show_default=True, type=click.IntRange(1, 24), help="Number of lines.")
@click.option("--rate", default=2.0, show_default=True, type=click.FloatRange(0.05, 6), help="Parts a second on each line.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Use the pictures in the folders ok_front/ and def_front/ of this folder instead of rendered castings.",
)
@click.option(
    "--model",
    default="demo",
    show_default=True,
    help="Model version: the name of a version that comes with Castline, or the path of a folder that castline train has made.",
)
@click.option("--report", "report_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file as JSON.")
@click.option("--inspectors", default=1, show_default=True, type=click.IntRange(1, 16), help="Number of inspector processes.")
@click.option(
    "--travel-s",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.5, 30),
    help="Time that a part needs from the camera to the gate, in seconds.",
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Seed of the random numbers that decide the order of the parts and the distances between them.",
)
@click.option(
    "--boards",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "avr", "python"]),
    help="Kind of simulated board. avr: the real firmware in an AVR simulator. python: a Python simulation. auto: avr if it is installed.",
)
@click.option("--no-station", is_flag=True, help="Start neither archivist nor station, only broker, gateway, inspectors and sorters.")
@click.option(
    "--keep",
    is_flag=True,
    help="Keep the folder with settings, topics and logs at the end. Without this option, only the folder of a failed run is kept.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="Print a line every few seconds instead of the live table. This is the default if the output is not a terminal.",
)
def command(
    seconds: float | None,
    lines: int,
    rate: float,
    images: Path | None,
    model: str,
    report_file: Path | None,
    inspectors: int,
    travel_s: float,
    seed: int,
    boards: str,
    no_station: bool,
    keep: bool,
    plain: bool,
) -> int:
    """Run a simulated foundry on a real Kafka: castings are photographed, judged and sorted.

    The demo uses its own settings, so a real plant is not used or changed. It prints the address of the station, and a name and a
    password to log in.

    After Ctrl-C the belts run empty. Then the demo checks that every part has a picture, a verdict and a record of what the gate did. It
    also checks that each casting was diverted or passed as this record says.

    Exit codes: 0 done, 1 the check failed, 3 a process cannot run, 130 stopped before the check. The check fails if a part was lost or
    fell to the wrong side, or if a gate moved twice for one part.
    """
    from rich.console import Console

    from deploy.demo.foundry import DemoOptions, remove_plant_variables
    from models.registry import locate_version

    # The result goes to standard output, and messages about the preparations go to standard error.
    output, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    if removed := remove_plant_variables(os.environ):
        progress.print(f"The demo has settings of its own and ignores: {', '.join(removed)}", soft_wrap=True)
    if report_file is not None and not report_file.resolve().parent.is_dir():
        folder_name = report_file.resolve().parent
        raise click.UsageError(f"Cannot write --report {report_file}: there is no folder {folder_name}. Choose an existing folder.")
    locate_version(model)  # Check --model before castings are rendered and processes are started.
    images = images or _render_castings(progress)
    options = DemoOptions(lines, rate, travel_s, model, inspectors, seed, not no_station, _prepare_firmware(boards, progress))
    folder = Path(tempfile.mkdtemp(prefix="castline-demo-"))
    keep_folder = True
    try:
        report = _run(options, images, folder, seconds, output, plain or not output.is_terminal)
        keep_folder = keep or (report is not None and bool(report.failures))
    finally:
        if keep_folder:
            progress.print(f"The run folder is kept: {folder} (demo.log holds the log of all processes)", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 130 if report is None else _conclude(report, report_file, output)


def _run(options: DemoOptions, images: Path, folder: Path, seconds: float | None, output: Console, plain: bool) -> DemoReport | None:
    """Runs the demo and returns its report, or None if the demo was stopped before the audit."""
    from deploy.demo.demo_run import DemoInterruptedError, DemoRun
    from deploy.demo.foundry import make_foundry
    from deploy.demo.terminal_view import LiveScreen, PlainScreen
    from deploy.supervisor import Journal, LogFile, StopRequests

    foundry = make_foundry(options, images, folder)
    requests = StopRequests()
    try:
        with LogFile(foundry.log) as log, PlainScreen(output) if plain else LiveScreen(output) as screen:
            return DemoRun(foundry, seconds, screen, requests, Journal(log)).run()
    except DemoInterruptedError as error:
        click.echo(str(error), err=True)
        return None


def _conclude(report: DemoReport, file: Path | None, output: Console) -> int:
    from deploy.demo.report import print_report, write_report

    print_report(report, output)
    if file is not None:
        write_report(report, file)
        click.echo(f"report: {file}")
    sys.stdout.flush()
    return 1 if report.failures else 0


def _prepare_firmware(boards: str, progress: Console) -> bool:
    """Returns whether the simulated boards run the real firmware of the Arduino Mega. If they do, builds the firmware first.

    Raises SettingsError if the build fails.
    """
    from firmware import toolchain
    from streams.errors import SettingsError

    missing = toolchain.missing_packages()
    if boards == "python" or (boards == "auto" and missing):
        advice = f" To run the Mega's own firmware: apt-get install {' '.join(missing)}" if missing else ""
        progress.print(f"The boards are simulated in Python.{advice}", soft_wrap=True)
        return False
    try:
        toolchain.ensure_installed()
        toolchain.build_firmware()
        toolchain.build_runner()
    except toolchain.ToolchainError as error:
        raise SettingsError(f"--boards avr: {error}") from None
    progress.print("The boards run the Mega's own firmware in an AVR simulator.", soft_wrap=True)
    return True


def _render_castings(progress: Console) -> Path:
    from rich.progress import Progress

    from deploy.demo.foundry import CASTINGS_COUNT, render_castings

    with Progress(console=progress, transient=True) as bar:
        task = bar.add_task("rendering castings (only once)", total=CASTINGS_COUNT)
        return render_castings(CASTINGS_SEED, lambda done, total: bar.update(task, completed=done))
