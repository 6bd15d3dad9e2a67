"""The order in which records are dropped, the watermarks, and the sizes of topics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from prometheus_client import REGISTRY

from deploy.kafka import disk_guard
from deploy.kafka.broker_clock import CLOCK_FILE, BrokerClock
from deploy.kafka.disk_guard import DROP_ORDER, RESERVE_FILE, DiskGuard, choose_step, compute_watermarks, read_free_bytes
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import TopicNames, compute_max_bytes, declare_topics

NAMES = TopicNames("castings")
IMAGES, SORTED, VERDICTS = (
    TopicPartition(topic, 0) for topic in (NAMES.images("line-1"), NAMES.sorted("line-1"), NAMES.verdicts("line-1"))
)
FINDINGS, DEAD_LETTERS, REVIEWS = (TopicPartition(topic, 0) for topic in (NAMES.findings("line-1"), NAMES.dead_letters, NAMES.reviews))
EVERYTHING = dict.fromkeys((IMAGES, SORTED, VERDICTS, FINDINGS, DEAD_LETTERS, REVIEWS), 100)


def test_records_are_dropped_in_the_stated_order_and_the_evidence_of_defects_last() -> None:
    starts = dict.fromkeys(EVERYTHING, 0)
    dropped = []
    for _ in range(60):
        step = choose_step(NAMES, ["line-1"], starts, EVERYTHING, {IMAGES: 60})
        if step is None:
            break
        assert all(offset > starts[place] for place, offset in step.offsets.items()), "each step drops something"
        dropped.append(step.what)
        starts |= step.offsets
    assert tuple(dict.fromkeys(dropped)) == DROP_ORDER
    assert sorted(dropped, key=list(dict.fromkeys(dropped)).index) == dropped, "a later kind is dropped only when the earlier ones are gone"
    assert starts == EVERYTHING | {REVIEWS: 0}, "reviews, model choices and settings of lines are kept"


def test_judged_pictures_are_dropped_up_to_the_committed_offset() -> None:
    starts = dict.fromkeys(EVERYTHING, 0)
    step = choose_step(NAMES, ["line-1"], starts, EVERYTHING, {IMAGES: 60})
    assert step is not None
    assert step.offsets == {IMAGES: 60}
    # A group that has not committed has the offset -1 in Kafka's answer.
    step = choose_step(NAMES, ["line-1"], starts, EVERYTHING, {IMAGES: -1})
    assert step is not None
    assert (step.what, step.offsets) == ("waiting-pictures", {IMAGES: 50})


def test_the_alarm_comes_before_records_are_dropped_and_the_reserve_is_enough_for_a_start() -> None:
    for disk_bytes in (200 * 2**20, 10**9, 10**12):
        marks = compute_watermarks(disk_bytes)
        assert marks.alarm > marks.drop > marks.reserve >= marks.start > 0


def test_the_topics_fit_into_the_room_that_they_get() -> None:
    settings = Settings.model_validate({"lines": [{"name": "line-1"}, {"name": "line-2"}], "broker": {"max_bytes": 2**30}})
    specs = declare_topics(settings, compute_max_bytes(settings))
    sizes = {spec.name: spec.partitions * int(spec.configs["retention.bytes"]) for spec in specs if "retention.bytes" in spec.configs}
    assert 0.7 * 2**30 < sum(sizes.values()) < 1.1 * 2**30
    assert all(int(spec.configs["segment.bytes"]) > settings.topics.max_message_bytes for spec in specs if "segment.bytes" in spec.configs)
    assert not [name for name in (NAMES.reviews, NAMES.models, NAMES.lines) if name in sizes], "compacted topics keep everything"
    assert {spec.name for spec in declare_topics(settings)} == {spec.name for spec in specs}


def test_topics_of_another_cluster_get_no_limit_because_its_disk_is_unknown() -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap": "kafka-1:9092"}, "lines": [{"name": "line-1"}]})
    assert compute_max_bytes(settings) is None


def test_the_limit_follows_the_size_of_the_disk(tmp_path: Path) -> None:
    settings = Settings.model_validate({"broker": {"data_dir": tmp_path / "not" / "there"}, "lines": [{"name": "line-1"}]})
    _, disk = read_free_bytes(tmp_path)
    assert compute_max_bytes(settings) == int(0.6 * disk)


def refuse_connection() -> KafkaAdminClient:
    raise AssertionError("a disk with enough room needs no connection")


def test_a_broker_with_enough_room_starts_and_shows_no_problem(tmp_path: Path) -> None:
    problems: list[str] = []
    settings = Settings.model_validate({"broker": {"data_dir": tmp_path / "kafka"}})
    guard = DiskGuard(settings, problems.append, refuse_connection, BrokerClock(tmp_path / "kafka"))
    assert guard.has_room_to_start()
    assert problems == []
    assert not (tmp_path / "kafka" / RESERVE_FILE).exists(), "the reserve is made while the broker runs"


def test_a_large_disk_with_much_room_drops_nothing_and_raises_no_alarm() -> None:
    marks = compute_watermarks(2 * 10**12)
    assert (marks.alarm, marks.drop, marks.floor) == (20 * 2**30, 4 * 2**30, 2**29)


@dataclass
class FakeAdmin:
    """Stands for Kafka's admin client. One line has 100 pictures, of which `judged` are judged, and 100 dead letters."""

    judged: int
    dropped: list[dict[TopicPartition, int]] = field(default_factory=list)
    starts: dict[TopicPartition, int] = field(default_factory=lambda: {IMAGES: 0, DEAD_LETTERS: 0})

    def describe_topics(self, _: None) -> list[dict[str, Any]]:
        return [{"name": place.topic, "partitions": [{"partition_index": 0}]} for place in self.starts]

    def list_partition_offsets(self, specs: dict[TopicPartition, OffsetSpec]) -> dict[TopicPartition, Any]:
        return {place: SimpleNamespace(offset=self.starts[place] if spec == OffsetSpec.EARLIEST else 100) for place, spec in specs.items()}

    def list_group_offsets(self, groups: dict[str, list[TopicPartition]]) -> dict[str, dict[TopicPartition, Any]]:
        return {group: {IMAGES: SimpleNamespace(offset=self.judged)} for group in groups}

    def delete_records(self, offsets: dict[TopicPartition, int]) -> None:
        self.dropped.append(offsets)
        self.starts |= offsets

    def close(self) -> None: ...


