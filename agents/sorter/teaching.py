"""A session of `castline board teach`: measures castings, holds the servo, and gives the board the settings that a person has confirmed.

A session begins with the command `begin`. It ends with the command `apply` or `end`, or after 15 s without a command.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from agents.gate.lane import GateState
from agents.sorter.board_questions import BoardQuestions, OldFirmwareError
from agents.sorter.decisions import grade_settings, lane_settings
from agents.sorter.passed_castings import EyeEdges, PassedCastings
from firmware.fault_table import code_of, error_codes
from firmware.lane_settings import BY_KEY, LaneSettings
from firmware.protocol import CHUTE_PAGE, VERSION
from streams.errors import GateError
from streams.records import Command, CommandAnswer, make_answer
from streams.settings import GateSettings

log = logging.getLogger(__name__)

# If no command comes for this time, the session ends, because the person's program has probably stopped.
MAX_SILENCE_S = 15.0
_POLL_S = 0.05
_ANSWER_S = 2.0
# During a teaching session, castings are often missing or unmatched. The board's setting `lost_limit` then has its highest value, so that
# these castings raise no fault.
_TEACHING_LOST_LIMIT = BY_KEY["lost_limit"].most
# Longest time that a gate needs to move to its other end, in seconds. The move takes at most 2 s (the largest `servo_ms`), and its servo
# pulse begins up to 20 ms after the command.
_MAX_SWING_S = 2.1
# The board refuses settings while a casting is on the belt. The session waits at most this time for an empty belt.
_MAX_BUSY_S = 10.0
_BUSY, _UNKNOWN_COMMAND = code_of("busy"), code_of("unknown-command")


class Teaching:
    """The teaching session of a line. Serves one person at a time. Call all methods in the event loop.

    `on_gate_changed` is called with the new settings of the gate after the board has accepted them.
    """

    def __init__(self, board: BoardQuestions, gate: GateSettings) -> None:
        self.on_gate_changed: Callable[[GateSettings], None] = lambda gate: None
        self._board = board
        self._gate = gate
        # True while a session begins, runs or ends. `_session` is set only while the session runs.
        self._is_taken = False
        self._session: uuid.UUID | None = None
        self._person = ""
        self._began_at = datetime.now(UTC)
        self._last_command_s = 0.0
        self._castings: PassedCastings | None = None
        self._run = 0
        self._task: asyncio.Task[None] | None = None

    async def execute(self, command: Command, deadline_s: float) -> CommandAnswer:
        """Executes a command of `castline board teach`. Raises GateError if the sorter or the board refuses the command.

        The message of the error says what the person should do.
        """
        if command.lane not in (None, self._board.lane.number):
            raise GateError("teach works only for the line's own lane. Call it without --lane.", retriable=False)
        if command.teach == "begin":
            return await self._begin(command, deadline_s)
        if self._session is None or command.session != self._session:
            raise GateError(
                "This teaching session has ended, and the lane has its former settings. Start castline board teach again.", retriable=False
            )
        self._last_command_s = time.monotonic()
        match command.teach:
            case "eyes":
                return make_answer("done", "", values={"eyes": await self._board.read_page(deadline_s, self._number, "eyes")})
            case "castings":
                return await self._measure(deadline_s)
            case "servo":
                return await self._hold_servo(command.servo_us or 0, deadline_s)
            case "swing":
                return await self._measure_swing(command.servo_us or 0, deadline_s)
            case "apply":
                return await self._apply(command.settings or {})
            case _:
                await self.end()
                return make_answer("done", "The teaching session has ended.")

    @property
    def is_measuring(self) -> bool:
        """True while the session measures castings that pass the photo-eyes."""
        return self._castings is not None

    @property
    def lasting_settings(self) -> dict[int, LaneSettings]:
        """The settings that the board uses outside a teaching session, by lane."""
        return {self._number: lane_settings(self._gate), **grade_settings(self._gate)}

    @property
    def _number(self) -> int:
        return self._board.lane.number

    # Begin and end

    async def _begin(self, command: Command, deadline_s: float) -> CommandAnswer:
        if self._is_taken:
            raise GateError(
                f"{self._person} has been teaching {self._board.line} since {self._began_at.astimezone():%H:%M:%S}. Wait until that person "
                "has finished, then start castline board teach again.",
                _BUSY,
                retriable=False,
            )
        self._is_taken, self._person, self._began_at = True, command.asked_by, datetime.now(UTC)
        try:
            return await self._begin_session(command.command_id, deadline_s)
        finally:
            self._is_taken = self._session is not None

    async def _begin_session(self, session: uuid.UUID, deadline_s: float) -> CommandAnswer:
        await self._check_lane(deadline_s)
        settings = await self._board.read_settings(deadline_s, self._number)
        self._session, self._last_command_s, self._run = session, time.monotonic(), self._board.lane.run
        self._task = asyncio.create_task(self._run_session())
        used = lane_settings(self._gate)
        await self._change_settings(self._gate, LaneSettings(used.values | {"lost_limit": _TEACHING_LOST_LIMIT}))
        board: dict[str, int | str] = {
            "port": self._board.port,
            "lane": self._number,
            "protocol": VERSION,
            "run": self._run,
            "session": str(session),
        }
        return make_answer("done", "", values={"board": board, "settings": settings})

    async def _check_lane(self, deadline_s: float) -> None:
        """Raises GateError if the lane cannot be taught now, because its firmware is too old, it has a fault, or its belt is not empty."""
        await self._read_edges(deadline_s)
        page = await self._board.read_page(deadline_s, self._number, "line")
        if page["state"] != "running":
            name = error_codes()[int(page["code"])].name if page["code"] in error_codes() else "no fault"
            raise GateError(
                f"Lane {self._number} does not run: its state is {page['state']}, and its oldest fault is {page['code']} ({name}). Remove "
                f"the cause, end the fault with castline board acknowledge --line {self._board.line}, and start castline board teach "
                "again.",
                _BUSY,
                retriable=False,
            )
        if page["tracked"]:
            raise self._busy_error()

    def _settings_error(self) -> GateError:
        """Returns an error that tells a person why the board does not use the new settings."""
        lane, board = self._board.lane, f"the board at {self._board.port}"
        if lane.state is GateState.REFUSED:
            return GateError(
                "The board refuses the new settings. The log of the sorter says why. The lane gets its former settings.", retriable=False
            )
        if not lane.is_connected:
            return GateError(
                f"The sorter of {self._board.line} has no connection to {board}. {lane.problem} Then start castline board teach again.",
                retriable=False,
            )
        return self._busy_error()

    def _busy_error(self) -> GateError:
        return GateError(
            f"A casting is on the belt of {self._board.line} or at a photo-eye. Let the belt run empty. Then start castline "
            "board teach again.",
            _BUSY,
            retriable=False,
        )

    async def _change_settings(self, gate: GateSettings, settings: LaneSettings) -> None:
        """Sends the settings of the lane, and of the additional gates of `gate`, to the board.

        Raises GateError if castings on the belt prevent the change, or if the session ends too early. The session is then over.
        """
        lane, session = self._board.lane, self._session
        lane.change_settings({self._number: settings, **grade_settings(gate)})
        for _ in range(round(_MAX_BUSY_S / _POLL_S)):
            if lane.is_configured or lane.state is GateState.REFUSED:
                break
            await asyncio.sleep(_POLL_S)
        if self._session != session:
            raise GateError(
                f"The teaching session of {self._board.line} ended before the board had accepted the new settings. The lane has its former "
                "settings.",
                retriable=False,
            )
        if not lane.is_configured:
            error = self._settings_error()
            await self.end()
            raise error

    async def end(self) -> None:
        """Ends a session. The servo gets its former pulse and the lane its former settings. Does nothing without a session."""
        if self._session is None:
            return
        self._session, self._castings = None, None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None
        try:
            with suppress(GateError):
                await self._board.ask(time.monotonic() + _ANSWER_S, "SERVO", self._number, 0)
        finally:
            self._board.lane.change_settings(self.lasting_settings)
            self._is_taken = False
        log.info("%s: the teaching session of %s has ended", self._board.line, self._person)

    async def _run_session(self) -> None:
        """Reads the photo-eyes while castings are measured. Ends the session if no command comes for too long."""
        while time.monotonic() - self._last_command_s < MAX_SILENCE_S:
            castings = self._castings
            if castings is not None and not castings.problem:
                try:
                    castings.add(*await self._read_edges(time.monotonic() + _ANSWER_S))
                except GateError as error:
                    castings.problem = str(error)
                if self._board.lane.run != self._run:
                    castings.problem = "The board was reset while castings were measured. Check its supply and its cable, then start again."
            await asyncio.sleep(_POLL_S)
        log.warning("%s: %s sends no commands any more, so the teaching session ends", self._board.line, self._person)
        await self.end()

    # Measuring and applying

    async def _read_edges(self, deadline_s: float) -> tuple[EyeEdges, EyeEdges]:
        pages = [await self._board.read_page(deadline_s, self._number, page) for page in ("edge1", "edge2")]
        return EyeEdges.from_page(pages[0]), EyeEdges.from_page(pages[1])

    async def _measure(self, deadline_s: float) -> CommandAnswer:
        """Returns the castings that have passed since the first call.

        The answer contains the length of each casting, and its travel from photo-eye 1 to photo-eye 2.
        """
        if self._castings is None:
            used = lane_settings(self._gate)
            part_min_ms = used.number("part_min_mm") / self._gate.belt_mm_per_s * 1000
            self._castings = PassedCastings(*await self._read_edges(deadline_s), part_min_ms, bool(used.number("encoder")))
        castings = self._castings
        if castings.problem:
            raise GateError(castings.problem, retriable=False)
        values: dict[str, dict[str, int | str]] = {f"casting {index}": asdict(each) for index, each in enumerate(castings.castings, 1)}
        values["seen"] = {f"eye{eye}": seen for eye, seen in castings.seen.items()}
        return make_answer("done", "", values=values)

    async def _hold_servo(self, pulse_us: int, deadline_s: float) -> CommandAnswer:
        try:
            await self._board.ask(deadline_s, "SERVO", self._number, pulse_us)
        except GateError as error:
            if error.code == _BUSY:
                raise self._busy_error() from error
            if error.code == _UNKNOWN_COMMAND:
                raise OldFirmwareError(
                    f"The firmware of the board at {self._board.port} is too old, because it does not know the command SERVO. Stop the "
                    'sorter, write the present firmware with "castline board flash", start the sorter, and start castline board '
                    "teach again.",
                    error.code,
                    retriable=False,
                ) from error
            raise
        return make_answer("done", "")

    async def _measure_swing(self, pulse_us: int, deadline_s: float) -> CommandAnswer:
        """Moves the gate to its other end. Returns how long the gate needed until the end switch reported its arrival.

        The result is up to 30 ms too long: the servo's pulse begins up to 20 ms after the command, and each status request takes some time.
        """
        if not (await self._is_gate_at_end(deadline_s)):
            raise self._swing_error("does not stand at an end")
        await self._hold_servo(pulse_us, deadline_s)
        began_s, has_left = time.monotonic(), False
        while (passed_s := time.monotonic() - began_s) < _MAX_SWING_S:
            is_at_end = await self._is_gate_at_end(deadline_s)
            if is_at_end and has_left:
                return make_answer("done", "", values={"swing": {"ms": round((time.monotonic() - began_s) * 1000)}})
            has_left |= not is_at_end
        trouble = "has not reached its other end" if has_left else "has not left its end"
        raise self._swing_error(f"{trouble} {passed_s:.0f} s after the order to move")

    async def _is_gate_at_end(self, deadline_s: float) -> bool:
        return bool((await self._board.read_page(deadline_s, self._number, CHUTE_PAGE))["at_end"])

    def _swing_error(self, trouble: str) -> GateError:
        return GateError(
            f"The end switch says that the gate of {self._board.line} {trouble}. Check the end switch, its wires, the positions rest and "
            "out, and whether something blocks the gate. Then start castline board teach again. Nothing was written.",
            retriable=False,
        )

    async def _apply(self, changes: dict[str, int | float]) -> CommandAnswer:
        """Gives the board the settings that a person has confirmed, and ends the session."""
        try:
            gate = change_gate(self._gate, changes)
            settings = lane_settings(gate)
        except (ValueError, ValidationError) as error:
            raise GateError(f"The new settings are not possible: {error}", retriable=False) from error
        await self._change_settings(gate, settings)
        self._gate = gate
        await self.end()
        self.on_gate_changed(gate)
        return make_answer("done", f"The board of {self._board.line} uses the new settings.")


def change_gate(gate: GateSettings, changes: Mapping[str, int | float | str]) -> GateSettings:
    """Returns the settings of a gate with changes such as `travel_mm` or `board.window_mm`. Raises ValueError if a value is not allowed."""
    values: dict[str, Any] = gate.model_dump()
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        group = values.get(section) if section else values
        if not isinstance(group, dict):
            raise ValueError(f"a gate has no setting {name}")
        group[key] = value
    return GateSettings.model_validate(values)
