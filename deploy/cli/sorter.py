"""`castline sorter`: tells the boards the verdicts and records what their gates did."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from pathlib import Path

import click

from deploy.supervisor.launch import bound_command
from deploy.supervisor.priority import raise_priority
from firmware.fault_table import error_codes
from streams import metrics
from streams.logs import configure_logs
from streams.settings import load_settings
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, handle_stop_signals, worker_process

log = logging.getLogger(__name__)
ROLE = "sorter"


@click.command("sorter")
@click.option("--line", "names", multiple=True, help="Line to serve; may be given several times. Without: all lines that have a gate.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the health pages of one board's lines; 0 takes a free one.")
@click.pass_obj
def command(file: Path | None, names: tuple[str, ...], port: int) -> int:
    """Tell each line's board the verdicts and record what its gate did, until SIGTERM.

    One process serves one board, so that a stuck port harms one board: lines that share a board are served together, and naming
    one names all of them. For several boards it starts one process each, and ends with the first that ends. While Kafka or the
    board is away it waits and says so; /readyz is 503. It takes precedence of other processes where the user may.
    """
    settings = load_settings(file)
    configure_logs(settings.service, ROLE)
    boards = settings.lines_by_board(names)
    if len(boards) > 1:
        return _serve_each(file, boards)
    raise_priority()
    (lines,) = boards
    for line in lines:
        metrics.initialise_counters(ROLE, line, [code.code for code in error_codes().values() if code.kind == "fault"])
    with worker_process(settings, ROLE, port, f"{ROLE}-{lines[0]}") as worker:
        return _serve(worker, lines)


def _serve_each(file: Path | None, boards: list[list[str]]) -> int:
    """A process a board; all of them end when one ends or when this one is told to."""
    castline = [str(Path(sys.argv[0])), *(("--settings", str(file)) if file else ())]
    children = [subprocess.Popen(bound_command([*castline, ROLE, "--line", lines[0]])) for lines in boards]
    stop_requested = handle_stop_signals()
    while not stop_requested.is_set() and all(child.poll() is None for child in children):
        time.sleep(0.1)
    for child in children:
        if child.poll() is None:
            child.terminate()
    return max(abs(child.wait()) for child in children)


def _serve(worker: WorkerProcess, lines: list[str]) -> int:
    names = TopicNames(worker.settings.topics.prefix)
    wanted = [topic for line in lines for topic in (names.verdicts(line), names.sorted(line))]
    if not worker.wait_for_topics([*wanted, names.dead_letters]):
        return 0
    # Imported here: Faust takes a second, and `castline sorter --help` should not.
    from agents.sorter.process import run_sorters

    return asyncio.run(run_sorters(worker.settings, lines, worker.instance, worker.health))
