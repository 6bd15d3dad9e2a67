"""The dialogue of `castline board teach`: measures a lane together with a person, and proposes its settings.

The program measures through the running sorter of the line. If the program ends, the sorter gives the lane its former settings.
"""

from __future__ import annotations

import math
import os
import re
import select
import shutil
import sys
import termios
import textwrap
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import click

from agents.sorter.decisions import lane_settings
from agents.sorter.passed_castings import signed
from agents.sorter.teaching import change_gate
from deploy.cli.settings_file import Number, describe_changes, edit_gate
from deploy.cli.teach_figures import LaneMeasurement, evaluate, propose_limits, propose_travel
from deploy.cli.teach_page import TeachRecord, render_page
from firmware.lane_settings import BY_KEY, LaneSettings
from streams.atomic_file import replace_atomically, write_atomically
from streams.errors import GateError, SettingsError
from streams.records import CommandAnswer
from streams.settings import VARIABLE_PREFIX, GateSettings
from streams.supervision import SupervisedThread

STEPS = ("encoder", "travel", "servo", "swing")
# In the step `servo`, the command sends the servo's position again every second. Every 4 s, it tells the sorter that `teach` still runs.
_REFRESH_S, _KEEP_ALIVE_S, _POLL_S = 1.0, 4.0, 0.3
_LEAST_MARK_MM = 100.0
# To measure how long the gate needs to swing, it swings three times in each direction. The command proposes the longest of these times plus
# 10 %, because a worn gate is slower.
_SWINGS, _WEAR = 3, 1.1
_SMALL_US, _LARGE_US = 5, 50
_KEYS = {"\x1b[D": -_SMALL_US, "\x1b[C": _SMALL_US, "\x1b[B": -_LARGE_US, "\x1b[A": _LARGE_US}


class AskSorter(Protocol):
    """Sends an action of the command `teach` to the sorter and returns the answer. Raises GateError with a message for a person."""

    def __call__(self, teach: str, **fields: object) -> CommandAnswer: ...


