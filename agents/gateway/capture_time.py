"""Times at which cameras say that they took a picture.

The clock of a camera without a battery begins in 1970 or in the year 1, and a broken one shows years such as 2096 or 9999. Such times must
cost neither the picture nor its verdict. The functions here return a time in UTC for all of them. The intake replaces those that are not
plausible.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from streams.errors import IdentityError
from streams.identity import parse_time

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
MAX_AHEAD = timedelta(days=2)
_LATEST_UTC = datetime.max.replace(tzinfo=UTC)


def is_plausible(captured_at: datetime, arrived_at: datetime) -> bool:
    """Returns whether a picture that arrived at `arrived_at` can have been taken at `captured_at`.

    A time before 2020 or more than two days after the arrival is the sign of a wrong clock.
    """
    return EARLIEST <= captured_at <= arrived_at + MAX_AHEAD


def parse_capture_time(text: str, arrived_at: datetime) -> datetime:
    """Returns the time of an RFC 3339 text in UTC. A time that is not plausible needs no zone and may lie outside the years of UTC.

    Raises IdentityError if the text is no time, or if a plausible time has no zone.
    """
    try:
        return parse_time(text)
    except IdentityError as error:
        refusal = error
    try:
        # Without its zone the time is wrong by a day at most, which does not matter for a time that is not plausible.
        captured_at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise refusal from None
    if is_plausible(captured_at, arrived_at):
        raise refusal
    return captured_at


def read_file_time(changed_s: float) -> datetime:
    """Returns a file's time of last change, given in seconds since 1970, in UTC.

    A time outside the years 1 to 9999 becomes the nearest one.
    """
    try:
        return datetime.fromtimestamp(changed_s, UTC)
    except (ValueError, OverflowError, OSError):
        return _LATEST_UTC if changed_s > 0 else datetime.min.replace(tzinfo=UTC)
