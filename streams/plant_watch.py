"""Watches all lines of the plant through Kafka's topics, so that a process knows the state of each line at any time.

Reads the records of sortings, line settings and commands. The records of pictures and verdicts are not read. They are only counted, with
the end offsets of their partitions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kafka import TopicPartition

from streams import metrics
from streams.clock_steps import ClockSteps
from streams.commands import find_signers
from streams.compacted_topics import add_kafka_record
from streams.identity import RecentPartIds, make_header_map
from streams.kafka import find_partitions, is_reachable, make_reader
from streams.kafka_thread import KafkaThread
from streams.live_line_settings import LiveSettingsByLine
from streams.plant_states import LineActivity, LineCondition, LineCounts, PlantState, compute_state
from streams.record_reader import read_broker_time, read_record, skip_record
from streams.records import Command, Sorting
from streams.settings import LineSettings, Settings
from streams.signatures import check_signature
from streams.topics import TopicNames

_POLL_MS = 200
_PAUSE_S = 0.8
_RESPONSE_MS = 4000
# Sortings and commands are small, so many of them are read at once.
_POLL_RECORDS = 500
# At its start, a PlantWatch reads this many of the newest sorting records of each line.
_SORTINGS_BACK = 100
# For each line, a PlantWatch remembers the ids of this many castings, to recognise a second sorting record of the same casting.
_REMEMBERED_PART_IDS = 1000
# If the clock is set by at least this many seconds, the stored times of castings and pictures are deleted, because they are now wrong.
_LEAST_STEP_S = 1.0
# For about three seconds after the clock was set, records with wrong times can still arrive. So the stored times are deleted this many
# times, once a second.
_CALLS_UNTIL_SETTLED = 3
_ENDING_ACTIONS = ("acknowledge", "clear")


class WatchedLine:
    """What a PlantWatch has read about one line. Times are seconds since 1970."""

    def __init__(self, line: LineSettings) -> None:
        self.activity = LineActivity(line.gate.travel_s if line.gate else None)
        self._sorted = RecentPartIds(_REMEMBERED_PART_IDS)
        self._fault_at: float | None = None
        self._fault_ended_at = 0.0

    @property
    def is_gate_held(self) -> bool:
        """True if the newest sorting says that a fault holds the gate, and no person has acknowledged or cleared the fault since then."""
        return self._fault_at is not None and self._fault_at > self._fault_ended_at

    def forget_times(self) -> None:
        """Forgets when castings, verdicts and faults came. Call this method after the clock was set. A gate that is held stays held."""
        self._fault_at, self._fault_ended_at = (0.0 if self.is_gate_held else None), -1.0
        self.activity.forget_times()

    def add_sorting(self, sorting: Sorting) -> None:
        """Adds a sorting record of the line. Ignores the record if the board has not reported the sorting.

        Also ignores a second sorting record of the same casting. A casting has two records if its verdict came late. Records are also read
        a second time after a lost connection.
        """
        if not sorting.is_reported_by_board or not self._sorted.add(sorting.part_id):
            return
        at = sorting.sorted_at.timestamp()
        self.activity.add_casting(sorting.counted_at.timestamp() if sorting.counted_at else at)
        self.activity.add_report(at)
        if sorting.has_missed_verdict:
            self.activity.add_missed(at)
        self._fault_at = at if sorting.reason == "fault" else None

    def add_command(self, command: Command) -> None:
        """Adds a command that people sent to the line, or its answer.

        If the answer says that the faults of the line were acknowledged or cleared, no fault holds the gate any more.
        """
        if command.answer and command.answer.outcome == "done" and command.action in _ENDING_ACTIONS:
            self._fault_ended_at = max(self._fault_ended_at, command.answer.answered_at.timestamp())


class PlantWatch:
    """A thread that watches the lines of the plant. Thread-safe.

    The thread belongs to no consumer group, so that each process with such a thread gets all records. The line of the uploads is not
    watched, because it has no castings.

    - `report`: called about once a second in the thread, for each line with its state and the end of its planned stop.
    - `clock_steps`: notices when the clock of this machine is set.
    """

    def __init__(
        self,
        settings: Settings,
        role: str,
        report: Callable[[str, PlantState, datetime | None], None] = lambda name, state, planned_stop: None,
        clock_steps: ClockSteps | None = None,
    ) -> None:
        self._settings = settings
        self._role = role
        self._topics = TopicNames(settings.topics.prefix)
        self._lines = {line.name: WatchedLine(line) for line in settings.lines if line.name != settings.station.upload_line}
        self._report_line = report
        self._clock_steps = clock_steps or ClockSteps()
        self._calls_until_settled = 0
        self._live_settings = LiveSettingsByLine()
        self._is_connected = False
        self._lock = threading.Lock()
        self._thread = KafkaThread("plant watch", self._follow, "The lines cannot be watched, so their state is shown as disconnected.")

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for its end for at most 5 s."""
        self._thread.stop()

    @property
    def is_connected(self) -> bool:
        """True if Kafka has answered the last request."""
        with self._lock:
            return self._is_connected

    def find_state(self, name: str, now: datetime) -> PlantState:
        """Returns the state of the line `name` at the time `now`."""
        with self._lock:
            line = self._lines[name]
            condition = LineCondition(self._is_connected, line.is_gate_held, self._is_stop_planned(name, now))
            return compute_state(line.activity, condition, self._settings.states, now.timestamp())

    def find_planned_stop(self, name: str) -> datetime | None:
        """Returns the end of the planned stop of the line `name`, or None. The end may lie in the past."""
        settings = self._live_settings.find(name)
        return settings.planned_stop_until if settings else None

    def add_record(self, record: Any) -> None:
        """Adds a record that kafka-python has read. Counts and skips a record that is not valid."""
        if record.topic == self._topics.lines:
            with self._lock:
                self._live_settings = add_kafka_record(self._live_settings, record, self._role, self._settings)
            return
        try:
            self._add_line_record(record)
        except Exception as error:  # noqa: BLE001  otherwise the thread would end, start again and read the same record
            skip_record(self._role, record, error)

    def add_counts(self, pictures: Mapping[str, int], verdicts: Mapping[str, int], now: datetime) -> None:
        """Adds the numbers of pictures and verdicts that Kafka has received for each line until `now`."""
        with self._lock:
            self._is_connected = True
            self._forget_times_after_step()
            for name, line in self._lines.items():
                line.activity.add_counts(LineCounts(pictures=pictures[name], verdicts=verdicts[name]), now.timestamp())

    def _forget_times_after_step(self) -> None:
        if abs(self._clock_steps.take_step_s()) >= _LEAST_STEP_S:
            self._calls_until_settled = _CALLS_UNTIL_SETTLED
        if self._calls_until_settled:
            self._calls_until_settled -= 1
            for line in self._lines.values():
                line.forget_times()

    def _is_stop_planned(self, name: str, now: datetime) -> bool:
        until = self.find_planned_stop(name)
        return until is not None and now < until

    def _add_line_record(self, record: Any) -> None:
        broker_time = read_broker_time(record.timestamp / 1000)
        headers = make_header_map(record.headers)
        if record.topic == self._topics.commands:
            command = read_record(Command, record.value, broker_time)
            check_signature(self._settings, record.topic, record.key, record.value, headers, find_signers(command))
            if line := self._lines.get(command.line):
                with self._lock:
                    line.add_command(command)
            return
        check_signature(self._settings, record.topic, record.key, record.value, headers)
        sorting = read_record(Sorting, record.value, broker_time)
        line = self._lines.get(sorting.line)
        if line and record.topic == self._topics.sorted(sorting.line):
            with self._lock:
                line.add_sorting(sorting)

    def _follow(self) -> None:
        """Watches the lines until `stop` is called. Raises KafkaError or OSError if Kafka fails. The thread then calls `_follow` again."""
        # First check whether a broker is reachable. Without a broker, making a client would take 5 s, and `stop` would wait for it.
        if not is_reachable(self._settings.bootstrap):
            raise ConnectionError(f"no Kafka broker listens at {self._settings.bootstrap}")
        consumer = make_reader(
            self._settings,
            f"{self._role}-states",
            max_poll_records=_POLL_RECORDS,
            auto_offset_reset="earliest",
            bootstrap_timeout_ms=5000,
            metrics_enabled=False,
        )
        try:
            pictures = {name: find_partitions(consumer, [self._topics.images(name)]) for name in self._lines}
            verdicts = {name: find_partitions(consumer, [self._topics.verdicts(name)]) for name in self._lines}
            self._seek(consumer)
            counted = [partition for partitions in (*pictures.values(), *verdicts.values()) for partition in partitions]
            while not self._thread.is_stopping:
                ends = consumer.end_offsets(counted, timeout_ms=_RESPONSE_MS)
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    for record in records:
                        self.add_record(record)
                self.add_counts(_add_offsets(pictures, ends), _add_offsets(verdicts, ends), datetime.now(UTC))
                self._thread.report_success()
                self._report()
                time.sleep(_PAUSE_S)
        finally:
            with self._lock:
                self._is_connected = False
            self._report()
            consumer.close()

    def _seek(self, consumer: Any) -> None:
        """Makes `consumer` read all records of line settings and commands, but only the newest records of sortings."""
        shared = find_partitions(consumer, [self._topics.lines, self._topics.commands])
        with_gate = [name for name, line in self._lines.items() if line.activity.travel_s is not None]
        sortings = find_partitions(consumer, [self._topics.sorted(name) for name in with_gate])
        consumer.assign([*shared, *sortings])
        consumer.seek_to_beginning(*shared)
        starts, ends = consumer.beginning_offsets(sortings), consumer.end_offsets(sortings, timeout_ms=_RESPONSE_MS)
        for partition in sortings:
            consumer.seek(partition, max(starts[partition], ends[partition] - _SORTINGS_BACK))

    def _report(self) -> None:
        now = datetime.now(UTC)
        for name in self._lines:
            self._report_line(name, self.find_state(name, now), self.find_planned_stop(name))


def export_state(name: str, state: PlantState, planned_stop: datetime | None) -> None:
    """Sets the metrics of the state of the line `name`. `planned_stop` is the end of its planned stop, or None."""
    for each in PlantState:
        metrics.line_state.labels(name, each.value).set(each is state)
    metrics.planned_stop_until.labels(name).set(planned_stop.timestamp() if planned_stop else 0)


def _add_offsets(partitions: Mapping[str, list[TopicPartition]], ends: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Returns how many records the `partitions` of each line have received so far. This is the sum of their end offsets."""
    return {name: sum(ends[partition] for partition in own) for name, own in partitions.items()}
