"""What a sorter knows about the parts of one line: verdicts, times and sorting records. After a restart it reads them from Kafka again."""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import ValidationError

from streams.errors import BrokerError
from streams.kafka import make_client_arguments
from streams.records import Label, Record, Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

# The key of a part: its run number and its part number.
PartKey = tuple[int, int]
# The number of remembered parts. At 10 parts a second they are enough for three minutes, and a part reaches the gate sooner.
MAX_PARTS = 2048
# The count and the picture of a part are at most this far apart. A larger difference means that a new part has the same number.
_MAX_TIME_DIFFERENCE = timedelta(seconds=60)
_MAX_RESTORE_S = 30.0


@dataclass
class PartState:
    """What the sorter knows about a part that has not passed the gate. `captured_at` is the time of the picture that was judged."""

    counted_at: datetime | None = None
    label: Label | None = None
    verdict_id: uuid.UUID | None = None
    captured_at: datetime | None = None
    # The time at which the board acknowledged the verdict.
    answered_at: datetime | None = None
    # True if the verdict came too late for the gate.
    is_late: bool = False

    def set_verdict(self, verdict: Verdict) -> None:
        """Stores the part's first verdict. Later verdicts are ignored, because the board keeps its first verdict too."""
        if self.verdict_id is None:
            self.label, self.verdict_id, self.captured_at = verdict.label, verdict.verdict_id, verdict.captured_at


class PartStates:
    """Keeps the states of the newest parts and their newest sorting records, at most `max_parts` of each."""

    def __init__(self, max_parts: int = MAX_PARTS) -> None:
        self._max_parts = max_parts
        self._states: OrderedDict[PartKey, PartState] = OrderedDict()
        self._sortings: OrderedDict[PartKey, Sorting] = OrderedDict()

    def get(self, run: int, part: int) -> PartState:
        """Returns the state of a part. If the part has no state yet, an empty one is added."""
        state = self._states.get((run, part))
        if state is None:
            state = self._states[run, part] = PartState()
            while len(self._states) > self._max_parts:
                self._states.popitem(last=False)
        return state

    def set_counted(self, run: int, part: int, counted_at: datetime) -> PartState:
        """Stores the time at which a part was counted, and returns the part's state.

        A new board reuses numbers, so a stored state with a very different time is deleted.
        """
        state, sorting = self.get(run, part), self._sortings.get((run, part))
        times = [state.counted_at, state.captured_at, sorting.counted_at if sorting else None]
        if any(other is not None and abs(counted_at - other) > _MAX_TIME_DIFFERENCE for other in times):
            self._sortings.pop((run, part), None)
            state = self._states[run, part] = PartState()
        state.counted_at = counted_at
        return state

    def last_sorting(self, run: int, part: int) -> Sorting | None:
        """Returns the newest sorting record of a part, or None if the part has no record or its record is no longer kept."""
        return self._sortings.get((run, part))

    def add_sorting(self, sorting: Sorting) -> None:
        """Stores a sorting record as the newest one of its part."""
        self._sortings[sorting.run, sorting.part] = sorting
        self._sortings.move_to_end((sorting.run, sorting.part))
        while len(self._sortings) > self._max_parts:
            self._sortings.popitem(last=False)

    def unrecorded_parts(self, run: int) -> list[PartKey]:
        """Returns the counted parts of earlier runs without a sorting record. The board is now in `run` and will not report them."""
        return [key for key, state in self._states.items() if key[0] != run and state.counted_at is not None and key not in self._sortings]


def restore_states(settings: Settings, line: str) -> PartStates:
    """Reads the newest verdicts and sorting records of `line`, so that a restarted sorter knows the parts on the belt.

    Raises BrokerError if a topic cannot be read within 30 s.
    """
    names, states = TopicNames(settings.topics.prefix), PartStates()
    try:
        for verdict in _read_newest(settings, names.verdicts(line), Verdict):
            states.get(verdict.run, verdict.part).set_verdict(verdict)
        for sorting in _read_newest(settings, names.sorted(line), Sorting):
            states.add_sorting(sorting)
    except KafkaError as error:
        raise BrokerError(
            f"Cannot read the newest records of {line} from Kafka at {settings.bootstrap}: {error!r}. Check the broker."
        ) from error
    return states


R = TypeVar("R", bound=Record)


def _read_newest(settings: Settings, topic: str, kind: type[R]) -> list[R]:
    arguments = make_client_arguments(settings, "recall")
    consumer = KafkaConsumer(**arguments, enable_auto_commit=False, group_id=None, auto_offset_reset="earliest")
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end, beginning = consumer.end_offsets([partition])[partition], consumer.beginning_offsets([partition])[partition]
        consumer.seek(partition, max(beginning, end - MAX_PARTS))
        newest: list[R] = []
        give_up_s = time.monotonic() + _MAX_RESTORE_S
        while (position := consumer.position(partition)) < end:
            if time.monotonic() > give_up_s:
                raise BrokerError(
                    f"Reading {topic} took longer than {_MAX_RESTORE_S:.0f} s and reached only offset {position} of {end}. "
                    "Check the broker's load and the network. The sorter tries again at its next start."
                )
            for records in consumer.poll(timeout_ms=500).values():
                newest += [decoded for record in records if (decoded := _decode(kind, record.value)) is not None]
        return newest
    finally:
        consumer.close()


def _decode(kind: type[R], value: bytes | None) -> R | None:
    try:
        return kind.decode(value or b"")
    except ValidationError as error:
        log.warning("A record that was read from Kafka is ignored, because it is not a valid %s: %s", kind.name, error)
        return None
