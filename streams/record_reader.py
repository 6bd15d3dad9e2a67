"""Reads the JSON records of all topics, and refuses a record if one of its values is out of bounds, such as a time in the year 9999.

    verdict = read_record(Verdict, record.value, broker_time)     raises RecordError

Without these bounds, a single wrong record could make a role fail again after each restart. The published schemas do not contain the
bounds, because a record that an older release wrote must stay valid.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from streams import metrics
from streams.errors import IdentityError, RecordError
from streams.object_store import is_heat_map_address
from streams.records import Finding, PartRecord, Record, Verdict
from streams.topics import TopicNames
from streams.unreadable_batches import check_readable

log = logging.getLogger(__name__)

# A time before this one is wrong, because Castline did not exist then. For example, a clock without a battery starts in 1970 or in 2000.
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
# A time in a record may be at most this far ahead of the reader's clock, or of the time that Kafka gave the record. The limit is more than
# a day, because a clock with a wrong time zone can be ahead by a day.
MAX_AHEAD = timedelta(days=2)
# A field whose name ends with `until` is the end of a plan, such as a planned stop of the line, so it can be a year ahead.
MAX_UNTIL_AHEAD = timedelta(days=366)
# If the time that Kafka gave a record is further ahead of the reader's clock than this, the reader uses its own time instead.
_MAX_BROKER_AHEAD = timedelta(days=366)

# The reasons for which `check_references` refuses a record: the record belongs to another line, or names a wrong picture or heat map.
OTHER_LINE = "other-line"
REFERENCE = "reference"

_MAX_VALUE_BYTES = 2**20
_MAX_TEXT = 4096
_MAX_ITEMS = 1024
_MAX_KEY = 128
_MAX_FLOAT = 1e12
_INT32, _INT64 = 2**31 - 1, 2**63 - 1
# The fields whose numbers Kafka and the archive store in 32 bits.
_SMALL_NUMBERS = frozenset({"partition", "width_px", "height_px", "left_px", "top_px", "code"})
# The longest text that the archive can hold in each field, in characters.
_TEXT_LENGTHS = {
    "model": 64,
    "version": 64,
    "shadow": 64,
    "reason": 64,
    "kind": 64,
    "kinds": 64,
    "grade": 64,
    "method": 32,
    "topic": 249,
    "heat_map": 255,
    "reviewer": 150,
}

R = TypeVar("R", bound=Record)


def read_record(kind: type[R], value: bytes | None, broker_time: datetime | None = None) -> R:
    """Returns the record of type `kind` that `value` holds as JSON.

    `broker_time` is the time that Kafka gave the record, from `read_broker_time`. None stands for the present time.

    Raises RecordError if `value` is not such a record, or if the value of a field is out of bounds.
    """
    check_readable(value)
    if not value:
        raise RecordError("empty", f"The record has no value, but every record of its topic must be a {kind.name}.")
    if len(value) > _MAX_VALUE_BYTES:
        raise RecordError("not-a-record", f"The record has {len(value)} bytes. A {kind.name} has at most {_MAX_VALUE_BYTES} bytes.")
    try:
        record = kind.decode(value)
        _Bounds(broker_time or datetime.now(UTC)).check("", "", record)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(step) for step in fault["loc"]) or "the record"
        raise RecordError("not-a-record", f"The record is not a valid {kind.name}: {field}: {fault['msg']}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise RecordError("not-a-record", f"The record is not a valid {kind.name}: {error}") from None
    return record


def read_broker_time(timestamp_s: float | None, now: datetime | None = None) -> datetime:
    """Returns the time of a Kafka record in UTC, or `now` if the record has no plausible time. `timestamp_s` are seconds since 1970.

    A plausible time is not before 2020 and at most a year after `now`. The default of `now` is the present time. The limit is a year, and
    not shorter, because the clock of the reader can be wrong.
    """
    now = now or datetime.now(UTC)
    try:
        time = datetime.fromtimestamp(timestamp_s or 0, UTC)
    except (ValueError, OverflowError, OSError):
        return now
    return time if EARLIEST <= time <= now + _MAX_BROKER_AHEAD else now


def skip_record(role: str, record: Any, error: Exception) -> None:
    """Logs and counts a Kafka record that `role` skips because of `error`. Another role writes the dead letter of this record.

    Any other error than a RecordError is a fault of Castline, so its traceback is logged, too.
    """
    # The second word of a topic name is the kind of topic, such as `verdicts` in castings.verdicts.line-1.
    kind = record.topic.split(".")[1]
    metrics.records_skipped.labels(role, kind).inc()
    place = (record.topic, record.partition, record.offset)
    log.warning("The record at %s/%d@%d is skipped: %s", *place, error)
    if not isinstance(error, RecordError):
        log.error("An error in Castline's own code stopped the work on the record at %s/%d@%d.", *place, exc_info=error)


def is_in_bounds(time: datetime, broker_time: datetime) -> bool:
    """Returns whether `time` is plausible in a record that Kafka got at `broker_time`. The two times must have a time zone.

    A plausible time is not before 2020. It is at most two days ahead of `broker_time` or of the reader's clock.
    """
    return EARLIEST <= time <= _newer_clock(broker_time) + MAX_AHEAD


def _newer_clock(broker_time: datetime) -> datetime:
    return max(broker_time, datetime.now(UTC))


def check_header_time(name: str, time: datetime | None, broker_time: datetime) -> None:
    """Raises IdentityError if the time in the header `name` of a Kafka record is out of bounds. A missing time (None) is allowed."""
    if time is not None and not is_in_bounds(time, broker_time):
        raise IdentityError(_time_problem(f"the header {name}", time, _newer_clock(broker_time) + MAX_AHEAD))


class _Bounds:
    """Checks the values of a record that Kafka got at `broker_time`: times, numbers, and the lengths of texts and lists.

    If a value is out of bounds, `check` raises ValueError. The error names the value.
    """

    def __init__(self, broker_time: datetime) -> None:
        self._newest_clock = _newer_clock(broker_time)

    def check(self, place: str, name: str, value: object) -> None:
        """Checks a value and everything that it contains.

        `place` is the path to the value in the record, such as `image.sha256`. `name` is the name of the field, such as `sha256`.
        """
        if isinstance(value, BaseModel):
            for field in type(value).model_fields:
                self.check(f"{place}.{field}".removeprefix("."), field, getattr(value, field))
        elif isinstance(value, tuple):
            self._check_size(place, len(value))
            for index, item in enumerate(value):
                self.check(f"{place}.{index}", name, item)
        elif isinstance(value, dict):
            self._check_size(place, len(value))
            for key, item in value.items():
                self._check_text(f"the keys of {place}", key, _MAX_KEY)
                self.check(f"{place}.{key}", "", item)
        else:
            self._check_single(place, name, value)

    def _check_single(self, place: str, name: str, value: object) -> None:
        match value:
            case None | bool() | UUID():
                pass
            case datetime():
                self._check_time(place, name, value)
            case str():
                self._check_text(place, value, _TEXT_LENGTHS.get(name, _MAX_TEXT))
            case int():
                largest = _INT32 if name in _SMALL_NUMBERS else _INT64
                if abs(value) > largest:
                    raise ValueError(f"expected a number of at most {largest} in {place}, found {str(value)[:40]}")
            case float():
                if not math.isfinite(value) or abs(value) > _MAX_FLOAT:
                    raise ValueError(f"expected a number of at most {_MAX_FLOAT:.0e} in {place}, found {value}")
            case _:
                raise TypeError(
                    f"{place} has the type {type(value).__name__}, which has no bounds yet. Add bounds for this type to _Bounds."
                )

    def _check_time(self, place: str, name: str, time: datetime) -> None:
        if time.tzinfo is None:
            raise ValueError(f"expected a time with a time zone in {place}, found {time.isoformat()}")
        latest = self._newest_clock + (MAX_UNTIL_AHEAD if name.endswith("until") else MAX_AHEAD)
        if not EARLIEST <= time <= latest:
            raise ValueError(_time_problem(place, time, latest))

    @staticmethod
    def _check_size(place: str, size: int) -> None:
        if size > _MAX_ITEMS:
            raise ValueError(f"expected at most {_MAX_ITEMS} entries in {place}, found {size}")

    @staticmethod
    def _check_text(place: str, text: str, longest: int) -> None:
        if len(text) > longest or "\0" in text:
            raise ValueError(f"expected a text of at most {longest} characters without zero bytes in {place}, found {text[:80]!r}")


def _time_problem(place: str, time: datetime, latest: datetime) -> str:
    return f"expected a time from {EARLIEST:%Y-%m-%d} to {latest:%Y-%m-%d} in {place}, found {time.isoformat()}"


def check_references(record: PartRecord, line: str, names: TopicNames) -> None:
    """Raises RecordError if a record on a topic of `line` belongs to another line, or names a wrong picture or heat map.

    Another program can forge a record. Without this check, a forged verdict could show a picture of another line. A forged finding could
    name any picture as its heat map, and the archivist could then delete this picture.
    """
    if record.line != line:
        raise RecordError(OTHER_LINE, f"The record belongs to {record.line}, but its topic belongs to {line}.")
    if isinstance(record, Verdict) and record.image.topic != names.images(line):
        raise RecordError(
            REFERENCE, f"The verdict of {record.part_id} names a picture on {record.image.topic[:80]!r}, which is no topic of its line."
        )
    if isinstance(record, Finding) and record.heat_map and not is_heat_map_address(record.heat_map):
        raise RecordError(REFERENCE, f"The finding of {record.part_id} names {record.heat_map[:80]!r}, which is no address of a heat map.")
