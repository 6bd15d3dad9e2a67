"""The one tree of errors, and what is done about each.

CastlineError
  +- PictureError    the picture is at fault: dead letter and a `review` verdict, carry on
  +- IdentityError   a record's identity is at fault: dead letter, carry on (no part can be named, so no verdict)
  +- ModelError      the model is at fault: refuse to serve it, keep the one in force
  +- GateError       the gate or its link is at fault: resend while `retriable`, then raise the alarm
  +- ArchiveError    the archive's database does not answer: wait and try again while `retriable`, else the record is at fault: dead letter
  +- SpoolFullError  the gateway's disk spool is full: the camera is told, the picture is refused and counted
  +- SettingsError   the operator's settings are at fault: refuse to start, say where
  +- BrokerError     the embedded broker cannot run: refuse to start, say what to do

Every message says what was expected, what was found and, where a part is known, for which part.
"""

from __future__ import annotations


class CastlineError(Exception):
    """Root of all errors that Castline raises on purpose."""


class PictureError(CastlineError):
    """A picture cannot be judged. `reason` is one of a fixed, small set of words (it becomes a metric label)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IdentityError(CastlineError):
    """The identity of a record (line, run, part) is absent or malformed."""


class ModelError(CastlineError):
    """A model version is absent, damaged, tampered with or unfit for the line."""


class GateError(CastlineError):
    """The board answered with an error or did not answer. `code` is the protocol's error code, 0 for silence."""

    def __init__(self, message: str, code: int = 0, retriable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable


class ArchiveError(CastlineError):
    """The archive did not take records: for now while `retriable`, else never, since one of them does not fit its table."""

    def __init__(self, message: str, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


class SpoolFullError(CastlineError):
    """The gateway's spool has reached the size set for it."""


class SettingsError(CastlineError):
    """A setting is unknown, missing or out of bounds."""


class BrokerError(CastlineError):
    """The embedded broker cannot be started or has stopped by itself."""
