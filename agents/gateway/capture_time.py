"""Reads the times at which cameras say that they took a picture, and finds implausible times.

A camera with an empty battery may give a time in 1970. The intake replaces such a time with the time of arrival.
"""

from __future__ import annotations

from datetime import UTC, datetime

from streams.errors import IdentityError
from streams.identity import parse_time
from streams.record_reader import EARLIEST, MAX_AHEAD

_LATEST_UTC = datetime.max.replace(tzinfo=UTC)


def is_plausible(captured_at: datetime, arrived_at: datetime) -> bool:
    """Returns whether `captured_at` is a believable time for a picture that arrived at `arrived_at`.

    The time must lie between the start of 2020 and two days after the arrival.
    """
    return EARLIEST <= captured_at <= arrived_at + MAX_AHEAD


def parse_capture_time(text: str, arrived_at: datetime) -> datetime:
    """Reads a time in the format of RFC 3339, and returns it in UTC.

    A time without a time zone is refused, because it could be wrong by hours. Only a clearly wrong time, such as a time in 1970, needs no
    time zone, because the caller replaces it by the time of arrival.

    Raises IdentityError if the time is refused, or if the text is not a time.
    """
    try:
        return parse_time(text)
    except IdentityError as error:
        refusal = error
    try:
        # Perhaps the text is a time without a time zone. Such a time is refused if it is plausible, because it could be wrong by hours, and
        # nobody would notice. A clearly wrong time is returned, because the caller uses the time of arrival in its place.
        captured_at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise refusal from None
    if is_plausible(captured_at, arrived_at):
        raise refusal
    return captured_at


def read_file_time(changed_s: float) -> datetime:
    """Returns the time in UTC at which a file was last changed. `changed_s` is in seconds since 1970.

    The result is limited to the years 1 to 9999.
    """
    try:
        return datetime.fromtimestamp(changed_s, UTC)
    except (ValueError, OverflowError, OSError):
        return _LATEST_UTC if changed_s > 0 else datetime.min.replace(tzinfo=UTC)
