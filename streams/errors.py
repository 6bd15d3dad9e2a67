"""All errors that Castline raises on purpose. For each class, this tree says what happened and how the program reacts.

CastlineError
  +- PictureError    A picture cannot be judged. Its record becomes a dead letter, and its part gets the verdict `review`. Work continues.
  +- IdentityError   A record does not name its part. It becomes a dead letter, and no verdict is made. Work continues.
  +- ModelError      A model version cannot be used. It is refused, and the current version stays in use.
  +- GateError       A board or its serial link failed. If `retriable` is True, the sorter tries again. Otherwise it reports the error.
  +- ArchiveError    The database refused a record. If `retriable` is True, the archivist tries again. Otherwise it makes a dead letter.
  +- SpoolFullError  The gateway's queue on disk is full. The picture is refused and counted.
  +- SettingsError   A setting is wrong. The process does not start.
  +- BrokerError     The embedded broker cannot run, or Kafka does not answer a request. The process or the command ends.
"""

from __future__ import annotations


class CastlineError(Exception):
    """The root of all errors that Castline raises on purpose."""


class PictureError(CastlineError):
    """A picture cannot be judged. `reason` is one word of a small fixed set, because it becomes the label of a metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IdentityError(CastlineError):
    """The identity of a record (line, run, part) is absent or malformed."""


class ModelError(CastlineError):
    """A model version is absent, damaged, tampered with, or unsuitable for the line."""


class GateError(CastlineError):
    """A board answered with an error or did not answer. `code` is an error code from firmware/error_codes.csv, such as 80 for no answer."""

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
    """The embedded broker cannot start or has stopped by itself, or Kafka did not answer a request in time."""
