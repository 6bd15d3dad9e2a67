"""`castline board`: simulate a line's board, or talk to one."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from agents.sorting import lane_settings
from deploy.board_talk import talk
from firmware.board.board import Board
from firmware.board.line import SimulatedLine
from firmware.board.memory import FileMemory
from firmware.board.plant import Belt, Feed, Plant
from firmware.board.terminal import Line, Terminal, TruthLog, run
from firmware.board.words import PAGES, WORDS
from streams.errors import SettingsError
from streams.settings import GateSettings, load_settings


@click.group("board")
def command() -> None:
    """Talk to a line's board, or simulate one. The protocol is firmware/PROTOCOL.md."""


@dataclass(frozen=True)
class Address:
    """Where a board is reached, and the gate's settings where a line was named."""

    port: str
    baud: int
    lane: int
    gate: GateSettings | None


F = TypeVar("F", bound=Callable[..., Any])


def _reached_by(function: F) -> F:
    for option in (
        click.option("--line", "name", help="Line whose settings name the port."),
        click.option("--port", help="Serial port, instead of a line's."),
        click.option("--lane", default=1, show_default=True, type=click.IntRange(1, 4), help="Lane of the board."),
    ):
        function = option(function)
    return function


def _address(file: Path | None, name: str | None, port: str | None, lane: int) -> Address:
    gate = load_settings(file).line(name).gate if name else None
    if name and gate is None:
        raise SettingsError(f"lines.{name}.gate: expected the settings of a gate, found none")
    if port is None and gate is None:
        raise click.UsageError("expected --line or --port, found neither")
    return Address(port or (gate.port if gate else ""), gate.baud if gate else 115200, lane, gate)


@command.command("status")
@_reached_by
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def status(file: Path | None, name: str | None, port: str | None, lane: int, as_json: bool) -> int:
    """Show a lane's state, counters, gate, link and eyes. Exit status 1 when a fault is in force.

    The board must be free: a sorter holds its port. On a Mega, opening the port resets the board.
    """
    address = _address(file, name, port, lane)
    with talk(address.port, address.baud, lane) as board:
        pages = {page: dict(board.ask("STATUS", lane, page)) for page in PAGES}
    for page in pages.values():
        page.pop("page")
    if as_json:
        click.echo(json.dumps(pages, indent=2))
    else:
        for title, fields in pages.items():
            click.echo(f"{title:6} " + "  ".join(f"{key} {value}" for key, value in fields.items()))
    return int(pages["line"]["code"] != 0)


@command.command("configure")
@_reached_by
@click.pass_obj
def configure(file: Path | None, name: str | None, port: str | None, lane: int) -> None:
    """Send a line's settings to its board, where they are kept over a reset."""
    address = _address(file, name, port, lane)
    if address.gate is None:
        raise click.UsageError("expected --line, whose settings are to be sent; found --port alone")
    try:
        settings = lane_settings(address.gate)
    except ValueError as error:
        raise SettingsError(f"lines.{name}.gate: {error}") from None
    with talk(address.port, address.baud, lane, settings) as board:
        for key in settings.values:
            click.echo(f"{key} = {board.ask('SHOW', lane, key)['value']}")


@command.command("test")
@_reached_by
@click.argument("what", type=click.Choice(WORDS["what"]))
@click.pass_obj
def test(file: Path | None, name: str | None, port: str | None, lane: int, what: str) -> None:
    """Swing the gate once, or pulse the trigger, lamp or relay. Refused while parts are on the belt.

    The gate swings only on a board that has been configured since its reset, so --line is needed for it.
    """
    address = _address(file, name, port, lane)
    settings = lane_settings(address.gate) if address.gate else None
    with talk(address.port, address.baud, lane, settings) as board:
        told = board.ask("TEST", lane, secrets.randbelow(65536), what)["told"]
        if what == "gate":
            # The port is held until the swing is over: closing it may reset the board.
            threading.Event().wait(1.5)
    click.echo(f"{what}: {told}")


@command.command("clear")
@_reached_by
@click.argument("code", type=click.IntRange(40, 69))
@click.pass_obj
def clear(file: Path | None, name: str | None, port: str | None, lane: int, code: int) -> None:
    """End the fault CODE (firmware/error_codes.csv) once its cause is gone."""
    address = _address(file, name, port, lane)
    with talk(address.port, address.baud, lane) as board:
        click.echo(f"fault {code}: {board.ask('CLEAR', lane, code)['told']}")


@command.command("flash")
@click.option("--port", required=True, help="Serial port of the Mega 2560.")
@click.option(
    "--hex",
    "image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compiled firmware, Intel HEX; without: firmware/sorter, built now.",
)
def flash(port: str, image: Path | None) -> int:
    """Write the firmware to a Mega 2560 with avrdude, over its boot loader."""
    if shutil.which("avrdude") is None:
        raise SettingsError("expected avrdude to be installed, found none; on Debian: apt-get install avrdude")
    if image is None:
        from firmware import toolchain

        image = toolchain.hex_image()
    arguments = ["-p", "atmega2560", "-c", "wiring", "-P", port, "-b", "115200", "-D", "-U", f"flash:w:{image}:i"]
    return subprocess.run(["avrdude", *arguments], check=False).returncode


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
@click.option("--avr", is_flag=True, help="The board is the Mega's own firmware in an AVR simulator, built on the first call.")
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
    avr: bool,
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
            memory = memory or link.with_name(f"{link.name}.eeprom")
            served, boot = (_avr_line if avr else _python_line)(stack, plant, memory, TruthLog(truth))
        except OSError as error:
            raise SettingsError(f"board {name}: {error}") from None
        click.echo(f"board ready at {link}, run {boot}{', firmware in the AVR simulator' if avr else ''}")
        run(served, terminal, stopping)


def _python_line(_: ExitStack, plant: Plant, memory: Path, truth: TruthLog) -> tuple[Line, int]:
    board = Board(FileMemory(memory))
    return SimulatedLine(board, plant, truth), board.run


def _avr_line(stack: ExitStack, plant: Plant, memory: Path, truth: TruthLog) -> tuple[Line, int]:
    from firmware import toolchain
    from firmware.simulator.avr import stepped
    from firmware.simulator.line import AvrLine

    line = AvrLine(stack.enter_context(stepped(toolchain.firmware(), memory.with_suffix(".avr.eeprom"))), plant, truth)
    return line, line.boot()


def _belt(gate: GateSettings, speed_mm_s: float) -> Belt:
    return Belt(speed_mm_s=speed_mm_s, eye_gap_mm=gate.travel_mm, blade_mm=20 + 0.08 * speed_mm_s)