@dataclass
class GuardRig:
    """A guard of a disk of 1 GB with `free_bytes`, and a Kafka with one segment file."""

    folder: Path
    admin: FakeAdmin
    free_bytes: int
    problems: list[str] = field(default_factory=list)

    def make_guard(self, monkeypatch: pytest.MonkeyPatch) -> DiskGuard:
        monkeypatch.setattr(disk_guard, "read_free_bytes", lambda folder: (self.free_bytes, 10**9))
        self.add_segment(0)
        return DiskGuard(
            Settings.model_validate({"broker": {"data_dir": self.folder}, "lines": [{"name": "line-1"}]}),
            self.problems.append,
            lambda: cast(KafkaAdminClient, self.admin),
            BrokerClock(self.folder),
        )

    def add_segment(self, offset: int) -> None:
        topic = self.folder / "log" / f"{IMAGES.topic}-0"
        topic.mkdir(parents=True, exist_ok=True)
        (topic / f"{offset:020}.log").touch()


def check_often(guard: DiskGuard, count: int = 30) -> None:
    for _ in range(count):
        guard.check()


def test_nothing_more_is_dropped_when_a_drop_has_freed_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = GuardRig(tmp_path, FakeAdmin(judged=60), free_bytes=10**7)
    guard = rig.make_guard(monkeypatch)
    check_often(guard)
    assert rig.admin.dropped == [{IMAGES: 60}]
    assert "has freed no room" in rig.problems[-1]
    rig.add_segment(60)
    check_often(guard)
    assert rig.admin.dropped == [{IMAGES: 60}, {IMAGES: 80}], "a new segment means that Kafka can delete the one before"


def test_above_the_floor_only_judged_pictures_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = compute_watermarks(10**9)
    rig = GuardRig(tmp_path, FakeAdmin(judged=60), free_bytes=marks.floor)
    guard = rig.make_guard(monkeypatch)
    for number in range(1, 40):
        rig.add_segment(number)
        guard.check()
    assert rig.admin.dropped == [{IMAGES: 60}]
    assert "Judged pictures are dropped" in rig.problems[-1]


def test_no_records_are_dropped_in_vain_while_kafka_frees_no_room_because_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CLOCK_FILE).write_text(f"{time.time() - 32 * 86400:.0f}")
    rig = GuardRig(tmp_path, FakeAdmin(judged=60), free_bytes=10**7)
    guard = rig.make_guard(monkeypatch)
    for number in range(1, 40):
        # The files change, because Kafka writes new segments.
        rig.add_segment(number)
        guard.check()
    assert rig.admin.dropped == []
    assert "correct the clock" in rig.problems[-1]
    assert REGISTRY.get_sample_value("castline_broker_clock_doubted") == 1


def test_kafka_looks_for_no_old_records_however_long_the_clock_is_doubted(tmp_path: Path) -> None:
    (tmp_path / CLOCK_FILE).write_text(f"{time.time() - 32 * 86400:.0f}")
    properties = BrokerClock(tmp_path).properties
    for name in ("log.initial.task.delay.ms", "log.retention.check.interval.ms"):
        delay_ms = properties[name]
        assert isinstance(delay_ms, int)
        assert delay_ms > 50 * 365 * 86_400_000, "a plant can run for years without a restart"
        # Java's ScheduledThreadPoolExecutor shortens longer delays.
        assert delay_ms * 10**6 < 2**62


@pytest.mark.parametrize("mark", ["alarm", "drop", "floor"])
def test_the_disk_alarms_at_each_limit_although_the_clock_is_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    (tmp_path / CLOCK_FILE).write_text(f"{time.time() - 32 * 86400:.0f}")
    limit = getattr(compute_watermarks(10**9), mark)
    rig = GuardRig(tmp_path, FakeAdmin(judged=60), free_bytes=limit - 1)
    rig.make_guard(monkeypatch).check()
    assert "Free space on this disk, and correct the clock" in rig.problems[-1]
    assert REGISTRY.get_sample_value("castline_broker_disk_free_bytes") == limit - 1, "the alert BrokerDiskFilling reads this metric"


def test_a_data_folder_that_cannot_be_used_is_named_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problems: list[str] = []
    settings = Settings.model_validate({"broker": {"data_dir": tmp_path / "file" / "kafka"}})
    guard = DiskGuard(settings, problems.append, refuse_connection, BrokerClock(tmp_path / "file" / "kafka"))
    with pytest.raises(BrokerError, match=r"Choose another broker\.data_dir"):
        guard.has_room_to_start()
    guard.check()
    assert "cannot be read" in problems[-1]
