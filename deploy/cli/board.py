"""The command `castline board`: sends commands to the board of a line, or simulates a board.

If a sorter of the line runs on this machine, the commands go through the sorter. Otherwise the command opens the serial port itself.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from agents.gate.link import GateLink, LinkSettings
from agents.gate.port import locked_port
from agents.sorter.command_socket import ask_sorter, is_sorter_running
from agents.sorter.decisions import grade_settings, lane_settings
from agents.sorter.saved_settings import SavedSettings, read_saved_settings, settings_path
from deploy.cli.board_monitor import render_monitor
from deploy.cli.board_restore import find_differences, plan_edit, read_values
from deploy.cli.board_teach import STEPS, run_teach
from deploy.cli.settings_file import describe_changes
from deploy.supervisor.priority import raise_priority
from firmware.board.board import Board
from firmware.board.line import BoardLine, PseudoTerminal, SimulatedLine, TruthLog, run_in_real_time
from firmware.board.memory import FileBoardMemory
from firmware.board.plant import Belt, Blade, CastingFeed, Plant
from firmware.fault_table import code_of
from firmware.hex_image import SHIPPED, check_image
from firmware.lane_settings import BY_KEY, LaneSettings, SettingValue
from firmware.protocol import CHUTE_PAGE, KNOWN_PAGES, PLANT_PAGE, WORDS, Fields
from streams.errors import GateError, SettingsError
from streams.records import CommandAction, CommandAnswer, make_command
from streams.settings import GateSettings, ServiceSettings, Settings, find_settings_file, load_settings

# Longest wait for an answer, in seconds. The wait includes the start of the Mega, up to 3 s, and the transfer of the settings.
MAX_ANSWER_S = 15.0
# `castline board monitor` asks the board for new values at this interval, and waits at most this long for an answer (both in seconds).
MONITOR_INTERVAL_S, MONITOR_ANSWER_S = 0.5, 5.0
# How long a test of the gate takes, in seconds. The gate swings out, stays there for one second, and swings back.
SWING_S = 1.5


@click.group("board")
def command() -> None:
    """Send commands to the board of a line, or simulate a board. firmware/PROTOCOL.md describes the commands."""


@dataclass(frozen=True)
class BoardAddress:
    """The serial port and the lane of a board. `gate` holds the settings of the line's gate, or None without --line."""

    port: str
    baud: int
    lane: int
    gate: GateSettings | None
    # The line whose gate has the serial port `port` in the settings, or None if there is no such line. If the sorter of the line runs, it
    # uses this port.
    line: str | None
    service: ServiceSettings


F = TypeVar("F", bound=Callable[..., Any])


def _with_address_options(function: F) -> F:
    for option in (
        click.option("--line", "name", help="Name of a line. Its settings name the serial port and the lane."),
        click.option("--port", help="Serial port of the board. Replaces the port in the line's settings."),
        click.option(
            "--lane",
            type=click.IntRange(1, 4),
            help="Lane: the number of the belt on the board. The default is the line's lane, or 1 without --line.",
        ),
    ):
        function = option(function)
    return function


def _find_address(file: Path | None, name: str | None, port: str | None, lane: int | None) -> BoardAddress:
    if name is None and port is None:
        raise click.UsageError("The command does not know which board you mean. Pass --line or --port.")
    settings = load_settings(file)
    service = settings.service
    if name is None:
        line = next((each.name for each in settings.lines if each.gate is not None and _is_same_port(each.gate.port, port or "")), None)
        return BoardAddress(port or "", 115200, lane or 1, None, line, service)
    gate = settings.find_line(name).gate
    if gate is None:
        if port is None:
            raise SettingsError(f"The line {name} has no gate in the settings. Add [lines.gate] to the line, or pass --port.")
        return BoardAddress(port, 115200, lane or 1, None, None, service)
    line = name if port is None or _is_same_port(gate.port, port) else None
    return BoardAddress(port or gate.port, gate.baud, lane or gate.lane, gate, line, service)


