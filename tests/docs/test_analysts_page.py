"""Tests that the programs in docs/analysts.md work as they are printed, with a real broker and a real inspector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaProducer
from PIL import Image

from streams.record_producer import make_json_record
from streams.records import Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.docs.pages import DOCS, read_program
from tests.docs.validator import make_validator
from tests.image_topics import make_jpeg, read_topic
from tests.processes import CastlineProcess

PAGE = DOCS / "analysts.md"
# Kafka deletes older records soon after their arrival, so the moment is recent.
SINCE = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder outside the project, so that a program in it can import nothing of Castline."""
    return tmp_path_factory.mktemp("elsewhere")


def write_program(name: str, folder: Path) -> list[str]:
    file = folder / name
    file.write_text(read_program(PAGE, name))
    return [sys.executable, "-W", "error::DeprecationWarning:__main__", "-P", str(file)]


def make_environment(settings: Settings) -> dict[str, str]:
    """Returns the environment with the variables that the page documents, and without all other variables of Castline."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_") and name != "PYTHONPATH"}
    return plain | {"KAFKA": settings.bootstrap, "PREFIX": settings.topics.prefix, "LINE": "line-1"}


def run(name: str, settings: Settings, folder: Path, *arguments: str) -> str:
    found = subprocess.run(
        [*write_program(name, folder), *arguments],
        cwd=folder,
        env=make_environment(settings),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture
def reader(make_settings: MakeSettings, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The program verdicts.py as a running process."""
    settings = make_settings()
    with (folder / "verdicts.err").open("w") as complaints:
        process = subprocess.Popen(
            write_program("verdicts.py", folder),
            cwd=folder,
            env=make_environment(settings),
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
    yield process
    process.kill()
    process.communicate()


def test_the_reader_has_ten_lines_and_imports_nothing_of_castline() -> None:
    lines = [line for line in read_program(PAGE, "verdicts.py").splitlines() if line.strip()]
    assert len(lines) == 10
    for name in ("verdicts.py", "replay.py", "send.py"):
        for package in ("streams", "agents", "models", "deploy"):
            assert f"import {package}" not in read_program(PAGE, name)
            assert f"from {package}" not in read_program(PAGE, name)


def test_sent_pictures_get_verdicts_that_both_programs_print(
    make_settings: MakeSettings, models_root: Path, folder: Path, tmp_path: Path, reader: subprocess.Popen[str]
) -> None:
    settings = make_settings(model={"root": models_root, "version": "tiny", "runtime": "litert"}, batch={"size": 4, "shapes": (1, 4)})
    (folder / "good.jpg").write_bytes(make_jpeg(1))
    Image.linear_gradient("L").resize((40, 30)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(make_jpeg(2)[:700])
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        printed = run("send.py", settings, folder, "good.jpg", "small.png", "broken.jpg").splitlines()
    by_file = {line.split()[0]: line.split()[1:] for line in printed}
    assert set(by_file) == {"good.jpg", "small.png", "broken.jpg"}
    for file in ("good.jpg", "small.png"):
        assert 0 <= float(by_file[file][1]) <= 1
    assert by_file["broken.jpg"][:2] == ["review", "None"]
    assert len(by_file["broken.jpg"]) == 3, "the line must end with the reason"

    assert reader.stdout is not None
    read = [reader.stdout.readline().split() for _ in range(3)]
    assert sorted(line[0].rpartition(":")[2] for line in read) == ["1", "2", "3"]
    assert {line[0].split(":")[0] for line in read} == {"line-1"}

    names = TopicNames(settings.topics.prefix)
    for value in read_topic(settings, names.verdicts("line-1")).values:
        make_validator(Verdict).validate(json.loads(value or b""))


def test_a_repeated_verdict_is_printed_once(make_settings: MakeSettings, reader: subprocess.Popen[str]) -> None:
    settings = make_settings()
    example = (DOCS / "examples" / "0.1.0" / "castline.verdict.v1.defect.json").read_bytes()
    last = (DOCS / "examples" / "0.1.0" / "castline.verdict.v1.review.json").read_bytes()
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for value in (example, example, last):
        verdict = Verdict.decode(value)
        producer.send(TopicNames(settings.topics.prefix).verdicts("line-1"), key=verdict.part_id.key, value=value).get(10)
    producer.close()
    assert reader.stdout is not None
    assert [reader.stdout.readline().split()[:3] for _ in range(2)] == [
        ["line-1:112:2048", "defect", "0.9731"],
        ["line-1:112:2049", "review", "None"],
    ]


def test_a_replay_starts_at_its_moment_and_prints_the_last_record_of_each_event(make_settings: MakeSettings, folder: Path) -> None:
    settings = make_settings(lines=("line-1", "line-2"))
    names = TopicNames(settings.topics.prefix)
    diverted = Sorting.decode((DOCS / "examples" / "0.1.0" / "castline.sorting.v1.diverted.json").read_bytes())
    untracked = Sorting.decode((DOCS / "examples" / "0.1.0" / "castline.sorting.v1.untracked.json").read_bytes())

    def part(number: int, minutes: float, **change: object) -> Sorting:
        change = {"part": number, "event": number, "sorted_at": SINCE + timedelta(minutes=minutes), **change}
        return diverted.model_copy(update=change)

    sent = [
        part(1, -5),
        part(2, 5, reason="no-verdict"),
        part(2, 6, reason="late-verdict", late=True),
        part(3, 7),
        untracked.model_copy(update={"sorted_at": SINCE + timedelta(minutes=8)}),
        untracked.model_copy(update={"part": 98, "sorted_at": SINCE + timedelta(minutes=9)}),
    ]
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for one in sent:
        record = make_json_record(names.sorted("line-1"), one.part_id.key, one, "sorter")
        at_ms = int(one.sorted_at.timestamp() * 1000)
        producer.send(record.topic, key=record.key, value=record.value, headers=record.headers, timestamp_ms=at_ms).get(10)
    producer.close()
    printed = [line.split()[:3] for line in run("replay.py", settings, folder, SINCE.isoformat()).splitlines()]
    assert printed == [
        ["line-1:112:2", "diverted", "late-verdict"],
        ["line-1:112:3", "diverted", "verdict"],
        ["line-1:111:97", "untracked", "board-restarted"],
        ["line-1:111:98", "untracked", "board-restarted"],
    ]


def test_the_largest_picture_is_as_the_page_says() -> None:
    assert f"may have up to {Settings().pictures.max_bytes:,} bytes" in PAGE.read_text()