def say(text: str) -> None:
    """Prints a paragraph in the width of the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    click.echo("\n".join(textwrap.wrap(text, width - 1, break_long_words=False, break_on_hyphens=False)))


class TeachDialogue:
    """Carries out the chosen steps. `changes` holds the learnt settings, such as `travel_mm` or `board.window_mm`."""

    def __init__(self, ask: AskSorter, record: TeachRecord, gate: GateSettings, used: Mapping[str, int | str]) -> None:
        self.changes: dict[str, Number] = {}
        self._ask = ask
        self._record = record
        self._gate = gate
        self._used = used
        self._has_encoder = bool(used["encoder"])

    def run(self, steps: tuple[str, ...], castings: int, wait_s: float) -> None:
        """Carries out the steps in their order. Raises GateError if a step cannot be finished."""
        actions: dict[str, Callable[[], None]] = {
            "encoder": self.learn_step,
            "travel": lambda: self.learn_travel(castings, wait_s),
            "servo": self.learn_positions,
            "swing": self.learn_swing,
        }
        for number, step in enumerate(steps, 1):
            click.echo(f"\n-- Step {number} of {len(steps)}: {step}")
            actions[step]()
        if self._record.measured is not None:
            self._propose_limits(self._record.measured)

    def _number(self, key: str) -> Number:
        """Returns the learnt value of a board's setting. If the value was not learnt, returns the value that the board uses."""
        return self.changes.get(f"board.{key}", int(self._used[key]))

    def _skip(self, sentence: str) -> None:
        self._record.skipped.append(sentence)
        say(sentence)

    def learn_step(self) -> None:
        """Learns the length of an encoder step from the distance that a mark on the belt has moved."""
        if not self._has_encoder:
            self._skip(f"The lane has no encoder, so distances are computed from belt_mm_per_s = {self._gate.belt_mm_per_s:g}.")
            return
        say("Stop the belt. Make a mark on the belt beside a fixed point. Then press Enter.")
        click.prompt("", default="", show_default=False, prompt_suffix="")
        before = self._position()
        say("Let the belt run forwards by 1 m or more, and stop it. Measure how far the mark has moved.")
        moved_mm: float = click.prompt("Millimetres that the mark has moved", type=click.FloatRange(_LEAST_MARK_MM, 100_000))
        steps = signed(self._position(), before)
        if steps <= 0:
            raise GateError(
                f"The encoder counted {steps} edges while the mark on the belt moved {moved_mm:g} mm. If the number is 0, check the "
                "encoder's wires. If it is negative, exchange the encoder's phases A and B. Nothing was written.",
                retriable=False,
            )
        step_nm = round(moved_mm * 1e6 / steps)
        step_um, rest_nm = divmod(step_nm, 1000)
        if not BY_KEY["step_um"].least <= step_um <= BY_KEY["step_um"].most:
            raise GateError(
                f"The encoder counted {steps} edges in {moved_mm:g} mm, so a step has {step_nm / 1000:g} um. The board needs steps from "
                "1 to 10000 um. Check the encoder and the measured length. Nothing was written.",
                retriable=False,
            )
        self.changes |= {"board.step_um": step_um, "board.step_nm": rest_nm}
        self._record.measurements.append(("Length of an encoder step", f"{step_nm / 1000:g} um ({steps} edges in {moved_mm:g} mm)"))
        say(f"A step of the encoder is {step_nm / 1000:g} um long.")

    def _position(self) -> int:
        return int(self._ask("eyes").values["eyes"]["position_steps"])

    def learn_travel(self, castings: int, wait_s: float) -> None:
        """Learns the settings `travel_mm` and `window_mm` and the belt's speed from castings that pass the photo-eyes one at a time."""
        say(
            f"Let the belt run, and put {castings} castings on it before photo-eye 1, one at a time. Wait until a casting has passed "
            "photo-eye 2 before the next one comes."
        )
        step_nm = int(self._number("step_um")) * 1000 + int(self._number("step_nm")) if self._has_encoder else 0
        measured = evaluate(self._collect(castings, wait_s), step_nm, self._gate)
        self._record.measured = measured
        travel = measured.travel
        self.changes |= propose_travel(measured, self._gate, self._has_encoder)
        number = len(travel.values)
        self._record.measurements += [
            ("Castings used", f"{number - len(travel.outliers)} of {number}"),
            ("Distance of the photo-eyes", f"{travel.median:.1f} mm, spread {travel.spread:.1f} mm"),
            ("Speed of the belt", f"{measured.speed_mm_s:.1f} mm/s"),
            ("Longest casting", f"{measured.longest_mm:.0f} mm" if measured.longest_mm else "not known"),
        ]
        say(f"The photo-eyes are {travel.median:.1f} mm apart. The spread of the castings is {travel.spread:.1f} mm.")
        for index in travel.outliers:
            say(f"Casting {index + 1} travelled {travel.values[index]:.0f} mm. This is far from the others, so it does not count.")

    def _collect(self, castings: int, wait_s: float) -> list[dict[str, int | str]]:
        found: list[dict[str, int | str]] = []
        last_s = time.monotonic()
        while len(found) < castings:
            values = self._ask("castings").values
            seen = values.pop("seen")
            passed = [values[f"casting {number}"] for number in range(1, len(values) + 1)][:castings]
            for number in range(len(found) + 1, len(passed) + 1):
                click.echo(f"  casting {number} of {castings}: {passed[number - 1]['travel_ms']} ms from eye to eye")
                last_s = time.monotonic()
            found = passed
            if time.monotonic() - last_s > wait_s:
                raise GateError(
                    f"No casting passed both photo-eyes within {wait_s:g} s. Photo-eye 1 was blocked {seen['eye1']} times, and photo-eye 2 "
                    f"{seen['eye2']} times. Check the photo-eyes with castline board monitor --line {self._record.line}, let castings run "
                    'through, and start "castline board teach" again. Nothing was written.',
                    retriable=False,
                )
            time.sleep(_POLL_S)
        return found

    def learn_positions(self) -> None:
        """Lets a person move the servo with keys, and learns the positions rest and out."""
        if not sys.stdin.isatty():
            self._skip("The servo's positions were not changed, because this program has no keyboard. Run teach in a terminal.")
            return
        rest_us, out_us = int(self._used["rest_us"]), int(self._used["out_us"])
        say(
            "Keep hands away from the gate. Arrow left and right move the servo by 5 us, arrow up and down by 50 us. Press r where "
            "castings pass, o where castings are diverted, and Enter when both are right. The servo moves only while the belt is empty."
        )
        with _key_presses() as next_key:
            rest_us, out_us = self._move_servo(next_key, rest_us, out_us)
        click.echo()
        if rest_us == out_us:
            raise GateError("The positions rest and out are the same. Choose two positions. Nothing was written.", retriable=False)
        self.changes |= {"board.rest_us": rest_us, "board.out_us": out_us}
        self._record.measurements.append(("Servo pulse at rest and out", f"{rest_us} us and {out_us} us"))

    def _move_servo(self, next_key: Callable[[float], str], rest_us: int, out_us: int) -> tuple[int, int]:
        least_us, most_us = BY_KEY["rest_us"].least, BY_KEY["rest_us"].most
        pulse_us, has_moved, key = rest_us, False, ""
        while key not in ("\n", "\r"):
            click.echo(f"\r  pulse {pulse_us:4} us   rest {rest_us:4}   out {out_us:4} ", nl=False)
            key = next_key(_REFRESH_S)
            if key in _KEYS:
                pulse_us, has_moved = min(most_us, max(least_us, pulse_us + _KEYS[key])), True
            rest_us = pulse_us if key == "r" else rest_us
            out_us = pulse_us if key == "o" else out_us
            if has_moved:
                self._ask("servo", servo_us=pulse_us)
        self._ask("servo", servo_us=0)
        return rest_us, out_us

    def learn_swing(self) -> None:
        """Measures the time of a swing with the end switch. Without an end switch, asks the person for the time."""
        setting = BY_KEY["servo_ms"]
        if self._used.get("use_end_switch"):
            say(f"Keep hands away from the gate. The gate now moves out and back {_SWINGS} times, while the belt is empty.")
            longest_ms = max(self._measure_swings())
            swing_ms = min(setting.most, max(setting.least, math.ceil(longest_ms * _WEAR)))
            how = f"longest of {2 * _SWINGS} swings by the end switch {longest_ms} ms, and a tenth for wear"
        else:
            say("Watch a swing with castline board test gate, or read the time in the data sheet of the servo. Add a tenth for wear.")
            swing_ms = click.prompt(
                "Milliseconds of a swing", default=int(self._used["servo_ms"]), type=click.IntRange(setting.least, setting.most)
            )
            how = "typed in"
        self.changes["board.servo_ms"] = swing_ms
        self._record.measurements.append(("Time of a swing", f"{swing_ms} ms, {how}"))

    def _measure_swings(self) -> Iterator[int]:
        for number in range(1, _SWINGS + 1):
            times_ms = [
                int(self._ask("swing", servo_us=int(self._number(position))).values["swing"]["ms"]) for position in ("out_us", "rest_us")
            ]
            click.echo(f"  swing {number} of {_SWINGS}: out {times_ms[0]} ms, back {times_ms[1]} ms")
            yield from times_ms
        self._ask("servo", servo_us=0)

    def _propose_limits(self, measured: LaneMeasurement) -> None:
        if not measured.longest_mm:
            self._skip(
                "The length of no casting is known, because each was still at photo-eye 1 when it reached photo-eye 2. So stuck_mm and "
                "spacing_mm were not changed. Set both of them by hand."
            )
            return
        self.changes |= propose_limits(measured, self._used, self._number("window_mm"), self._number("servo_ms"))


