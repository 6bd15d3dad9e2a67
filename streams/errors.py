"""All errors that Castline raises on purpose. The text before each colon is the cause, and the text after it is the reaction.

CastlineError
  +- PictureError    A picture cannot be judged: it becomes a dead letter, and its part gets the verdict `review`.
  |    +- DecoderProcessError  The process that decodes pictures failed: the picture may be good, and a later attempt can succeed.
  +- IdentityError   A record does not name its part: the record becomes a dead letter, and no verdict is written.
  +- RecordError     A record is not valid for its topic: one role writes a dead letter, and other roles log and skip the record.
  +- ModelError      A model version cannot be used: the current version stays in use.
  +- GateError       A board or its link failed: the operation is tried again if `retriable` is True.
  +- ArchiveError    The database refused a record: it is stored later if `retriable` is True, and otherwise becomes a dead letter.
  +- SpoolFullError  The gateway's queue on disk is full: the gateway refuses the picture.
  +- SettingsError   A setting is wrong: the process does not start.
  +- BrokerError     Kafka cannot run or does not answer: the process or the command ends.
  |    +- PortInUseError  Another program listens at the broker's port: the start is tried again if the broker has data.
  |    +- BrokerStartError  This start of the embedded broker failed: the process ends with exit code 1, and is started again.
  +- DuplicateProcessError  Another installation runs a process with the same name or task: this process ends with exit code 4.
"""

from __future__ import annotations

from typing import TypeVar

Error = TypeVar("Error", bound=BaseException)


class CastlineError(Exception):
    """The root of all errors that Castline raises on purpose."""


class PictureError(CastlineError):
    """A picture cannot be judged. `reason` is one word of a small fixed set, because it becomes the label of a metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecoderProcessError(PictureError):
    """The process that decodes pictures could not start, was killed, or got too little processor time. The picture may be good."""


class IdentityError(CastlineError):
    """The identity of a record (line, run, part) is absent or malformed."""


class RecordError(CastlineError):
    """A record is not valid for its topic, or a role failed while it processed the record.

    `reason` is one word of a small fixed set, because it becomes the label of a metric.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ModelError(CastlineError):
    """A model version is absent, damaged, forged, or unsuitable for the line."""


class GateError(CastlineError):
    """A board answered with an error or did not answer. `code` is an error code from firmware/error_codes.csv, such as 80 for no answer."""

    def __init__(self, message: str, code: int = 0, retriable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable


class ArchiveError(CastlineError):
    """The database refuses records. If `retriable` is False, at least one of the records can never be stored."""

    def __init__(self, message: str, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


class SpoolFullError(CastlineError):
    """The gateway's spool, its queue on disk, has reached `gateway.spool_max_bytes`, or the disk is full."""


class SettingsError(CastlineError):
    """A setting is unknown, missing or out of bounds."""


class BrokerError(CastlineError):
    """The embedded broker cannot start or has stopped by itself, or Kafka did not answer a request in time."""


class PortInUseError(BrokerError):
    """Another program listens at a port of the embedded broker."""


class BrokerStartError(BrokerError):
    """The embedded broker started too slowly, or ended during its start. Another start may succeed."""


class DuplicateProcessError(CastlineError):
    """Another installation already runs a process that cannot run twice.

    The other process has the same name as this one, or does a task that only one process may do, such as the sorting of a line.
    """

    EXIT_STATUS = 4


def drop_traceback(error: Error) -> Error:
    """Removes from `error` its traceback and the errors that caused it. Returns `error`. Call this function before an error is stored.

    A traceback keeps the variables of its functions in memory, and with them the record and its picture.
    """
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
