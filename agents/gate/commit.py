"""Puts the settings of one lane in force at its board. See firmware/PROTOCOL.md, "CONFIGURE, COMMIT, SHOW"."""

from __future__ import annotations

from typing import Protocol

from firmware.board.lane_settings import TABLE, LaneSettings
from firmware.board.words import Fields
from firmware.fault_table import code_of
from streams.errors import GateError


class Call(Protocol):
    """Asks the board one command and gives the fields of its OK; raises GateError for an ERR."""

    def __call__(self, name: str, *fields: object) -> Fields: ...


def commit(settings: LaneSettings, lane: int, call: Call) -> str:
    """Sends every setting, then commits; the board's digest of what is in force.

    Raises GateError: when the board refuses; with code 9 (busy) while parts of an earlier configuration are on the belt.
    A board that does not know a setting which has its default value is no refusal.
    """
    for setting in TABLE:
        value = settings.values[setting.key]
        try:
            call("CONFIGURE", lane, setting.key, value)
        except GateError as error:
            if error.code != code_of("unknown-setting") or value != setting.default:
                raise
    return call("COMMIT", lane).word("digest")