def _is_same_port(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _send_to_sorter(address: BoardAddress, action: CommandAction, valid_s: float = MAX_ANSWER_S, **fields: object) -> CommandAnswer | None:
    """Sends a command through the running sorter of the line. Returns None if no sorter listens on this machine.

    Raises GateError if the sorter or the board did not execute the command.
    """
    if address.line is None:
        return None
    lane = None if address.gate is None or address.lane == address.gate.lane else address.lane
    answered = ask_sorter(
        address.service.run_dir, make_command(address.line, action, address.service.name_user(), valid_s, lane=lane, **fields)
    )
    if answered is None or answered.answer is None:
        return None
    if answered.answer.outcome != "done":
        raise GateError(answered.answer.message, answered.answer.code, retriable=False)
    return answered.answer


def _warn_of_reset(address: BoardAddress) -> None:
    click.echo(
        f"No sorter on this machine takes commands for the board at {address.port}, so this command opens the port itself. This can reset "
        "the board. A board that is reset forgets the castings on its belt.",
        err=True,
    )


def _send_to_running_sorter(address: BoardAddress, action: CommandAction, valid_s: float = MAX_ANSWER_S, **fields: object) -> CommandAnswer:
    """Sends a command that only a running sorter can execute. Raises GateError if no sorter listens, or if it refuses the command."""
    answer = _send_to_sorter(address, action, valid_s, **fields)
    if answer is None:
        line = address.line or "the line"
        raise GateError(
            f"No running sorter of {line} was found in the folder {address.service.run_dir} (service.run_dir). Start a sorter with "
            '"castline sorter", or run this command on the machine of the sorter.',
            code_of("link-away"),
        )
    return answer


class BoardConnection:
    """Sends commands of the gate protocol to a board and waits for the answers."""

    def __init__(self, link: GateLink) -> None:
        self._link = link

    def ask(self, name: str, *fields: object) -> Fields:
        """Sends the command `name` with `fields` to the board and returns the fields of the answer.

        Raises GateError if the board refuses the command or does not answer within 15 s.
        """
        try:
            return self._link.send_command(name, *fields).result(MAX_ANSWER_S).fields
        except FutureTimeoutError:
            port, lane = self._link.settings.port, self._link.lanes[0]
            advice = lane.problem or "Check that the port is right, and stop the sorter that uses it."
            raise GateError(
                f"The board at {port} did not answer {name} within {MAX_ANSWER_S:.0f} s. The state of the link is: {lane.state}. {advice}"
            ) from None

    def read_settings(self, lane: int) -> dict[str, SettingValue]:
        """Returns the settings that a lane uses. Settings that the board does not know are left out."""
        texts: dict[str, object] = {}
        for key in BY_KEY:
            try:
                texts[key] = self.ask("SHOW", lane, key)["value"]
            except GateError as error:
                if error.code != code_of("unknown-setting"):
                    raise
        return read_values(texts)


@contextmanager
def _connect(
    address: BoardAddress, lane: int, settings: LaneSettings | None = None, grades: Mapping[int, LaneSettings] | None = None
) -> Iterator[BoardConnection]:
    """Connects to a board until the `with` block ends.

    - `settings`: the settings that the lane `lane` gets.
    - `grades`: the settings of the belt's additional gates, by lane. Each additional gate diverts the castings of one grade.

    The first connection resets an Arduino Mega that was just plugged in. Raises GateError if the port does not exist.
    """
    if not Path(address.port).exists():
        raise GateError(f"There is no serial port {address.port}. Connect the board, or pass another --port.", code_of("port-in-use"))
    # This connection does not acknowledge reports of other lanes. The board therefore keeps them for the sorters of those lanes.
    link = GateLink(LinkSettings(address.port, address.baud), acknowledges_unserved=False)
    link.add_lane("board", lambda event: None, settings, lane, grades)
    link.start()
    try:
        yield BoardConnection(link)
    finally:
        link.stop()


@command.command("status")
@_with_address_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(file: Path | None, name: str | None, port: str | None, lane: int | None, as_json: bool) -> int:
    """Show the state, counters, gate, link and photo-eyes of a lane. The exit status is 1 if the lane has a fault.

    If the line's sorter runs, the command goes through it. Otherwise the command opens the port itself, which can reset the board.
    """
    address = _find_address(file, name, port, lane)
    if (answer := _send_to_sorter(address, "status")) is not None:
        pages = answer.values
        click.echo(answer.message, err=True)
    else:
        _warn_of_reset(address)
        with _connect(address, address.lane) as board:
            pages = {page: dict(board.ask("STATUS", address.lane, page)) for page in KNOWN_PAGES}
            for page in (CHUTE_PAGE, PLANT_PAGE):
                try:
                    pages[page] = dict(board.ask("STATUS", address.lane, page))
                except GateError as error:
                    # Older firmware does not know the status pages `chute` and `plant`, and refuses to show them.
                    if error.code != code_of("wrong-fields"):
                        raise
        for values in pages.values():
            values.pop("page")
    if as_json:
        click.echo(json.dumps(pages, indent=2))
    else:
        for title, fields in pages.items():
            click.echo(f"{title:6} " + "  ".join(f"{key} {value}" for key, value in fields.items()))
    return int(pages["line"]["code"] != 0)


@command.command("configure")
@_with_address_options
@click.pass_obj
def configure(file: Path | None, name: str | None, port: str | None, lane: int | None) -> None:
    """Send the settings of a line's gate to its board, and print the values that the board uses now.

    The board stores the settings. If the sorter of the line runs, it has already sent the settings. In this case, the command only compares
    the values that the board uses with the settings file.
    """
    address = _find_address(file, name, port, lane)
    if address.gate is None:
        raise click.UsageError("--line is missing. Pass --line, because this command sends the settings of a line to the board.")
    settings, grades = _board_settings(name, address.gate)
    if (answer := _send_to_sorter(address, "settings")) is not None:
        _show_settings_of_sorter(name, answer, {address.gate.lane: settings, **grades})
        return
    _warn_of_reset(address)
    with _connect(address, address.gate.lane, settings, grades) as board:
        for number, values in ((address.gate.lane, settings), *grades.items()):
            if grades:
                click.echo(f"# lane {number}")
            for key in values.values:
                click.echo(f"{key} = {board.ask('SHOW', number, key)['value']}")


def _show_settings_of_sorter(name: str | None, answer: CommandAnswer, expected: Mapping[int, LaneSettings]) -> None:
    """Prints the settings that the board uses. Raises GateError if the settings file has other values."""
    differing = []
    for number, settings in expected.items():
        used = answer.values[f"lane {number}"]
        if len(expected) > 1:
            click.echo(f"# lane {number}")
        for key, value in used.items():
            click.echo(f"{key} = {value}")
        differing += [key for key, value in used.items() if str(settings.values.get(key, value)) != str(value)]
    if differing:
        raise GateError(
            f"The board uses other settings than the file: {', '.join(differing)}. Restart the sorter of {name}, so that the sorter sends "
            "the settings of the file."
        )


def _board_settings(name: str | None, gate: GateSettings) -> tuple[LaneSettings, dict[int, LaneSettings]]:
    try:
        return lane_settings(gate), grade_settings(gate)
    except ValueError as error:
        raise SettingsError(f"lines.{name}.gate: {error}") from None


@command.command("save")
@click.option("--line", "name", required=True, help="Name of the line whose board is read.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: board-<line>-<date>.toml]")
@click.pass_obj
def save(file: Path | None, name: str, out: Path | None) -> int:
    """Save the settings that the board of a line uses, before the board is exchanged or its firmware is replaced.

    If the line's sorter runs, the command goes through it. Otherwise the command opens the port itself, which can reset the board. The exit
    status is 1 if the settings file has other settings than the board.
    """
    address, gate = _find_gate(file, name)
    out = out or Path(f"board-{name}-{datetime.now().astimezone():%Y-%m-%d-%H%M}.toml")
    if out.exists():
        raise SettingsError(f"The file {out} exists, and it is not overwritten. Choose another --out.")
    if (answer := _send_to_sorter(address, "settings")) is not None:
        used = {lane: read_values(answer.values[f"lane {lane}"]) for lane in gate.lanes}
    else:
        _warn_of_reset(address)
        with _connect(address, gate.lane) as board:
            used = {lane: board.read_settings(lane) for lane in gate.lanes}
    try:
        SavedSettings(name, gate.port, datetime.now(UTC).replace(microsecond=0), used).write(out)
    except OSError as error:
        raise SettingsError(f"Cannot write {out}: {error}. Choose another --out.") from None
    click.echo(f"The settings of the board of {name} are in {out}.")
    settings, grades = _board_settings(name, gate)
    differing = list(find_differences(used, {gate.lane: settings, **grades}))
    if differing:
        click.echo("The settings file has other settings than the board:")
        _show_differences(differing, "board", "file")
    return int(bool(differing))


@command.command("restore")
@click.option("--line", "name", required=True, help="Name of the line whose board gets the settings.")
@click.argument("saved_file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", "is_confirmed", is_flag=True, help="Send the settings without asking.")
@click.pass_obj
def restore(file: Path | None, name: str, saved_file: Path | None, is_confirmed: bool) -> int:
    """Give a board the settings that `castline board save` has written to FILE.

    Without FILE, the board gets the settings that the line's board used last. The sorter keeps these settings on this machine.

    Stop the sorter first. The command shows which settings will change, and asks before it changes the board and the settings file. The
    exit status is 1 if you answer no.
    """
    address, gate = _find_gate(file, name)
    if is_sorter_running(address.service.run_dir, name):
        raise _port_in_use_error(f"The sorter of {name} uses the serial port {gate.port}. Stop this sorter.")
    saved = read_saved_settings(saved_file or settings_path(load_settings(file).sorter.journal_dir, name), name, gate.lanes)
    settings = saved.lane_settings()
    _board_settings(name, gate)  # Check the settings file. This call raises SettingsError if settings of the file contradict each other.
    edit = plan_edit(find_settings_file(file), name, gate, settings)
    click.echo(f"The settings were saved on {saved.saved_at.astimezone():%Y-%m-%d at %H:%M} from the board at {saved.port}.")
    _warn_of_reset(address)
    with _connect(address, gate.lane) as board:
        differing = list(find_differences({lane: board.read_settings(lane) for lane in gate.lanes}, settings))
    if not differing and edit is None:
        click.echo("The board and the settings file already have these settings. Nothing was changed.")
        return 0
    if differing:
        click.echo(f"The board at {gate.port} has other settings:")
        _show_differences(differing, "board", "saved")
    if edit is not None:
        click.echo(f"The settings file {edit.file} gets these settings:\n{describe_changes(name, edit.changes)}")
    if not (is_confirmed or click.confirm("Let the belt run empty. Use the saved settings?")):
        click.echo("Nothing was changed.")
        return 1
    _send_settings(address, gate, settings)
    if edit is not None:
        try:
            edit.write()
        except OSError as error:
            raise SettingsError(
                f"The board uses the saved settings, but the file {edit.file} cannot be written: {error}. Put these lines into the "
                f"file before you start the sorter:\n{describe_changes(name, edit.changes)}"
            ) from None
    click.echo(f"The board of {name} uses the saved settings. Start the sorter now.")
    return 0


def _find_gate(file: Path | None, name: str) -> tuple[BoardAddress, GateSettings]:
    address = _find_address(file, name, None, None)
    if address.gate is None:
        raise SettingsError(f"The line {name} has no gate in the settings. Add [lines.gate] to the line.")
    return address, address.gate


def _show_differences(differing: Sequence[tuple[str, str, str]], first: str, second: str) -> None:
    click.echo(f"{'setting':26}{first:>10}{second:>10}")
    for key, before, after in differing:
        click.echo(f"{key:26}{before:>10}{after:>10}")


def _send_settings(address: BoardAddress, gate: GateSettings, settings: Mapping[int, LaneSettings]) -> None:
    """Sends settings to the board, and reads them back. Raises GateError if the board does not use them."""
    grades = {lane: each for lane, each in settings.items() if lane != gate.lane}
    with _connect(address, gate.lane, settings[gate.lane], grades) as board:
        used = {lane: board.read_settings(lane) for lane in gate.lanes}
    wrong = [key for key, _, _ in find_differences(used, settings)]
    if wrong:
        raise GateError(
            f"The board at {gate.port} does not use the saved settings: {', '.join(wrong)}. Repeat this command.", retriable=False
        )


@command.command("test")
@_with_address_options
@click.argument("what", type=click.Choice(WORDS["what"]))
@click.pass_obj
def test(file: Path | None, name: str | None, port: str | None, lane: int | None, what: str) -> None:
    """Swing the gate once, or switch the camera trigger, the lamp or the relay. The board refuses the test while parts are on the belt.

    The test of the gate needs --line, because the board swings a gate only with the settings of its line.
    """
    address = _find_address(file, name, port, lane)
    own_lane = address.gate.lane if address.gate else address.lane
    settings, grades = _board_settings(name, address.gate) if address.gate else (None, {})
    if (answer := _send_to_sorter(address, "test", what=what)) is not None:
        click.echo(answer.message)
        return
    _warn_of_reset(address)
    with _connect(address, own_lane, settings, grades) as board:
        result = board.ask("TEST", address.lane, secrets.randbelow(65536), what)["told"]
        if what == "gate":
            # Keep the port open until the gate has swung back, so that no other command comes in the middle of the test.
            threading.Event().wait(SWING_S)
    click.echo(f"{what}: {result}")


@command.command("clear")
@_with_address_options
@click.argument("code", type=click.IntRange(40, 69))
@click.pass_obj
def clear(file: Path | None, name: str | None, port: str | None, lane: int | None, code: int) -> None:
    """Clear the fault CODE on the board. Remove the cause of the fault first. firmware/error_codes.csv lists the codes."""
    address = _find_address(file, name, port, lane)
    if (answer := _send_to_sorter(address, "clear", code=code)) is not None:
        click.echo(answer.message)
        return
    _warn_of_reset(address)
    with _connect(address, address.lane) as board:
        click.echo(f"fault {code}: {board.ask('CLEAR', address.lane, code)['told']}")


@command.command("acknowledge")
@_with_address_options
@click.pass_obj
def acknowledge(file: Path | None, name: str | None, port: str | None, lane: int | None) -> None:
    """End the faults of a lane if their causes are gone. The sorter of the line must run.

    The gate can move, so look at the line first.
    """
    click.echo(_send_to_running_sorter(_find_address(file, name, port, lane), "acknowledge").message)


@command.command("pause")
@_with_address_options
@click.pass_obj
def pause(file: Path | None, name: str | None, port: str | None, lane: int | None) -> None:
    """Stop the sending of verdicts to the board, until `castline board resume`.

    The board treats each new part as a part without verdict. If the sorter is restarted, the pause goes on.
    """
    click.echo(_send_to_running_sorter(_find_address(file, name, port, lane), "pause").message)


@command.command("resume")
@_with_address_options
@click.pass_obj
def resume(file: Path | None, name: str | None, port: str | None, lane: int | None) -> None:
    """End a pause: the sorter sends the verdicts of new parts to the board again."""
    click.echo(_send_to_running_sorter(_find_address(file, name, port, lane), "resume").message)


@command.command("monitor")
@_with_address_options
@click.option("--once", is_flag=True, help="Print the values once and end.")
@click.pass_obj
def monitor(file: Path | None, name: str | None, port: str | None, lane: int | None, once: bool) -> None:
    """Show a lane's photo-eyes, belt position, gate, last castings and last faults, twice a second, until Ctrl-C.

    The values come from the running sorter of the line.
    """
    address = _find_address(file, name, port, lane)
    is_first = True
    with suppress(KeyboardInterrupt):
        while True:
            answer = _send_to_running_sorter(address, "monitor", MONITOR_ANSWER_S)
            size = shutil.get_terminal_size()
            if not once:
                # Clear the screen once, and later only move the cursor to its top, because a cleared screen flickers.
                click.echo("\x1b[2J\x1b[H" if is_first else "\x1b[H", nl=False)
            ends = "" if once else "\x1b[K"
            for row in render_monitor(answer, size.columns, size.lines - 1):
                click.echo(row + ends)
            if once:
                return
            click.echo("\x1b[J", nl=False)
            is_first = False
            time.sleep(MONITOR_INTERVAL_S)


def _find_taught_line(file: Path | None, name: str | None, port: str | None, lane: int | None) -> str:
    """Returns the name of the line that the options --line, --port and --lane select.

    Raises SettingsError if no line or several lines match.
    """
    if name is None and port is None:
        raise click.UsageError("The command does not know which gate you mean. Pass --line, or --port and --lane.")
    gates = {line.name: line.gate for line in load_settings(file).lines if line.gate is not None}
    found = [
        each
        for each, gate in gates.items()
        if name in (None, each) and (port is None or _is_same_port(gate.port, port)) and lane in (None, gate.lane)
    ]
    if len(found) == 1:
        return found[0]
    if name is not None and name not in gates:
        # Raise no error here if there is no line `name`, or if it has no gate. The caller calls _find_gate(), which raises the error.
        return name
    lanes = ", ".join(f"{each} is lane {gate.lane} of {gate.port}" for each, gate in gates.items()) or "no line has a gate"
    problem = f"The options describe {len(found)} lines" if found else "No line has this port and this lane"
    raise SettingsError(f"{problem}. In the settings, {lanes}. Pass the name of the line with --line.")


@command.command("teach")
@_with_address_options
@click.option(
    "--step",
    "steps",
    multiple=True,
    type=click.Choice(STEPS),
    help="Step to carry out. You can repeat the option.  [default: all steps]",
)
@click.option("--castings", default=10, show_default=True, type=click.IntRange(3, 50), help="Number of castings to measure.")
@click.option(
    "--wait-s", default=60.0, show_default=True, type=click.FloatRange(1, 3600), help="Longest wait for the next casting, in seconds."
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="HTML file for the teaching report, which a person signs.  [default: teach-<line>-<date>.html]",
)
@click.option("--yes", "is_confirmed", is_flag=True, help="Use the learnt settings without asking.")
@click.pass_obj
def teach(
    file: Path | None,
    name: str | None,
    port: str | None,
    lane: int | None,
    steps: tuple[str, ...],
    castings: int,
    wait_s: float,
    page: Path | None,
    is_confirmed: bool,
) -> int:
    """Measure the settings of a gate and its photo-eyes, with castings on the running belt and the help of a person.

    The step `encoder` measures how far the belt moves for each tick of the encoder. The step `travel` measures the distance between the
    photo-eyes and the speed of the belt. It also chooses `window_mm`: the board accepts a part at photo-eye 2 only within this distance of
    the expected place. In the step `servo`, you move the servo to its rest and out positions. The step `swing` measures how long the gate
    needs to swing. If the gate has no end switch, the command asks you for this time.

    The sorter of the line must run. Name the line with --line, or with --port and --lane of its gate. The command shows the old and the
    new settings, and asks before it uses the new settings. If you press Ctrl-C, the lane keeps its old settings.
    """
    name = _find_taught_line(file, name, port, lane)
    address, gate = _find_gate(file, name)
    page = page or Path(f"teach-{name}-{datetime.now().astimezone():%Y-%m-%d-%H%M}.html")
    if not os.access(page.absolute().parent, os.W_OK):
        raise SettingsError(
            f"The teaching report cannot be written into {page.absolute().parent}. Pass a file in another folder with --page."
        )

    def ask(teach: str, **fields: object) -> CommandAnswer:
        return _send_to_running_sorter(address, "teach", MAX_ANSWER_S, teach=teach, **fields)

    settings_file = find_settings_file(file)
    chosen = tuple(step for step in STEPS if not steps or step in steps)
    return run_teach(ask, name, address.service.name_user(), gate, settings_file, chosen, castings, wait_s, page, is_confirmed)


@command.command("flash")
@click.option("--port", required=True, help="Serial port of the Mega 2560.")
@click.option(
    "--hex",
    "image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Firmware as an Intel HEX file, for example of an earlier release. The default is the firmware that was installed with Castline.",
)
@click.pass_obj
def flash(file: Path | None, port: str, image: Path | None) -> int:
    """Write the firmware to a Mega 2560 with the program avrdude, and verify what was written. Stop the sorter of the board first.

    Files that are damaged or hold another program are refused. In a checkout of the source, the firmware is compiled first. The exit status
    is 1 if avrdude fails.
    """
    if shutil.which("avrdude") is None:
        raise SettingsError("avrdude is not installed. On Debian, install it with: apt-get install avrdude")
    address = _find_address(file, None, port, None)
    if address.line is not None and is_sorter_running(address.service.run_dir, address.line):
        raise _port_in_use_error(f"The sorter of {address.line} uses the serial port {port}. Stop this sorter.")
    if image is None:
        image = SHIPPED if SHIPPED.exists() else _compile_firmware()
    size = check_image(image)
    # Without the option -V, avrdude checks the result: it reads the flash of the board and compares the content with the file.
    arguments = ["-p", "atmega2560", "-c", "wiring", "-P", port, "-b", "115200", "-D", "-U", f"flash:w:{image}:i"]
    with locked_port(port) as is_free:
        if not is_free:
            of_line = f", probably the sorter of {address.line}" if address.line else ""
            raise _port_in_use_error(f"Another program uses the serial port {port}{of_line}.")
        click.echo(f"Writing {image.name}, {size} bytes, to the board at {port}.")
        done = subprocess.run(["avrdude", *arguments], check=False)
    if done.returncode != 0:
        click.echo(
            "avrdude failed, so the board perhaps holds only a part of the firmware. Check the cable and repeat the command.", err=True
        )
        return 1
    click.echo("The board holds the firmware. Start the sorter now.")
    return 0


def _port_in_use_error(sentence: str) -> GateError:
    advice = 'To stop a sorter, press Ctrl-C in its terminal or run "systemctl stop castline". Then repeat this command.'
    return GateError(f"{sentence} {advice}", code_of("port-in-use"))


def _compile_firmware() -> Path:
    from firmware import toolchain

    return toolchain.build_hex_image()


@command.command("simulate")
@click.option(
    "--line",
    "names",
    required=True,
    multiple=True,
    help="Name of a line whose gate is simulated. Repeat the option for each line that shares the board.",
)
@click.option("--rate", default=2.0, show_default=True, type=click.FloatRange(0.01, 100), help="Parts per second on each line.")
@click.option(
    "--jitter",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 0.9),
    help="Random variation of the time between two parts, from 0 to 0.9. Example: 0.2 varies the time by up to 20 %.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the random numbers.")
