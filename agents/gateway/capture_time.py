"""Reads the times at which cameras say that they took a picture, and finds implausible times.

A camera with an empty battery may say 1970. The intake replaces such a time with the time of arrival.
"""

from __future__ import annotations

from datetime import UTC, datetime

from streams.errors import IdentityError
from streams.identity import parse_time
from streams.record_reader import EARLIEST, MAX_AHEAD

_LATEST_UTC = datetime.max.replace(tzinfo=UTC)


def is_plausible(captured_at: datetime, arrived_at: datetime) -> bool:
    """Returns whether a picture that arrived at `arrived_at` can have been taken at `captured_at`.

    The limits are the year 2020 and two days after the arrival.
    """
    return EARLIEST <= captured_at <= arrived_at + MAX_AHEAD


def parse_capture_time(text: str, arrived_at: datetime) -> datetime:
    """Returns the time in UTC that an RFC 3339 text gives.

    Raises IdentityError if the text is no time, or if a plausible time has no time zone.
    """
    try:
        return parse_time(text)
    except IdentityError as error:
        refusal = error
    try:
        # A time without a time zone is read as UTC. A plausible time can then be wrong by hours, so it is refused below.
        # An implausible time, such as 1970, is returned, because the caller replaces it anyway.
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
