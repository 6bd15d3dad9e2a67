"""All errors that Castline raises on purpose, in one tree. The tree says what the program does about each kind.

CastlineError
  +- PictureError    A picture cannot be judged. The record becomes a dead letter, the part gets a `review` verdict, the work goes on.
  +- IdentityError   A record names no part. The record becomes a dead letter without a verdict, the work goes on.
  +- ModelError      A model version cannot serve. It is refused, and the version in use stays.
  +- GateError       A board or its serial link failed. The command is sent again while `retriable` is True, then an alarm is raised.
  +- ArchiveError    The database did not accept records. The write is repeated while `retriable` is True, else the record is a dead letter.
  +- SpoolFullError  The gateway's queue on disk is full. The picture is refused and counted.
  +- SettingsError   A setting is wrong. The process does not start.
  +- BrokerError     The embedded broker cannot run. The process does not start.
"""

from __future__ import annotations


class CastlineError(Exception):
    """The root of all errors that Castline raises on purpose."""


class PictureError(CastlineError):
    """A picture cannot be judged. `reason` is one word of a small fixed set, because it becomes a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IdentityError(CastlineError):
    """The identity of a record (line, run, part) is absent or malformed."""


class ModelError(CastlineError):
    """A model version is absent, damaged, tampered with, or unsuitable for the line."""


class GateError(CastlineError):
    """A board answered with an error or did not answer. `code` is the error code of the gate protocol, or 0 if no answer came."""

    def __init__(self, message: str, code: int = 0, retriable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable


class ArchiveError(CastlineError):
    """The database did not accept records. `retriable` is False if one of the records can never be stored."""

    def __init__(self, message: str, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


class SpoolFullError(CastlineError):
    """The gateway's spool, its queue on disk, has reached `gateway.spool_max_bytes`, or the disk is full."""


class SettingsError(CastlineError):
    """A setting is unknown, missing or out of bounds."""


class BrokerError(CastlineError):
    """The embedded broker cannot be started, or it has stopped by itself."""