def _split_keys(text: str) -> list[str]:
    """Splits text from a terminal into keys. An arrow key is three characters, such as `ESC [ A`."""
    return re.findall(r"\x1b\[.|.", text, re.DOTALL)


@contextmanager
def _key_presses() -> Iterator[Callable[[float], str]]:
    """Yields a function that waits the given seconds for a key, and returns the key. If no key is pressed, it returns ""."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    read: list[str] = []

    def next_key(wait_s: float) -> str:
        if not read and select.select([descriptor], [], [], wait_s)[0]:
            read.extend(_split_keys(os.read(descriptor, 1024).decode(errors="replace")))
        return read.pop(0) if read else ""

    tty.setcbreak(descriptor)
    try:
        yield next_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _session(ask: AskSorter) -> Iterator[tuple[AskSorter, CommandAnswer]]:
    """Yields a teaching session with the sorter. Keeps the session alive while the person works, and always ends it."""
    begun = ask("begin")
    session = begun.values["board"].pop("session")
    finished = threading.Event()

    def ask_in_session(teach: str, **fields: object) -> CommandAnswer:
        return ask(teach, session=session, **fields)

    def keep_alive() -> None:
        while not finished.wait(_KEEP_ALIVE_S):
            with suppress(GateError):
                ask_in_session("eyes")

    thread = SupervisedThread("teaching session", keep_alive, finished)
    thread.start()
    try:
        yield ask_in_session, begun
    finally:
        finished.set()
        thread.join()
        with suppress(GateError):
            ask_in_session("end")


def run_teach(
    ask: AskSorter,
    line: str,
    person: str,
    gate: GateSettings,
    file: Path | None,
    steps: tuple[str, ...],
    castings: int,
    wait_s: float,
    page: Path,
    is_confirmed: bool,
) -> int:
    """Measures the settings of a lane with the help of a person. Returns 0 if the settings were written or printed, otherwise 1.

    If teaching fails, the lane gets its former settings back. GateError or SettingsError then tells a person the cause.
    """
    record = TeachRecord(line, person, datetime.now(UTC))
    is_sent = False
    try:
        with _session(ask) as (ask_in_session, begun):
            board = begun.values["board"]
            # The board sends all values as text. Convert the whole numbers.
            used = {key: int(value) if str(value).isdecimal() else value for key, value in begun.values["settings"].items()}
            record.board = f"{board['port']}, lane {board['lane']}"
            known = LaneSettings({key: value for key, value in used.items() if key in BY_KEY})
            record.firmware = f"gate protocol {board['protocol']}, run {board['run']}, settings {known.digest}"
            say(f"Teaching {line} at the board {record.board}. Press Ctrl-C to stop. The lane then has its former settings.")
            dialogue = TeachDialogue(ask_in_session, record, gate, used)
            dialogue.run(steps, castings, wait_s)
            changes = _find_changes(dialogue.changes, gate, used, record)
            if not changes:
                say("All settings are right already. Nothing was written.")
            elif is_confirmed or click.confirm("Let the belt run empty. Use these settings?"):
                is_sent = True
                say(ask_in_session("apply", settings=changes).message)
                _write_settings(file, line, changes)
            else:
                say("Nothing was written. The lane has its former settings.")
                return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo()
        nothing = "Nothing was written. The lane has its former settings, and the servo is in its former position."
        perhaps = (
            'The board or the settings file can have them already. Start "castline board teach" again to see the settings of the board.'
        )
        say(f"Stopped while the new settings were sent. {perhaps}" if is_sent else f"Stopped. {nothing}")
        return 1
    write_atomically(page, render_page(record))
    say(f"The teaching report is in {page}. Open it in a browser, print it and sign it.")
    return 0


def _find_changes(
    learnt: Mapping[str, Number], gate: GateSettings, used: Mapping[str, int | str], record: TeachRecord
) -> dict[str, Number]:
    """Prints the learnt settings beside the present ones, and returns those that differ.

    Raises SettingsError if the learnt settings contradict other settings of the gate.
    """
    before = gate.model_dump()
    changes: dict[str, Number] = {}
    click.echo(f"\n{'setting':16}{'before':>10}{'after':>10}")
    for name, value in learnt.items():
        old = used[name.removeprefix("board.")] if name.startswith("board.") else before[name]
        if name == "travel_mm" and "eye_gap_mm" not in gate.board:
            old = used["eye_gap_mm"]
        old_text, new_text = (f"{each:g}" if isinstance(each, float) else str(each) for each in (old, value))
        # The measured `value` is compared with the value on the board and with the value in the settings file. These two values differ
        # if a person changed the file after the sorter's start.
        is_same = value == old and value == before.get(name, value)
        marked = " " if is_same else "*"
        click.echo(f"{name.removeprefix('board.'):16}{old_text:>10}{new_text:>10} {marked}")
        if not is_same:
            changes[name] = value
            record.changes.append((name.removeprefix("board."), old_text, new_text))
    if {"board.step_um", "board.step_nm"} & changes.keys():
        changes |= {name: learnt[name] for name in ("board.step_um", "board.step_nm")}
    try:
        lane_settings(change_gate(gate, changes))
    except ValueError as error:
        raise SettingsError(
            f"The learnt settings contradict other settings of the gate: {error}. Correct the other settings first. Nothing was written."
        ) from error
    return changes


def _write_settings(file: Path | None, line: str, changes: Mapping[str, Number]) -> None:
    """Writes the changes into the settings file. If the file cannot be changed, prints the lines that a person must add."""
    try:
        if file is None:
            raise ValueError("there is no settings file")
        if any(variable.startswith(f"{VARIABLE_PREFIX}LINES") for variable in os.environ):
            raise ValueError(f"an environment variable {VARIABLE_PREFIX}LINES… overrides the sections [[lines]] of the file")
        replace_atomically(file, edit_gate(file.read_text(encoding="utf-8"), line, changes))
    except (OSError, ValueError) as error:
        say(f"The settings file was not changed: {error}. Put these lines there, or the next start of the sorter uses the old settings:")
        click.echo(describe_changes(line, changes))
    else:
        say(f"The settings are in {file}.")
    if {"travel_mm", "belt_mm_per_s"} & changes.keys():
        say("Inspector and station compute deadlines from the travel time. Restart them when the line allows it.")
