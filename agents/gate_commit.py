"""Puts a line's settings in force at its board. See firmware/PROTOCOL.md, "CONFIGURE, COMMIT, SHOW"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from firmware.board.codes import number
from firmware.board.lane_settings import TABLE, LaneSettings
from firmware.board.words import Fields
from streams.errors import GateError

_PAUSE_S = 0.5


class Call(Protocol):
    """Asks the board one command and gives the fields of its OK; raises GateError for an ERR."""

    def __call__(self, name: str, *fields: object) -> Fields: ...


def commit(settings: LaneSettings, lane: int, call: Call, pause: Callable[[float], None]) -> str:
    """Sends every setting, then commits; the board's digest of what is in force.

    Raises GateError: when the board refuses. A board that does not know a setting which has its default value is none.
    """
    for setting in TABLE:
        value = settings.values[setting.key]
        try:
            call("CONFIGURE", lane, setting.key, value)
        except GateError as error:
            if error.code != number("unknown-setting") or value != setting.default:
                raise
    while True:
        try:
            return call("COMMIT", lane).word("digest")
        except GateError as error:
            # Parts of an earlier configuration are on the belt; they leave within the travel time.
            if error.code != number("busy"):
                raise
            pause(_PAUSE_S)
