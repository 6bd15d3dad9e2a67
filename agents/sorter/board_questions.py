"""Asks the board of a line for its settings and status, and sends a person's commands to the board."""

from __future__ import annotations

import asyncio

from agents.gate.lane import GateLane, GateState
from firmware.fault_table import code_of
from firmware.lane_settings import TABLE
from firmware.protocol import Fields
from streams.errors import GateError

_DEADLINE, _LINK_AWAY = code_of("deadline"), code_of("link-away")
_UNKNOWN_SETTING, _WRONG_FIELDS = code_of("unknown-setting"), code_of("wrong-fields")


class OldFirmwareError(GateError):
    """Raised if the firmware of a board is too old for a command."""


class BoardQuestions:
    """Sends commands to the board at `port`, to which the gate of `line` is wired. Times are seconds of the monotonic clock."""

    def __init__(self, line: str, lane: GateLane, port: str) -> None:
        self.line = line
        self.lane = lane
        self.port = port

    async def ask(self, deadline_s: float, name: str, *fields: object) -> Fields:
        """Sends a command to the board and returns the fields of its answer.

        Raises GateError if the board is not connected, refuses the command, or does not answer in time.
        """
        if self.lane.state is GateState.AWAY:
            raise GateError(
                f"The sorter of {self.line} has no connection to the board at {self.port}. {self.lane.problem}", _LINK_AWAY, retriable=True
            )
        try:
            return (await asyncio.wrap_future(self.lane.send_command(name, *fields, deadline_s=deadline_s))).fields
        except GateError as error:
            if error.code != _DEADLINE:
                raise
            raise GateError(
                f"The board at {self.port} did not answer {name} in time. The state of the link is: {self.lane.state}. {self.lane.problem}",
                _LINK_AWAY,
                retriable=True,
            ) from error

    async def read_page(self, deadline_s: float, number: int, page: str) -> dict[str, int | str]:
        """Asks the board for a status page of the lane `number`, for example the page `edge1`, and returns the fields of the page.

        Raises OldFirmwareError if the firmware of the board does not know the page.
        """
        try:
            fields = dict(await self.ask(deadline_s, "STATUS", number, page))
        except GateError as error:
            if error.code != _WRONG_FIELDS:
                raise
            raise OldFirmwareError(
                f"The firmware of the board at {self.port} is too old, because it does not know the status page {page}. Stop the sorter, "
                'write the present firmware with "castline board flash", start the sorter, and repeat this command.',
                error.code,
                retriable=False,
            ) from error
        del fields["page"]
        return fields

    async def read_settings(self, deadline_s: float, number: int) -> dict[str, int | str]:
        """Returns the settings that the lane `number` uses. Settings that the board does not know are left out."""
        values: dict[str, int | str] = {}
        for setting in TABLE:
            try:
                values[setting.key] = (await self.ask(deadline_s, "SHOW", number, setting.key))["value"]
            except GateError as error:
                if error.code != _UNKNOWN_SETTING:
                    raise
        return values
