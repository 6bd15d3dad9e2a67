"""The archivist as a process, with a real broker and real databases: each part gets exactly one row, whatever is killed."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaProducer

from streams.identity import PartId
from streams.object_store import ObjectStore
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import read_topic, wait_for
from tests.plant.part_rows import PartRow, read_part_rows
from tests.postgres import PostgreSQL
from tests.processes import CastlineProcess
from tests.sample_records import SamplePlant, choose_label, choose_picture, make_review, make_verdict


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The value of `station.database` for an empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "station.sqlite3")
    server: PostgreSQL = request.getfixturevalue("postgres")
    return server.create_database(f"t{uuid.uuid4().hex[:12]}")


def make_plant_settings(make_settings: MakeSettings, database: str, tmp_path: Path) -> Settings:
    station = {"database": database, "secret_key_file": tmp_path / "key"}
    return make_settings(lines=("line-1", "line-2"), station=station, archivist={"ok_share": 0.0}, review={"audit_share": 0.0})


def is_complete(row: PartRow) -> bool:
    """Whether the row holds everything that is sent about its part."""
    return bool(
        row["label"] and row["action"] and (row["label"] == "ok" or row["found_at"]) and (row["label"] != "review" or row["reviewer"])
    )


def parse_json(value: object) -> object:
    """Parses JSON, which SQLite returns as text and PostgreSQL as objects."""
    return json.loads(value) if isinstance(value, str) else value


def parse_time(value: object) -> datetime:
    """Parses a time, which SQLite returns as text without a zone."""
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def test_killed_and_started_again_under_load_every_part_has_one_whole_row(
    make_settings: MakeSettings, database: str, tmp_path: Path
) -> None:
    settings = make_plant_settings(make_settings, database, tmp_path)
    store = ObjectStore(settings.store.url)
    with CastlineProcess(settings, tmp_path / "log", "archivist") as archivist:
        archivist.wait_ready()
        plant = SamplePlant(settings, rate_per_s=100)
        wait_for(lambda: len(read_part_rows(database)) > 100, 30, "expected the first rows")
        archivist.kill()
        archivist.start()
        archivist.wait_ready()
        before = len(read_part_rows(database))
        wait_for(lambda: len(read_part_rows(database)) > before + 50, 30, "expected more rows after the restart")
        parts = plant.finish()
        wait_for(lambda: sum(map(is_complete, read_part_rows(database))) >= len(parts), 30, f"expected {len(parts)} complete rows")
        picture_count = sum(choose_label(part.part) != "ok" for part in parts)
        wait_for(
            lambda: sum(row["picture"] != "" for row in read_part_rows(database)) >= picture_count, 30, f"expected {picture_count} pictures"
        )
        assert archivist.stop() == 0
    rows = read_part_rows(database)
    assert [PartId(row["line"], row["run"], row["part"]) for row in rows] == sorted(parts), "no part is missing, none is there twice"
    for row in rows:
        label = choose_label(row["part"])
        assert row["label"] == label
        assert row["action"] == ("passed" if label == "ok" else "diverted")
        assert parse_time(row["seen_at"]) == parse_time(row["captured_at"])
        assert row["kind"] == {"ok": "", "defect": "crack", "review": "pores"}[label]
        assert parse_json(row["review_kinds"]) == (["pores"] if label == "review" else [])
        assert (row["picture"] != "") == (label != "ok")
        if row["picture"]:
            assert store.fetch(row["picture"]) == choose_picture(row["part"])


def test_what_is_no_record_or_does_not_fit_is_parked_and_the_rest_is_kept(
    make_settings: MakeSettings, database: str, tmp_path: Path
) -> None:
    settings = make_plant_settings(make_settings, database, tmp_path)
    names = TopicNames(settings.topics.prefix)
    good, foreign = PartId("line-1", 3, 1), PartId("line-2", 3, 1)
    huge = json.loads(make_verdict(good, "", 0, 0).encode()) | {"run": 2**70}
    invalid = {
        b"rubbish": b"{",
        b"foreign": make_verdict(foreign, "", 0, 0).encode(),
        b"huge": json.dumps(huge).encode(),
        b"nothing": None,
    }
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for key, value in invalid.items():
        producer.send(names.verdicts("line-1"), key=key, value=value)
    producer.send(names.verdicts("line-1"), key=good.key, value=make_verdict(good, names.images("line-1"), 0, 0).encode())
    producer.send(names.reviews, key=good.key, value=make_review(good, "defect").encode())
    producer.flush(10)
    with CastlineProcess(settings, tmp_path / "log", "archivist") as archivist:
        archivist.wait_ready()
        wait_for(lambda: len(read_topic(settings, names.dead_letters).keys) >= 4, 30, "expected four dead letters")
        wait_for(lambda: any(row["review_label"] for row in read_part_rows(database)), 30, "expected the reviewed part")
        producer.send(names.reviews, key=good.key, value=None)
        producer.flush(10)
        wait_for(lambda: not any(row["review_label"] for row in read_part_rows(database)), 30, "expected the review to be withdrawn")
        assert archivist.metric("castline_dead_letters_total", line="line-1") == 4
        producer.close()
        assert archivist.stop() == 0
    dead_letters = read_topic(settings, names.dead_letters)
    reasons = {key: headers["dead-reason"] for key, headers in zip(dead_letters.keys, dead_letters.headers, strict=True)}
    assert reasons == {b"rubbish": b"not-a-record", b"foreign": b"other-line", b"huge": b"not-a-record", b"nothing": b"empty"}
    (row,) = read_part_rows(database)
    assert (row["line"], row["run"], row["part"], row["label"]) == ("line-1", 3, 1, choose_label(1))


def test_while_the_database_is_away_the_archivist_waits_and_is_not_ready_and_loses_nothing(
    make_settings: MakeSettings, postgres: PostgreSQL, tmp_path: Path
) -> None:
    database = postgres.create_database(f"t{uuid.uuid4().hex[:12]}")
    settings = make_plant_settings(make_settings, database, tmp_path)
    with CastlineProcess(settings, tmp_path / "log", "archivist") as archivist:
        archivist.wait_ready()
        plant = SamplePlant(settings, rate_per_s=60)
        wait_for(lambda: len(read_part_rows(database)) > 30, 30, "expected the first rows")
        postgres.stop()
        try:
            wait_for(lambda: "into the database" in archivist.page("/readyz")[1], 30, "expected the fault of the database")
            assert archivist.page("/readyz")[0] == 503
        finally:
            postgres.start()
        parts = plant.finish()
        wait_for(lambda: sum(map(is_complete, read_part_rows(database))) >= len(parts), 40, f"expected {len(parts)} complete rows")
        wait_for(lambda: archivist.page("/readyz")[0] == 200, 20, "expected it to be ready again")
        assert archivist.stop() == 0
    assert len(read_part_rows(database)) == len(parts)
