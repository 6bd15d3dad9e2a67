"""Records that are too large for Kafka once they are unpacked: each becomes one short dead letter, and no other record waits for it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kafka import KafkaProducer

from streams.record_producer import CUT_VALUE_BYTES
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.foreign_batches import keep_compression
from tests.image_topics import count_by_part, make_jpeg, read_topic, read_verdicts, wait_for, wait_for_verdicts
from tests.processes import CastlineProcess

LINE = "line-1"
# A broker that stores compressed records accepts a record of this size, because its limit of 8 MiB applies to the compressed bytes.
LARGE = bytes(25 * 2**20)


def send_large(settings: Settings, topic: str, key: bytes, value: bytes = LARGE) -> None:
    """Sends `value` compressed, to a topic of an older release, whose broker stores compressed records."""
    keep_compression(settings, topic)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, compression_type="gzip", max_request_size=2**26)
    producer.send(topic, key=key, value=value).get(60)
    producer.close()


def test_a_picture_that_is_too_large_gets_one_verdict_and_a_cut_dead_letter_and_stops_no_other_picture(
    make_settings: MakeSettings, models_root: Path, tmp_path: Path
) -> None:
    settings = make_settings(model={"root": models_root, "version": "tiny", "runtime": "litert"}, topics={"image_partitions": 1})
    names = TopicNames(settings.topics.prefix)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for part in range(1, 11):
        if part == 6:
            send_large(settings, names.images(LINE), f"{LINE}:2:1".encode())
        producer.send(names.images(LINE), key=f"{LINE}:1:{part}".encode(), value=make_jpeg(part)).get(10)
    producer.close()
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        wait_for_verdicts(settings, 11, 60)
        wait_for(lambda: inspector.metric("castline_consumer_lag_records") == 0, 30, "expected all records to be committed")
        assert inspector.page("/readyz")[0] == 200
        assert inspector.stop() == 0
    verdicts = read_verdicts(settings)
    assert set(count_by_part(verdicts).values()) == {1}, "no verdict is written twice"
    (large,) = [verdict for verdict in verdicts if verdict.run == 2]
    assert (large.label, large.reason) == ("review", "too-large")
    letters = read_topic(settings, names.dead_letters)
    assert letters.values == [LARGE[:CUT_VALUE_BYTES]]
    assert letters.headers[0]["dead-bytes"] == str(len(LARGE)).encode()
    assert letters.headers[0]["dead-sha256"] == hashlib.sha256(LARGE).hexdigest().encode()
