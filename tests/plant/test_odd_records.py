"""Verdicts with odd times and odd fields, sent to running roles: each becomes one dead letter, and no role ends, also after a restart."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from streams.identity import PartId
from streams.record_producer import CUT_VALUE_BYTES
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import read_topic, wait_for
from tests.plant.part_rows import read_part_rows
from tests.plant.test_large_records import LARGE, send_large
from tests.processes import CastlineProcess
from tests.sample_records import make_verdict

LINE = "line-1"
# Each change makes a valid verdict odd. Kafka and the JSON Schema of a verdict accept all of them.
ODD_FIELDS: list[dict[str, Any]] = [
    {"captured_at": "9999-12-31T23:59:59Z"},
    {"captured_at": "0001-01-01T00:00:00+14:00"},
    {"captured_at": "2026-01-31T12:00:00"},
    {"decided_at": "2026-01-31T12:00:00"},
    {"received_at": "9999-12-31T23:59:59-14:00"},
    {"run": 2**63},
    {"votes": {f"network-{number}": 0.5 for number in range(5000)}},
    {"model": "m" * 100_000},
    {"model": "a\0b"},
    {"line": "line-2"},
]


def make_odd_values() -> list[bytes]:
    image = f"castings.images.{LINE}"
    contents = [json.loads(make_verdict(PartId(LINE, 9, part), image, 0, 0).encode()) for part in range(1, len(ODD_FIELDS) + 1)]
    return [json.dumps(content | odd).encode() for content, odd in zip(contents, ODD_FIELDS, strict=True)]


def send_odd_verdicts(settings: Settings, good: PartId) -> int:
    """Sends odd verdicts and then a good one. Returns the number of the odd ones."""
    names = TopicNames(settings.topics.prefix)
    topic = names.verdicts(LINE)
    odd = make_odd_values()
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for number, value in enumerate(odd):
        producer.send(topic, key=str(number).encode(), value=value).get(10)
    send_large(settings, topic, b"large")
    verdict = make_verdict(good, names.images(LINE), 0, 0, captured_at=datetime.now(UTC))
    # The Kafka time of the good verdict is that of a clock without a battery.
    producer.send(topic, key=good.key, value=verdict.encode(), timestamp_ms=0).get(10)
    producer.close()
    return len(odd) + 1


def read_dead_letters(settings: Settings, role: str) -> list[bytes | None]:
    letters = read_topic(settings, TopicNames(settings.topics.prefix).dead_letters)
    return [value for value, headers in zip(letters.values, letters.headers, strict=True) if headers["dead-role"] == role.encode()]


def test_odd_verdicts_become_dead_letters_of_a_sorter_that_goes_on(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(lines=({"name": LINE, "gate": {"port": str(tmp_path / "no-board")}},))
    with CastlineProcess(settings, tmp_path / "log", "sorter") as sorter:
        wait_for(lambda: sorter.page("/healthz")[0] == 200, 60, "expected the sorter to start")
        count = send_odd_verdicts(settings, PartId(LINE, 9, 1000))
        wait_for(lambda: len(read_dead_letters(settings, "sorter")) >= count, 60, "expected a dead letter of each odd verdict")
        wait_for(lambda: sorter.metric("castline_consumer_lag_records") == 0, 30, "expected the sorter to read everything")
        assert sorter.metric("castline_dead_letters_total", reason="verdict") == count
        assert sorter.process.poll() is None
        assert sorter.stop() == 0
        # A starting sorter reads the newest verdicts again, to know the parts on the belt.
        sorter.start()
        wait_for(lambda: "the board" in sorter.page("/readyz")[1], 60, "expected the sorter to wait for its board only")
        assert sorter.stop() == 0
    letters = read_dead_letters(settings, "sorter")
    assert len(letters) == count
    assert set(letters) == {*make_odd_values(), LARGE[:CUT_VALUE_BYTES]}


def test_odd_verdicts_become_dead_letters_of_an_archivist_that_goes_on(make_settings: MakeSettings, tmp_path: Path) -> None:
    database = str(tmp_path / "station.sqlite3")
    settings = make_settings(station={"database": database, "secret_key_file": tmp_path / "key"})
    good = PartId(LINE, 9, 1000)
    with CastlineProcess(settings, tmp_path / "log", "archivist") as archivist:
        archivist.wait_ready()
        count = send_odd_verdicts(settings, good)
        wait_for(lambda: len(read_part_rows(database)) == 1, 60, "expected the row of the good verdict")
        wait_for(lambda: len(read_dead_letters(settings, "archivist")) >= count, 60, "expected a dead letter of each odd verdict")
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        names = TopicNames(settings.topics.prefix)
        # People choose models and set lines by these topics. An invalid record there must be found, too.
        producer.send(names.models, key=b"*", value=b"{}").get(10)
        producer.send(names.lines, key=b"line-1", value=b"[1]").get(10)
        producer.close()
        wait_for(lambda: len(read_dead_letters(settings, "archivist")) >= count + 2, 60, "expected two more dead letters")
        assert archivist.metric("castline_dead_letters_total", line="models") == 1
        assert archivist.metric("castline_dead_letters_total", line="lines") == 1
        assert archivist.stop() == 0
    assert [(row["run"], row["part"]) for row in read_part_rows(database)] == [(good.run, good.part)]