@click.option(
    "--parts",
    type=click.IntRange(1),
    help="Number of parts to put on each belt. Without the option, parts come until the command is stopped.",
)
@click.option(
    "--travel-s",
    type=click.FloatRange(0.2, 600),
    help="Seconds that a part needs from the camera to the gate. This time sets the speed of the belt. The default comes from the "
    "settings.",
)
@click.option(
    "--link", type=click.Path(path_type=Path), help="Path of the simulated serial port. The default is the gate's port in the settings."
)
@click.option(
    "--memory",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that holds the simulated board's EEPROM. The default is <link>.eeprom.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append a line of JSON to this file for each physical event, for example when a casting leaves the belt.",
)
@click.option(
    "--avr", is_flag=True, help="Run the Mega's real firmware in an AVR simulator. The first call compiles the firmware and the simulator."
)
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
    """Simulate a board with its belts and castings until SIGTERM. A pseudo-terminal takes the place of the serial port.

    The first castings come when a sorter has configured the board. Each start of this command increases the board's boot count.
    """
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    # A real board has its own processor. The simulated board gets a high priority, so that other programs hardly delay it.
    raise_priority()
    gates = _gates_of_one_board(load_settings(file), names)
    try:
        plants = {
            gate.lane: Plant(_make_belt(gate, travel_s), CastingFeed(rate_per_s=rate, jitter=jitter, seed=seed + index, parts=parts))
            for index, gate in enumerate(gates)
        }
    except ValueError as error:
        raise SettingsError(str(error)) from None
    link = link or Path(gates[0].port)
    with ExitStack() as stack:
        try:
            terminal = stack.enter_context(PseudoTerminal(link))
            log_file = stack.enter_context(log.open("a")) if log else None
            memory = memory or link.with_name(f"{link.name}.eeprom")
            line, run = (_make_avr_line if avr else _make_python_line)(stack, plants, memory, TruthLog(log_file))
        except OSError as error:
            raise SettingsError(
                f"The board of {', '.join(names)} cannot be simulated: {error}. Check --link, --memory and --log."
            ) from None
        click.echo(f"board ready at {link}, run {run}{', firmware in the AVR simulator' if avr else ''}")
        run_in_real_time(line, terminal, stopping)


