"""`castline board`: simulate a line's board, or talk to one."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from agents.sorter.decisions import grade_settings, lane_settings
from deploy.cli.board_session import talk
from deploy.supervisor.priority import raise_priority
from firmware.board.board import Board
from firmware.board.lane_settings import LaneSettings
from firmware.board.line import SimulatedLine
from firmware.board.memory import FileMemory
from firmware.board.plant import Belt, Blade, Feed, Plant
from firmware.board.terminal import Line, Terminal, TruthLog, run
from firmware.board.words import PAGES, WORDS
from streams.errors import SettingsError
from streams.settings import GateSettings, Settings, load_settings


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
        click.option("--lane", type=click.IntRange(1, 4), help="Lane of the board; without: the line's own, or 1."),
    ):
        function = option(function)
    return function


def _address(file: Path | None, name: str | None, port: str | None, lane: int | None) -> Address:
    gate = load_settings(file).find_line(name).gate if name else None
    if name and gate is None:
        raise SettingsError(f"lines.{name}.gate: expected the settings of a gate, found none")
    if port is None and gate is None:
        raise click.UsageError("expected --line or --port, found neither")
    if gate is None:
        return Address(port or "", 115200, lane or 1, None)
    return Address(port or gate.port, gate.baud, lane or gate.lane, gate)


@command.command("status")
@_reached_by
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def status(file: Path | None, name: str | None, port: str | None, lane: int | None, as_json: bool) -> int:
    """Show a lane's state, counters, gate, link and eyes. Exit status 1 when a fault is in force.

    The board must be free: a sorter holds its port. On a Mega, opening the port resets the board.
    """
    address = _address(file, name, port, lane)
    with talk(address.port, address.baud, address.lane) as board:
        pages = {page: dict(board.ask("STATUS", address.lane, page)) for page in PAGES}
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
def configure(file: Path | None, name: str | None, port: str | None, lane: int | None) -> None:
    """Send a line's settings to its board, where they are kept over a reset."""
    address = _address(file, name, port, lane)
    if address.gate is None:
        raise click.UsageError("expected --line, whose settings are to be sent; found --port alone")
    settings, grades = _settings(name, address.gate)
    with talk(address.port, address.baud, address.gate.lane, settings, grades) as board:
        for number, values in ((address.gate.lane, settings), *grades.items()):
            if grades:
                click.echo(f"# lane {number}")
            for key in values.values:
                click.echo(f"{key} = {board.ask('SHOW', number, key)['value']}")


def _settings(name: str | None, gate: GateSettings) -> tuple[LaneSettings, dict[int, LaneSettings]]:
    try:
        return lane_settings(gate), grade_settings(gate)
    except ValueError as error:
        raise SettingsError(f"lines.{name}.gate: {error}") from None


@command.command("test")
@_reached_by
@click.argument("what", type=click.Choice(WORDS["what"]))
@click.pass_obj
def test(file: Path | None, name: str | None, port: str | None, lane: int | None, what: str) -> None:
    """Swing the gate once, or pulse the trigger, lamp or relay. Refused while parts are on the belt.

    The gate swings only on a board that has been configured since its reset, so --line is needed for it.
    """
    address = _address(file, name, port, lane)
    own = address.gate.lane if address.gate else address.lane
    settings, grades = _settings(name, address.gate) if address.gate else (None, {})
    with talk(address.port, address.baud, own, settings, grades) as board:
        told = board.ask("TEST", address.lane, secrets.randbelow(65536), what)["told"]
        if what == "gate":
            # The port is held until the swing is over: closing it may reset the board.
            threading.Event().wait(1.5)
    click.echo(f"{what}: {told}")


@command.command("clear")
@_reached_by
@click.argument("code", type=click.IntRange(40, 69))
@click.pass_obj
def clear(file: Path | None, name: str | None, port: str | None, lane: int | None, code: int) -> None:
    """End the fault CODE (firmware/error_codes.csv) once its cause is gone."""
    address = _address(file, name, port, lane)
    with talk(address.port, address.baud, address.lane) as board:
        click.echo(f"fault {code}: {board.ask('CLEAR', address.lane, code)['told']}")


