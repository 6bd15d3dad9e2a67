"""Executes the commands of people for one line, such as `acknowledge`, `test` and `pause`.

The commands come from `command_socket` (the command line) and from `command_topic` (the station).
"""

from __future__ import annotations

import json
import logging
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agents.gate.lane import FaultChanged, GateEvent, GateLane, PartSorted
from agents.sorter.board_questions import BoardQuestions, OldFirmwareError
from agents.sorter.teaching import Teaching
from firmware.fault_table import code_of, error_codes
from firmware.protocol import CHUTE_PAGE, EDGE_PAGES, KNOWN_PAGES, PLANT_PAGE
from streams.atomic_file import write_atomically
from streams.errors import GateError
from streams.identity import format_time
from streams.records import Command, CommandAnswer, make_answer
from streams.settings import GateSettings

log = logging.getLogger(__name__)

# If the clock of the station is ahead of the sorter's clock by more than this, the sorter refuses all commands of the station.
_MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
_MAX_RECENT = 20
_FAULT_PRESENT, _NOT_CLEARABLE = code_of("fault-present"), code_of("not-clearable")
_LINK_AWAY, _UNKNOWN_LANE = code_of("link-away"), code_of("unknown-lane")
Values = dict[str, dict[str, int | str]]


class LineCommands:
    """Executes each command at most once. A command expires at its `valid_until`. All methods are called in the event loop.

    - `pause_file`: this file exists while the line is paused. So a restart of the sorter or of the machine does not end the pause.
    - `older_pause_file`: the pause file of an older release, which kept this file in `service.run_dir`. If the file exists, the line is
      paused, too.
    - `describe_start`: returns a sentence about the verdicts that the sorter skipped at its start, or "".
    """

    def __init__(
        self,
        line: str,
        lane: GateLane,
        gate: GateSettings,
        pause_file: Path,
        describe_start: Callable[[], str] = lambda: "",
        older_pause_file: Path | None = None,
    ) -> None:
        self.line = line
        self._describe_start = describe_start
        self._lane = lane
        self._board = BoardQuestions(line, lane, gate.port)
        self.teaching = Teaching(self._board, gate)
        self._pause_file = pause_file
        self._pause_files = [file for file in (pause_file, older_pause_file) if file is not None]
        self._known_ids: dict[uuid.UUID, datetime] = {}
        self._recent_parts: deque[str] = deque(maxlen=_MAX_RECENT)
        self._recent_faults: deque[str] = deque(maxlen=_MAX_RECENT)
        lane.is_paused = any(file.exists() for file in self._pause_files)

    def add_event(self, event: GateEvent) -> None:
        """Remembers an event of the board for the command `monitor`."""
        if isinstance(event, PartSorted):
            at = event.at_gate_at.astimezone().strftime("%H:%M:%S")
            part = f"part {event.part}" if event.part else "an uncounted part"
            self._recent_parts.appendleft(f"{at} {part}: {event.action} ({event.reason}){', gate moved' if event.moved else ''}")
        elif isinstance(event, FaultChanged):
            row = error_codes().get(event.code)
            at = event.at.astimezone().strftime("%H:%M:%S")
            change = "began" if event.raised else "ended by the push-button" if event.is_ended_by_button else "ended"
            self._recent_faults.appendleft(f"{at} fault {event.code} ({row.name if row else 'unknown'}) {change}, detail {event.detail}")

    def add_known(self, command: Command) -> None:
        """Remembers the id of a command, so that a later command with the same id is not executed."""
        self._known_ids[command.command_id] = command.valid_until

    def is_known(self, command: Command) -> bool:
        """Returns whether a command with the same id has come before."""
        return command.command_id in self._known_ids

    async def execute(self, command: Command) -> CommandAnswer:
        """Executes a command and returns the answer. If the board refuses the command, the answer says why."""
        now = datetime.now(UTC)
        if self.is_known(command):
            return make_answer("refused", "The command was not executed again, because a command with the same id came before.")
        self._known_ids = {known: until for known, until in self._known_ids.items() if until + 2 * _MAX_CLOCK_DIFFERENCE > now}
        self.add_known(command)
        if command.valid_until <= now:
            return make_answer("expired", "The command was not executed, because it came too late. Send the command again.")
        if command.asked_at > now + _MAX_CLOCK_DIFFERENCE:
            return make_answer(
                "refused", "The time of the command is in the future. Check the clocks of the station and of the sorter's machine."
            )
        deadline_s = time.monotonic() + (command.valid_until - now).total_seconds()
        try:
            answer = await self._dispatch(command, deadline_s)
        except GateError as error:
            answer = make_answer("failed" if error.code == _LINK_AWAY else "refused", str(error), error.code)
        log.info(
            "%s: %s gave the command %s. Its outcome: %s. %s", self.line, command.asked_by, command.action, answer.outcome, answer.message
        )
        return answer

    async def _dispatch(self, command: Command, deadline_s: float) -> CommandAnswer:
        number = command.lane or self._lane.number
        if number not in self._lane.lane_numbers:
            raise GateError(f"Lane {number} does not belong to {self.line}. Name a lane of this line.", _UNKNOWN_LANE, retriable=False)
        match command.action:
            case "pause" | "resume":
                return self._set_pause(command)
            case "acknowledge":
                return await self._acknowledge(number, deadline_s)
            case "clear":
                told = (await self._board.ask(deadline_s, "CLEAR", number, command.code))["told"]
                return make_answer("done", f"fault {command.code}: {told}")
            case "test":
                told = (await self._board.ask(deadline_s, "TEST", number, secrets.randbelow(65536), command.what))["told"]
                return make_answer("done", f"{command.what}: {told}")
            case "settings":
                return make_answer("done", "These are the settings that the board uses.", values=await self._read_settings(deadline_s))
            case "teach":
                return await self.teaching.execute(command, deadline_s)
            case "status" | "monitor":
                return await self._report(command, number, deadline_s)

    async def _acknowledge(self, number: int, deadline_s: float) -> CommandAnswer:
        cleared, present = [], []
        for row in (row for row in error_codes().values() if row.kind == "fault"):
            try:
                if (await self._board.ask(deadline_s, "CLEAR", number, row.code))["told"] == "cleared":
                    cleared.append(f"{row.code} {row.name}")
            except GateError as error:
                if error.code == _FAULT_PRESENT:
                    present.append(f"{row.code} {row.name}")
                elif error.code != _NOT_CLEARABLE:
                    raise
        message = f"Faults that have ended: {', '.join(cleared) or 'none'}."
        if present:
            message += f" Faults whose cause is still there: {', '.join(present)}. Remove the cause, then acknowledge again."
        return make_answer("refused" if present else "done", message, _FAULT_PRESENT if present else 0)

    async def _read_settings(self, deadline_s: float) -> Values:
        return {f"lane {number}": await self._board.read_settings(deadline_s, number) for number in sorted(self._lane.lane_numbers)}

    async def _report(self, command: Command, number: int, deadline_s: float) -> CommandAnswer:
        pages = {page: await self._board.read_page(deadline_s, number, page) for page in KNOWN_PAGES}
        further = (CHUTE_PAGE, PLANT_PAGE, *(EDGE_PAGES if command.action == "monitor" else ()))
        for page in further:
            with suppress(OldFirmwareError):
                pages[page] = await self._board.read_page(deadline_s, number, page)
        message = f"The gate of {self.line} is {self._lane.state}. {self._describe_start()}".strip()
        if self._lane.is_paused:
            message += f" The line is paused: {_describe_pause(self._pause_files)}"
        is_monitor = command.action == "monitor"
        return make_answer(
            "done",
            message,
            values=pages,
            recent_parts=tuple(self._recent_parts) if is_monitor else (),
            recent_faults=tuple(self._recent_faults) if is_monitor else (),
        )

    def _set_pause(self, command: Command) -> CommandAnswer:
        """Pauses or resumes the line at once, and writes or deletes the pause file, so that a restart of the sorter changes nothing.

        If the pause file cannot be changed, the answer says whether the line will be paused after a restart.
        """
        is_pause = command.action == "pause"
        try:
            if not is_pause:
                for file in self._pause_files:
                    file.unlink(missing_ok=True)
            elif not any(file.exists() for file in self._pause_files):
                write_atomically(self._pause_file, json.dumps({"by": command.asked_by, "at": format_time(datetime.now(UTC))}), mode=0o600)
            warning = ""
        except OSError as error:
            after_restart = "is not paused" if is_pause else "is paused again"
            warning = (
                f" After a restart of the sorter the line {after_restart}, because {self._pause_file} cannot be changed: {error.strerror}."
            )
        self._lane.is_paused = is_pause
        if not is_pause:
            return make_answer("done", f"{self.line} is not paused. The sorter sends the verdicts of new parts to the board.{warning}")
        sentence = "The sorter sends no verdicts, so the board treats every new part as a part without verdict."
        return make_answer("done", f"{self.line} is paused. {sentence} The command resume ends the pause.{warning}")


def _describe_pause(files: list[Path]) -> str:
    try:
        pause = json.loads(next(file for file in files if file.exists()).read_text())
        return f"by {pause['by']} since {pause['at']}."
    except (StopIteration, OSError, ValueError, KeyError):
        return "its file cannot be read. The command resume ends the pause."
