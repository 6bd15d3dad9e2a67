"""The command `castline sorter`: sends verdicts to the boards and records the movements of the gates."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from pathlib import Path

import click

from deploy.cli.role_start import start_role
from deploy.supervisor.launch import bound_command
from deploy.supervisor.priority import raise_priority
from firmware.fault_table import error_codes
from streams import metrics
from streams.errors import BrokerError
from streams.group_members import make_identity
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, handle_stop_signals, worker_process

ROLE = "sorter"
# Python lets another thread run after this time, in seconds. The default of 5 ms would delay verdicts, because each verdict passes through
# three threads.
_SWITCH_INTERVAL_S = 0.0005


@click.command("sorter")
@click.option(
    "--line", "names", multiple=True, help="Name of a line to serve. You can repeat the option.  [default: all lines that have a gate]"
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of /metrics, /healthz and /readyz, if the command serves only one board. 0: any free port.  [default: 0]",
)
@click.pass_obj
def command(file: Path | None, names: tuple[str, ...], port: int) -> int:
    """Send the verdicts of lines to their boards, and record what the gates do, until SIGTERM.

    Each board gets its own process, which serves all lines of the board. If one process ends, the command stops the others and ends too.

    Records wait in the folder sorter.journal_dir while Kafka is unavailable. A damaged file of this folder is renamed to
    LINE.damaged-SECONDS, and a new file begins. You may delete the renamed file when you have checked the disk, because no role reads it.
    """
    settings = start_role(file, ROLE)
    boards = settings.lines_by_board(names)
    if len(boards) > 1:
        return _run_one_process_per_board(file, boards)
    raise_priority()
    (lines,) = boards
    for line in lines:
        metrics.initialise_counters(ROLE, line, [code.code for code in error_codes().values() if code.kind == "fault"])
    with worker_process(settings, ROLE, port, f"{ROLE}-{lines[0]}") as process:
        return _serve_lines(process, lines)


def _run_one_process_per_board(file: Path | None, boards: list[list[str]]) -> int:
    castline = [str(Path(sys.argv[0])), *(("--settings", str(file)) if file else ())]
    children = [subprocess.Popen(bound_command([*castline, ROLE, "--line", lines[0]])) for lines in boards]
    stop_requested = handle_stop_signals()
    while not stop_requested.is_set() and all(child.poll() is None for child in children):
        time.sleep(0.1)
    for child in children:
        if child.poll() is None:
            child.terminate()
    return max(abs(child.wait()) for child in children)


def _serve_lines(process: WorkerProcess, lines: list[str]) -> int:
    """Runs the sorters of `lines` until SIGTERM, and returns the exit status.

    Until Kafka answers, the sorter sends no settings to its board. If the board was reset, it stays in its safe state. If the board was not
    reset, it continues to move its gates. Meanwhile, the sorter stores the board's reports on disk, and sends them when Kafka answers.
    """
    from agents.sorter.outage_recorder import OutageRecorder

    names = TopicNames(process.settings.topics.prefix)
    topics = [topic for line in lines for topic in (names.verdicts(line), names.sorted(line))]
    identities = [make_identity(process.settings, f"{ROLE}-{line}", process.instance, is_exclusive=True) for line in lines]
    with OutageRecorder(process.settings, lines):
        if not process.wait_for_topics([*topics, names.dead_letters], identities):
            return 0
    # Imported here because importing Faust takes a second, and `castline sorter --help` should be fast.
    from agents.sorter.process import run_sorters

    # `freeze` excludes the imported modules from garbage collection. Without `freeze`, long collections would delay verdicts.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)

    async def run_or_restart() -> int:
        try:
            return await run_sorters(process.settings, lines, process.instance, process.health)
        except BrokerError as error:
            # Restart the process here, before asyncio.run() ends. At its end, asyncio.run() waits for all threads, and a thread of Faust
            # can wait a long time for Kafka.
            process.restart(f"The sorter waits for Kafka. {error}")
            return 0

    return asyncio.run(run_or_restart())
