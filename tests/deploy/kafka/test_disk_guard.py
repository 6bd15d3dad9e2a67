"""The order in which records are dropped, the watermarks, and the sizes of topics."""

from __future__ import annotations

from pathlib import Path

from kafka import TopicPartition

from deploy.kafka.disk_guard import DROP_ORDER, RESERVE_FILE, DiskGuard, choose_step, compute_watermarks, read_free_bytes
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


def test_a_broker_with_enough_room_starts_and_shows_no_problem(tmp_path: Path) -> None:
    problems: list[str] = []
    guard = DiskGuard(Settings.model_validate({"broker": {"data_dir": tmp_path / "kafka"}}), problems.append)
    assert guard.has_room_to_start()
    assert problems == []
    assert not (tmp_path / "kafka" / RESERVE_FILE).exists(), "the reserve is made while the broker runs"
