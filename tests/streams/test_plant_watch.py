"""The plant watch: what its records and counts say about a line, and that it reads them from a real broker."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaProducer
from prometheus_client import REGISTRY

from streams.clock_steps import ClockSteps
from streams.plant_states import PlantState
from streams.plant_watch import PlantWatch, export_state
from streams.records import Command, CommandAnswer, LiveLineSettings, Record, Sorting
from streams.settings import LineSettings, Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import wait_for

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LINE = {"name": "line-1", "gate": {"port": "/dev/null"}}
SETTINGS = Settings(lines=(LineSettings.model_validate(LINE), LineSettings(name="uploads")))


def make_sorting(part: int, at: datetime, reason: str = "verdict") -> Sorting:
    return Sorting.model_validate(
        {
            "line": "line-1",
            "run": 7,
            "part": part,
            "board": "b",
            "event": part,
            "action": "diverted",
            "reason": reason,
            "gate_moved": True,
            "move_count": part,
            "counted_at": at - timedelta(seconds=2),
            "sorted_at": at,
        }
    )


def make_kafka_record(topic: str, record: Record, key: str = "") -> Any:
    return make_raw_record(topic, record.encode(), key)


def make_raw_record(topic: str, value: bytes, key: str = "") -> Any:
    return SimpleNamespace(topic=topic, value=value, key=key.encode(), timestamp=NOW.timestamp() * 1000, headers=(), partition=0, offset=0)


def make_acknowledgement(at: datetime, outcome: str = "done") -> Command:
    answer = CommandAnswer.model_validate({"outcome": outcome, "message": "The faults are over.", "answered_at": at})
    asked = {"asked_by": "ada", "asked_at": at, "valid_until": at + timedelta(seconds=30)}
    return Command.model_validate({"command_id": uuid.uuid4(), "line": "line-1", "action": "acknowledge", **asked, "answer": answer})


class SetClock:
    """A clock that a test sets, and a steady clock."""

    def __init__(self) -> None:
        self.steady_s = 0.0
        self.ahead_s = NOW.timestamp()

    def make_steps(self) -> ClockSteps:
        return ClockSteps(lambda: self.steady_s + self.ahead_s, lambda: self.steady_s)


@pytest.mark.parametrize("hours", [-1, 1])
def test_after_the_clock_was_set_each_state_begins_and_ends_at_its_limit(hours: int) -> None:
    clock = SetClock()
    watch = PlantWatch(SETTINGS, "test", clock_steps=clock.make_steps())
    for second in range(60):
        let_run(watch, second + 1, NOW - timedelta(seconds=60 - second))
    for part in range(61, 64):
        watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(part, NOW, "no-verdict")))
    assert watch.find_state("line-1", NOW) is PlantState.LATE
    clock.ahead_s += 3600 * hours
    now = NOW + timedelta(hours=hours)
    for second in range(5):
        let_run(watch, 64 + second, now + timedelta(seconds=second))
    assert watch.find_state("line-1", now + timedelta(seconds=5)) is PlantState.RUNNING
    for second in range(5, 25):
        watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(64 + second, now + timedelta(seconds=second))))
        watch.add_counts({"line-1": 68}, {"line-1": 68}, now + timedelta(seconds=second))
    assert watch.find_state("line-1", now + timedelta(seconds=25)) is PlantState.CAMERA_SILENT


def test_a_gate_that_is_held_stays_held_when_the_clock_is_set_back_and_a_person_can_end_the_fault() -> None:
    clock = SetClock()
    watch = PlantWatch(SETTINGS, "test", clock_steps=clock.make_steps())
    watch.add_record(make_kafka_record("castings.commands", make_acknowledgement(NOW)))
    for hours in (-1, -2):
        clock.ahead_s -= 3600
        now = NOW + timedelta(hours=hours)
        for _ in range(4):
            watch.add_counts({"line-1": 1}, {"line-1": 1}, now)
        watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(-hours, now, "fault")))
        assert watch.find_state("line-1", now) is PlantState.GATE_HELD
    clock.ahead_s -= 3600
    now = NOW + timedelta(hours=-3)
    watch.add_counts({"line-1": 1}, {"line-1": 1}, now)
    assert watch.find_state("line-1", now) is PlantState.GATE_HELD
    watch.add_record(make_kafka_record("castings.commands", make_acknowledgement(now)))
    assert watch.find_state("line-1", now) is PlantState.NO_CASTINGS


@pytest.fixture
def watch() -> PlantWatch:
    """A watch whose thread does not run. Its line has run for a minute until NOW."""
    watch = PlantWatch(SETTINGS, "test")
    for second in range(60):
        let_run(watch, second + 1, NOW - timedelta(seconds=60 - second))
    return watch


def let_run(watch: PlantWatch, count: int, at: datetime, verdicts: int | None = None) -> None:
    """Adds the casting with the number `count`: its sorting, its picture and its verdict."""
    watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(count, at)))
    watch.add_counts({"line-1": count}, {"line-1": count if verdicts is None else verdicts}, at)


def test_a_line_with_sortings_pictures_and_verdicts_is_running(watch: PlantWatch) -> None:
    assert watch.find_state("line-1", NOW) is PlantState.RUNNING
    assert watch.find_state("line-1", NOW + timedelta(minutes=5)) is PlantState.NO_CASTINGS


def test_without_kafka_a_line_is_disconnected() -> None:
    assert PlantWatch(SETTINGS, "test").find_state("line-1", NOW) is PlantState.DISCONNECTED


def test_pictures_without_verdicts_are_running_blind(watch: PlantWatch) -> None:
    for second in range(12):
        let_run(watch, 61 + second, NOW + timedelta(seconds=second), verdicts=60)
    assert watch.find_state("line-1", NOW + timedelta(seconds=12)) is PlantState.RUNNING_BLIND


def test_late_sortings_make_a_line_late(watch: PlantWatch) -> None:
    for part, reason in ((61, "no-verdict"), (62, "late-verdict"), (63, "no-verdict")):
        watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(part, NOW, reason)))
    assert watch.find_state("line-1", NOW) is PlantState.LATE


def test_each_casting_counts_once_although_it_has_two_sortings_or_is_read_again(watch: PlantWatch) -> None:
    missed = [make_sorting(part, NOW, "no-verdict") for part in (61, 62)]
    # A second sorting says that the verdict came after the casting.
    late = [sorting.model_copy(update={"reason": "late-verdict", "late": True}) for sorting in missed]
    others = [make_sorting(part, NOW) for part in range(63, 1061)]
    for sorting in (*missed, *late, *others, *missed, *late):
        watch.add_record(make_kafka_record("castings.sorted.line-1", sorting))
    assert watch.find_state("line-1", NOW) is PlantState.RUNNING
    watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(1061, NOW, "no-verdict")))
    assert watch.find_state("line-1", NOW) is PlantState.LATE


def test_a_line_is_disconnected_although_the_sorter_records_the_castings_that_an_absent_board_does_not_report(watch: PlantWatch) -> None:
    untracked = {"event": 0, "action": "untracked", "late": True, "gate_moved": False, "move_count": 0}
    for second in range(1, 61):
        at = NOW + timedelta(seconds=second)
        sorting = make_sorting(60 + second, at, "late-verdict").model_copy(update=untracked)
        watch.add_record(make_kafka_record("castings.sorted.line-1", sorting))
        watch.add_counts({"line-1": 60 + second}, {"line-1": 60 + second}, at)
    assert watch.find_state("line-1", at) is PlantState.DISCONNECTED
    # The board is back, and reports a casting that the sorter has recorded already.
    watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(61, at)))
    assert watch.find_state("line-1", at) is PlantState.RUNNING


def test_an_untracked_casting_that_the_board_reports_shows_that_the_board_is_there(watch: PlantWatch) -> None:
    for second in range(1, 61):
        at = NOW + timedelta(seconds=second)
        taken_off = make_sorting(60 + second, at, "taken-off").model_copy(update={"action": "untracked"})
        watch.add_record(make_kafka_record("castings.sorted.line-1", taken_off))
        watch.add_counts({"line-1": 60 + second}, {"line-1": 60 + second}, at)
    assert watch.find_state("line-1", at) is PlantState.RUNNING


def test_a_second_sorting_about_a_fault_does_not_hold_a_gate_that_a_person_has_released(watch: PlantWatch) -> None:
    fault = make_sorting(61, NOW, "fault")
    watch.add_record(make_kafka_record("castings.sorted.line-1", fault))
    watch.add_record(make_kafka_record("castings.commands", make_acknowledgement(NOW + timedelta(seconds=1))))
    late = fault.model_copy(update={"late": True, "sorted_at": NOW + timedelta(seconds=2)})
    watch.add_record(make_kafka_record("castings.sorted.line-1", late))
    assert watch.find_state("line-1", NOW + timedelta(seconds=2)) is PlantState.RUNNING


def test_a_fault_holds_the_gate_until_a_person_ends_it_or_castings_follow_verdicts_again(watch: PlantWatch) -> None:
    fault = make_kafka_record("castings.sorted.line-1", make_sorting(61, NOW, "fault"))
    watch.add_record(fault)
    assert watch.find_state("line-1", NOW) is PlantState.GATE_HELD
    watch.add_record(make_kafka_record("castings.commands", make_acknowledgement(NOW + timedelta(seconds=1), "refused")))
    assert watch.find_state("line-1", NOW) is PlantState.GATE_HELD
    watch.add_record(make_kafka_record("castings.commands", make_acknowledgement(NOW + timedelta(seconds=2))))
    assert watch.find_state("line-1", NOW) is PlantState.RUNNING
    watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(62, NOW + timedelta(seconds=3), "fault")))
    assert watch.find_state("line-1", NOW) is PlantState.GATE_HELD
    watch.add_record(make_kafka_record("castings.sorted.line-1", make_sorting(63, NOW + timedelta(seconds=4))))
    assert watch.find_state("line-1", NOW) is PlantState.RUNNING


def test_a_planned_stop_ends_at_its_time_and_when_it_is_cleared(watch: PlantWatch) -> None:
    stop = LiveLineSettings(line="line-1", set_by="ada", set_at=NOW, planned_stop_until=NOW + timedelta(hours=8))
    watch.add_record(make_kafka_record("castings.lines", stop, "line-1"))
    assert watch.find_state("line-1", NOW + timedelta(hours=7)) is PlantState.PLANNED_STOP
    assert watch.find_state("line-1", NOW + timedelta(hours=8)) is PlantState.NO_CASTINGS
    watch.add_record(make_kafka_record("castings.lines", stop.model_copy(update={"planned_stop_until": None}), "line-1"))
    assert watch.find_state("line-1", NOW) is PlantState.RUNNING


@pytest.mark.parametrize("topic", ["castings.sorted.line-1", "castings.lines", "castings.commands"])
def test_a_record_that_is_not_valid_changes_nothing(watch: PlantWatch, topic: str) -> None:
    watch.add_record(make_raw_record(topic, b'{"line": 3}', "line-1"))
    assert watch.find_state("line-1", NOW) is PlantState.RUNNING


def read_metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_the_exported_states_say_which_one_counts() -> None:
    export_state("line-7", PlantState.LATE, NOW)
    values = {state: read_metric("castline_line_state", line="line-7", state=state.value) for state in PlantState}
    assert values == {state: float(state is PlantState.LATE) for state in PlantState}
    assert read_metric("castline_planned_stop_until_seconds", line="line-7") == NOW.timestamp()
    export_state("line-7", PlantState.RUNNING, None)
    assert read_metric("castline_line_state", line="line-7", state="late") == 0
    assert read_metric("castline_planned_stop_until_seconds", line="line-7") == 0


def test_the_watch_reads_a_real_broker_and_reports_each_state(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=(LINE,))
    names = TopicNames(settings.topics.prefix)
    watch = PlantWatch(settings, "test", export_state)

    def is_exported(state: PlantState) -> bool:
        return read_metric("castline_line_state", line="line-1", state=state.value) == 1

    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    watch.start()
    try:
        wait_for(lambda: is_exported(PlantState.NO_CASTINGS), 20, "expected a line without castings")
        producer.send(names.images("line-1"), value=b"a picture")
        producer.send(names.verdicts("line-1"), value=b"a verdict, which is only counted")
        wait_for(lambda: is_exported(PlantState.RUNNING), 20, "expected a running line")
        producer.send(names.sorted("line-1"), value=make_sorting(1, datetime.now(UTC), "fault").encode())
        wait_for(lambda: is_exported(PlantState.GATE_HELD), 20, "expected a held gate")
        later = datetime.now(UTC) + timedelta(seconds=1)
        producer.send(names.commands, key=b"line-1", value=make_acknowledgement(later).encode())
        wait_for(lambda: is_exported(PlantState.RUNNING), 20, "expected a running line after the acknowledgement")
        stop = LiveLineSettings(line="line-1", set_by="ada", set_at=NOW, planned_stop_until=later + timedelta(hours=1))
        producer.send(names.lines, key=b"line-1", value=stop.encode())
        wait_for(lambda: is_exported(PlantState.PLANNED_STOP), 20, "expected the planned stop")
    finally:
        watch.stop()
        producer.close()
    wait_for(lambda: is_exported(PlantState.DISCONNECTED), 20, "expected a watch that ended to show no old state")


def test_a_line_without_a_gate_is_watched_by_its_pictures_and_the_uploads_are_not_watched(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("gateless", "uploads"))
    states: dict[str, PlantState] = {}
    watch = PlantWatch(settings, "test", lambda name, state, planned_stop: states.update({name: state}))
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    watch.start()
    try:
        wait_for(lambda: states == {"gateless": PlantState.NO_CASTINGS}, 20, "expected one watched line without castings")
        producer.send(TopicNames(settings.topics.prefix).images("gateless"), value=b"a picture")
        wait_for(lambda: states == {"gateless": PlantState.RUNNING}, 20, "expected a running line")
    finally:
        watch.stop()
        producer.close()


def test_a_plant_with_uploads_only_is_watched_without_a_fault(make_settings: MakeSettings) -> None:
    watch = PlantWatch(make_settings(lines=("uploads",)), "test")
    watch.start()
    try:
        wait_for(lambda: watch.is_connected, 20, "expected the watch to read from Kafka")
    finally:
        watch.stop()


def test_a_watch_opens_no_client_of_a_kafka_that_is_unreachable() -> None:
    """A client that waits for a broker cannot be stopped. Such a client raises KafkaTimeoutError, which is no ConnectionError."""
    watch = PlantWatch(Settings.model_validate({"kafka": {"bootstrap": "127.0.0.1:9"}, "lines": [{"name": "line-1"}]}), "archivist")
    with pytest.raises(ConnectionError, match="no Kafka broker listens"):
        watch._follow()