def _gates_of_one_board(settings: Settings, names: Sequence[str]) -> list[GateSettings]:
    gates = []
    for name in names:
        gate = settings.find_line(name).gate
        if gate is None:
            raise SettingsError(f"The line {name} has no gate to simulate. Add [lines.gate] to the line in the settings.")
        gates.append(gate)
    if len(ports := {gate.port for gate in gates}) > 1:
        raise SettingsError(
            f"--line: The lines {', '.join(names)} have different boards ({', '.join(sorted(ports))}). Name only lines of one board."
        )
    return gates


def _make_python_line(_: ExitStack, plants: dict[int, Plant], memory: Path, log: TruthLog) -> tuple[BoardLine, int]:
    board = Board(FileBoardMemory(memory))
    return SimulatedLine(board, plants, log), board.run


def _make_avr_line(stack: ExitStack, plants: dict[int, Plant], memory: Path, log: TruthLog) -> tuple[BoardLine, int]:
    from firmware import toolchain
    from firmware.simulator.avr import start_mega
    from firmware.simulator.avr_line import AvrLine

    mega = stack.enter_context(start_mega(toolchain.build_firmware(), memory.with_suffix(".avr.eeprom")))
    line = AvrLine(mega, plants, log)
    return line, line.boot()


def _make_belt(gate: GateSettings, travel_s: float | None) -> Belt:
    speed_mm_s = gate.belt_mm_per_s if travel_s is None else gate.travel_mm / travel_s
    # A real servo needs 0.08 s to swing the blade. In this time, a part moves on by `swing_mm`. The simulated blade swings at once. Put the
    # simulated blade `swing_mm` further down the belt, so that it meets a part at the same moment as a real blade.
    swing_mm = 0.08 * speed_mm_s
    further = tuple(Blade(grade.lane, grade.gate_mm + swing_mm) for grade in gate.grades)
    return Belt(
        speed_mm_s=speed_mm_s,
        eye_gap_mm=gate.travel_mm,
        blade_mm=20 + swing_mm,
        eye_light_on=str(gate.board.get("eye_light_on", 0)) == "1",
        further=further,
    )
