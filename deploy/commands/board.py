"""`castline board`: simulate a line's board, or talk to one."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from firmware.board.board import Board
from firmware.board.line import SimulatedLine
from firmware.board.memory import FileMemory
from firmware.board.plant import Belt, Feed, Plant
from firmware.board.terminal import Terminal, TruthLog, run
from streams.errors import SettingsError
from streams.settings import GateSettings, load_settings


@click.group("board")
def command() -> None:
    """Talk to a line's board, or simulate one. The protocol is firmware/PROTOCOL.md."""


@command.command("simulate")
@click.option("--line", "name", required=True, help="Line whose gate settings (belt speed, travel, port) the simulated line has.")
@click.option("--rate", default=2.0, show_default=True, type=click.FloatRange(0.01, 100), help="Parts a second.")
@click.option("--jitter", default=0.2, show_default=True, type=click.FloatRange(0, 0.9), help="Random share of the distance of two parts.")
@click.option("--seed", default=1, show_default=True, help="Seed of the jitter.")
@click.option("--parts", type=click.IntRange(1), help="Stop feeding after so many; the board stays. Without: no end.")
@click.option(
    "--travel-s", type=click.FloatRange(0.2, 600), help="Time from camera to gate, instead of the settings'; changes the belt's speed."
)
@click.option(
    "--link", type=click.Path(path_type=Path), help="Where to put the link to the serial port; else the gate's port in the settings."
)
@click.option("--memory", type=click.Path(path_type=Path, dir_okay=False), help="File that stands for the EEPROM; else <link>.eeprom.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Write what physically happened as JSON lines.")
@click.pass_obj
def simulate(
    file: Path | None,
    name: str,
    rate: float,
    jitter: float,
    seed: int,
    parts: int | None,
    travel_s: float | None,
    link: Path | None,
    memory: Path | None,
    log: Path | None,
) -> None:
    """Run a board and a belt with castings behind a pseudo-terminal, until SIGTERM.

    Castings come once a sorter has configured the board. SIGTERM ends the feeding, lets the belt run empty, then stops.
    Starting again counts the boot up, as a reset does.
    """
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    gate = load_settings(file).line(name).gate
    if gate is None:
        raise SettingsError(f"lines.{name}.gate: expected the settings of a gate to simulate, found none")
    speed = gate.belt_mm_per_s if travel_s is None else gate.travel_mm / travel_s
    try:
        plant = Plant(_belt(gate, speed), Feed(rate_per_s=rate, jitter=jitter, seed=seed, parts=parts))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    link = link or Path(gate.port)
    with ExitStack() as stack:
        try:
            terminal = stack.enter_context(Terminal(link))
            truth = stack.enter_context(log.open("a")) if log else None
            board = Board(FileMemory(memory or link.with_name(f"{link.name}.eeprom")))
        except OSError as error:
            raise SettingsError(f"board {name}: {error}") from None
        click.echo(f"board ready at {link}, run {board.run}")
        run(SimulatedLine(board, plant, TruthLog(truth)), terminal, stopping)


def _belt(gate: GateSettings, speed_mm_s: float) -> Belt:
    return Belt(speed_mm_s=speed_mm_s, eye_gap_mm=gate.travel_mm, blade_mm=20 + 0.08 * speed_mm_s)