@command.command("flash")
@click.option("--port", required=True, help="Serial port of the Mega 2560.")
@click.option(
    "--hex",
    "image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compiled firmware, Intel HEX; without: firmware/sorter, built now.",
)
def flash(port: str, image: Path | None) -> int:
    """Write the firmware to a Mega 2560 with avrdude, over its boot loader. Exit status 1 when avrdude could not."""
    if shutil.which("avrdude") is None:
        raise SettingsError("expected avrdude to be installed, found none; on Debian: apt-get install avrdude")
    if image is None:
        from firmware import toolchain

        image = toolchain.hex_image()
    arguments = ["-p", "atmega2560", "-c", "wiring", "-P", port, "-b", "115200", "-D", "-U", f"flash:w:{image}:i"]
    # Where it cannot open the port avrdude ends itself by a signal, which is no exit status.
    return min(1, abs(subprocess.run(["avrdude", *arguments], check=False).returncode))


@command.command("simulate")
@click.option(
    "--line", "names", required=True, multiple=True, help="Line whose gate settings the simulated line has; again for each line of a board."
)
@click.option("--rate", default=2.0, show_default=True, type=click.FloatRange(0.01, 100), help="Parts a second, on each line.")
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
    names: tuple[str, ...],
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
    """Run a board and its belts with castings behind a pseudo-terminal, until SIGTERM.

    Castings come once a sorter has configured the board. SIGTERM ends the feeding, lets the belts run empty, then stops.
    Starting again counts the boot up, as a reset does.
    """
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    raise_priority()  # a board has a processor of its own
    gates = _gates_of_one_board(load_settings(file), names)
    try:
        plants = {
            gate.lane: Plant(_belt(gate, travel_s), Feed(rate_per_s=rate, jitter=jitter, seed=seed + index, parts=parts))
            for index, gate in enumerate(gates)
        }
    except ValueError as error:
        raise SettingsError(str(error)) from None
    link = link or Path(gates[0].port)
    with ExitStack() as stack:
        try:
            terminal = stack.enter_context(Terminal(link))
            truth = stack.enter_context(log.open("a")) if log else None
            memory = memory or link.with_name(f"{link.name}.eeprom")
            served, boot = (_avr_line if avr else _python_line)(stack, plants, memory, TruthLog(truth))
        except OSError as error:
            raise SettingsError(f"board {', '.join(names)}: {error}") from None
        click.echo(f"board ready at {link}, run {boot}{', firmware in the AVR simulator' if avr else ''}")
        run(served, terminal, stopping)


def _gates_of_one_board(settings: Settings, names: Sequence[str]) -> list[GateSettings]:
    gates = []
    for name in names:
        gate = settings.find_line(name).gate
        if gate is None:
            raise SettingsError(f"lines.{name}.gate: expected the settings of a gate to simulate, found none")
        gates.append(gate)
    if len(ports := {gate.port for gate in gates}) > 1:
        raise SettingsError(f"--line: expected lines of one board, found the ports {', '.join(sorted(ports))}")
    return gates


def _python_line(_: ExitStack, plants: dict[int, Plant], memory: Path, truth: TruthLog) -> tuple[Line, int]:
    board = Board(FileMemory(memory))
    return SimulatedLine(board, plants, truth), board.run


def _avr_line(stack: ExitStack, plants: dict[int, Plant], memory: Path, truth: TruthLog) -> tuple[Line, int]:
    from firmware import toolchain
    from firmware.simulator.avr import stepped
    from firmware.simulator.line import AvrLine

    line = AvrLine(stack.enter_context(stepped(toolchain.firmware(), memory.with_suffix(".avr.eeprom"))), plants, truth)
    return line, line.boot()


def _belt(gate: GateSettings, travel_s: float | None) -> Belt:
    speed_mm_s = gate.belt_mm_per_s if travel_s is None else gate.travel_mm / travel_s
    # A part's leading edge is at the blade when a servo of 0.08 s that began at the part's moment has just arrived.
    swing_mm = 0.08 * speed_mm_s
    further = tuple(Blade(grade.lane, grade.gate_mm + swing_mm) for grade in gate.grades)
    return Belt(speed_mm_s=speed_mm_s, eye_gap_mm=gate.travel_mm, blade_mm=20 + swing_mm, further=further)
