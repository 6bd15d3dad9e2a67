"""`castline demo`: a small foundry on this machine, with the processes of a real one."""

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

    from deploy.demo.foundry import Wishes
    from deploy.demo.report import Report

# Other than the seeds that the project's own weights were trained on.
CASTINGS_SEED = 20261


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(1, 864_000), help="Run for so long once all is ready; without: until Ctrl-C.")
@click.option("--lines", default=3, show_default=True, type=click.IntRange(1, 24), help="Lines of the foundry.")
@click.option("--rate", default=2.0, show_default=True, type=click.FloatRange(0.05, 6), help="Parts a second on each line.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Class folders (ok_front/, def_front/) instead of rendered castings.",
)
@click.option(
    "--model", default="demo", show_default=True, help="Version of the model: a name, or the path of a folder made by castline train."
)
@click.option("--report", "report_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as JSON.")
@click.option("--inspectors", default=1, show_default=True, type=click.IntRange(1, 16), help="Inspector processes.")
@click.option(
    "--travel-s", default=3.0, show_default=True, type=click.FloatRange(0.5, 30), help="Time of a part from its camera to its gate."
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 1_000_000), help="Seed of the order and distance of parts.")
@click.option(
    "--boards",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "avr", "python"]),
    help="avr: the Mega's own firmware in an AVR simulator; python: a simulated board; auto: avr where its Debian packages are installed.",
)
@click.option("--no-station", is_flag=True, help="Without archivist and station: only broker, gateway, inspectors and sorters.")
@click.option("--keep", is_flag=True, help="Keep the run folder: settings, topics, log of all processes, boards' logs.")
@click.option("--plain", is_flag=True, help="A status line every few seconds instead of the live view; so without a terminal.")
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
    """Watch a foundry at work: castings photographed, judged and sorted over a real Kafka.

    Starts a broker, a gateway, inspectors, a sorter and a simulated board with a belt for each line, an archivist and the
    station's pages, as separate processes with settings of their own in a temporary folder; settings of a real plant are not
    touched. The pages' address and an account that exists only there are printed. Ctrl-C lets the belts run empty, then what
    lies in the topics is audited by an independent reader and compared with where each casting really fell.

    Exit status 1 when a part was lost, a gate moved twice for one part or a casting fell to another side than recorded;
    3 when a process cannot run; 130 when it was stopped before there was anything to audit.
    """
    from rich.console import Console

    from deploy.demo.foundry import Wishes, shed
    from models.registry import locate_version

    # What the caller asked for comes to standard output, how it is prepared to standard error.
    out, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    if foreign := shed(os.environ):
        progress.print(f"the demo has settings of its own; passed over: {', '.join(foreign)}", soft_wrap=True)
    if report_file is not None and not report_file.resolve().parent.is_dir():
        raise click.UsageError(f"--report: expected an existing folder, found none at {report_file.resolve().parent}")
    locate_version(model)  # refused before anything is drawn or started
    wishes = Wishes(
        lines, rate, travel_s, images or _rendered(progress), model, inspectors, seed, not no_station, _firmware(boards, progress)
    )
    folder = Path(tempfile.mkdtemp(prefix="castline-demo-"))
    worth_keeping = True
    try:
        report = _run(wishes, folder, seconds, out, plain or not out.is_terminal)
        worth_keeping = report is not None and bool(report.bad)
    finally:
        if keep or worth_keeping:
            progress.print(f"the run folder is kept: {folder} (all processes' log: demo.log)", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 130 if report is None else _conclude(report, report_file, out)


def _run(wishes: Wishes, folder: Path, seconds: float | None, out: Console, plain: bool) -> Report | None:
    from deploy.demo.foundry import found
    from deploy.demo.screens import LiveScreen, PlainScreen
    from deploy.demo.session import Interrupted, Session
    from deploy.supervisor import Journal, StopRequests

    assert wishes.images is not None
    foundry = found(wishes, wishes.images, folder)
    requests = StopRequests()
    try:
        with foundry.log.open("w", encoding="utf-8") as log, PlainScreen(out) if plain else LiveScreen(out) as screen:
            return Session(foundry, seconds, screen, requests, Journal(log)).run()
    except Interrupted as interruption:
        click.echo(str(interruption), err=True)
        return None


def _conclude(report: Report, file: Path | None, out: Console) -> int:
    from deploy.demo.report import print_report, write_report

    print_report(report, out)
    if file is not None:
        write_report(report, file)
        click.echo(f"report: {file}")
    sys.stdout.flush()
    return 1 if report.bad else 0


def _firmware(boards: str, progress: Console) -> bool:
    """Whether the boards run the real firmware; says so. Builds it first, so that the boards start at once.

    Raises SettingsError: when it was asked for and cannot be built.
    """
    from firmware import toolchain
    from streams.errors import SettingsError

    absent = toolchain.missing_packages()
    if boards == "python" or (boards == "auto" and absent):
        why = f"; for the Mega's own firmware: apt-get install {' '.join(absent)}" if absent else ""
        progress.print(f"boards: simulated in Python{why}", soft_wrap=True)
        return False
    try:
        toolchain.ensure_installed()
        toolchain.build_firmware()
        toolchain.build_runner()
    except toolchain.ToolchainError as error:
        raise SettingsError(f"--boards avr: {error}") from None
    progress.print("boards: the Mega's own firmware in an AVR simulator", soft_wrap=True)
    return True


def _rendered(progress: Console) -> Path:
    from rich.progress import Progress

    from deploy.demo.castings import CASTINGS, cached_castings

    with Progress(console=progress, transient=True) as bar:
        task = bar.add_task("drawing castings, once", total=CASTINGS)
        return cached_castings(CASTINGS_SEED, lambda: bar.advance(task))
