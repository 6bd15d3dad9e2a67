"""The inspector as a process, with a real broker: no verdict is lost, whatever is killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import PictureProducer, count_by_part, make_jpeg, read_topic, read_verdicts, wait_for, wait_for_verdicts
from tests.processes import CastlineProcess


@pytest.fixture
def settings(make_settings: MakeSettings, models_root: Path) -> Settings:
    return make_settings(
        lines=("line-1", "line-2"),
        model={"root": models_root, "version": "tiny", "runtime": "litert"},
        batch={"size": 16, "shapes": (1, 4, 16)},
    )


def open_verdict_consumer(settings: Settings) -> KafkaConsumer:
    """Returns a consumer of the verdicts that come from now on."""
    names = TopicNames(settings.topics.prefix)
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, group_id=None)
    consumer.subscribe([names.verdicts(line.name) for line in settings.lines])
    while not consumer.assignment():
        consumer.poll(100)
    consumer.seek_to_end()
    for place in consumer.assignment():
        consumer.position(place)
    return consumer


def test_a_plain_client_sends_pictures_and_gets_its_verdicts(settings: Settings, tmp_path: Path) -> None:
    """The record that docs/analysts.md describes: a key `line:run:part`, the bytes of the picture, and nothing else."""
    # The other tests use LiteRT, because each start of an inspector with TensorFlow takes four seconds of processor time more.
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"runtime": "tensorflow"})})
    names = TopicNames(settings.topics.prefix)
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        for part in range(1, 21):
            producer.send(names.images("line-1"), key=f"line-1:7:{part}".encode(), value=make_jpeg(part)).get(10)
        producer.send(names.images("line-2"), value=make_jpeg(99), headers=[("line", b"line-2"), ("run", b"7"), ("part", b"1")]).get(10)
        producer.close()
        found = wait_for_verdicts(settings, 21)
        assert count_by_part(found) == {**{f"line-1:7:{part}": 1 for part in range(1, 21)}, "line-2:7:1": 1}
        assert {verdict.model for verdict in found} == {"tiny"}
        assert all(0 <= (verdict.defect_probability or -1) <= 1 and set(verdict.votes) == {"alexnet", "lenet"} for verdict in found)
        assert len({verdict.verdict_id for verdict in found}) == 21
        assert inspector.stop() == 0
    assert len(read_verdicts(settings)) == 21, "a clean stop causes no repeats"


def test_pictures_killed_in_mid_batch_are_judged_after_the_restart_without_a_session_time_out(settings: Settings, tmp_path: Path) -> None:
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        feed = PictureProducer(settings, rate_per_s=150)
        wait_for_verdicts(settings, 200, 60)
        inspector.kill()
        after = open_verdict_consumer(settings)
        inspector.start()
        inspector.wait_ready()
        start_up_s = time.monotonic() - inspector.started_s
        first = next(iter(after))
        first_verdict_s = time.monotonic() - inspector.started_s
        after.close()
        assert first is not None
        assert first_verdict_s < start_up_s + 3, f"first verdict {first_verdict_s:.1f} s after the start, which took {start_up_s:.1f} s"
        parts = feed.finish()
        found = count_by_part(wait_for_verdicts(settings, len(parts)))
        assert set(found) == set(parts)
        repeated = sum(count - 1 for count in found.values())
        assert repeated < 400, f"{repeated} verdicts were repeated"
        assert len({verdict.verdict_id for verdict in read_verdicts(settings)}) == len(parts), "a repeat is recognised by its id"


def test_two_inspectors_share_the_work_join_and_leave_and_nothing_is_lost(settings: Settings, tmp_path: Path) -> None:
    # The second worker gets the killed worker's partitions after this time.
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"session_timeout_s": 6})})
    with CastlineProcess(settings, tmp_path / "one", "inspector") as one:
        one.wait_ready()
        feed = PictureProducer(settings, rate_per_s=25)
        wait_for_verdicts(settings, 50, 60)
        with CastlineProcess(settings, tmp_path / "two", "inspector") as two:
            two.wait_ready()
            wait_for(lambda: two.metric("castline_verdicts_total") > 40, 60, "expected the second worker to judge")
            one.kill()
            before = two.metric("castline_verdicts_total")
            wait_for(lambda: two.metric("castline_verdicts_total") > before + 40, 60, "expected the second worker to go on")
            one.start()
            one.wait_ready()
            parts = feed.finish()
            found = count_by_part(wait_for_verdicts(settings, len(parts)))
            assert set(found) == set(parts)
            assert two.stop() == 0
        assert one.stop() == 0


def test_the_brokers_restart_under_load_loses_nothing_and_a_stop_while_kafka_is_away_ends_by_itself(
    models_root: Path, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text", "grace_s": 3},
            "model": {"root": models_root, "version": "tiny", "runtime": "litert"},
            "lines": [{"name": "line-1"}],
        }
    )
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        create_topics(admin, settings)
        admin.close()
        with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
            inspector.wait_ready()
            feed = PictureProducer(settings, rate_per_s=30)
            wait_for_verdicts(settings, 90, 60)
            broker.stop(20)
            wait_for(lambda: inspector.page("/readyz")[0] == 503, 20, "expected /readyz to say that Kafka is away")
            broker = EmbeddedBroker(settings)
            broker.start()
            wait_for(lambda: inspector.page("/readyz")[0] == 200, 60, "expected /readyz to say that Kafka is back")
            parts = feed.finish()
            found = count_by_part(wait_for_verdicts(settings, len(parts), within_s=120))
            assert set(found) == set(parts)
            assert inspector.page("/healthz") == (200, "ok\n")

            backlog = PictureProducer(settings, rate_per_s=400)
            wait_for(lambda: len(backlog.parts) > 200, 60, "expected the producer to send")
            backlog.finish()
            broker.stop(20)
            wait_for(lambda: inspector.page("/readyz")[0] == 503, 20, "expected /readyz to say that Kafka is away")
            assert inspector.stop() == 0
    finally:
        broker.stop(20)


def test_an_inspector_that_starts_before_kafka_waits_and_then_names_the_missing_topics(models_root: Path, tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "model": {"root": models_root, "version": "tiny", "runtime": "litert"},
            "lines": [{"name": "line-1"}],
        }
    )
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        wait_for(lambda: "No Kafka broker answers at" in inspector.page("/readyz")[1], 60, "expected /readyz to name Kafka")
        assert inspector.page("/readyz")[0] == 503
        broker = EmbeddedBroker(settings)
        broker.start()
        try:
            # Without its topics a line cannot work. An operator must create them, so the worker ends and names the command.
            assert inspector.process.wait(30) == 3
            assert "These topics do not exist: castings.dead-letters, castings.images.line-1" in inspector.log()
            assert "castline topics create" in inspector.log()
        finally:
            broker.stop(20)


def test_a_tampered_model_is_not_served(make_settings: MakeSettings, models_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "versions"
    (root / "tiny").mkdir(parents=True)
    for file in (models_root / "tiny").iterdir():
        (root / "tiny" / file.name).write_bytes(file.read_bytes())
    weights = root / "tiny" / "lenet.weights.h5"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    settings = make_settings(model={"root": root, "version": "tiny", "runtime": "litert"})
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        assert inspector.process.wait(60) == 3
        assert "lenet.weights.h5 is damaged or was tampered with: its SHA-256" in inspector.log()
    assert read_topic(settings, TopicNames(settings.topics.prefix).verdicts("line-1")).values == []
