"""The demo's foundry: settings that every process takes, free ports, pictures from the cache, and nothing of a real plant."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image

from deploy.demo.castings import cached_castings
from deploy.demo.evidence import read_evidence
from deploy.demo.foundry import Wishes, found, shed
from deploy.demo.physical import Fall, read_falls
from deploy.supervisor.ports import free_ports
from streams.errors import ModelError, SettingsError
from streams.identity import PartId
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.deploy.demo.constructed import judged, sorting


def test_a_foundry_has_what_was_wished_for(tmp_path: Path) -> None:
    foundry = found(Wishes(lines=2, rate_per_s=4, travel_s=2, inspectors=3), tmp_path, tmp_path / "run")
    assert foundry.lines == ("line-1", "line-2")
    names = [role.name for role in foundry.roles]
    assert names[:2] == ["broker", "topics"]
    assert sum(name.startswith("inspector") for name in names) == 3
    assert {"gateway", "sorter line-1", "sorter line-2", "board line-1", "board line-2"} < set(names)
    gates = [line.gate for line in foundry.settings.lines if line.gate]
    assert [gate.travel_s for gate in gates] == [2, 2]
    assert foundry.settings.gateway.token.get_secret_value()
    assert [line.name for line in foundry.settings.lines if not line.gate] == ["uploads"]
    assert foundry.pages is not None
    assert foundry.pages.address == f"http://127.0.0.1:{foundry.settings.station.port}/"
    assert {"archivist", "station", "account"} < set(names)


def test_without_a_station_nothing_of_it_is_there(tmp_path: Path) -> None:
    foundry = found(Wishes(lines=1, station=False), tmp_path, tmp_path / "run")
    assert foundry.pages is None
    assert [line.name for line in foundry.settings.lines] == ["line-1"]
    assert not {"archivist", "station", "account"} & {role.name for role in foundry.roles}


def test_boards_stop_first_and_the_broker_last(tmp_path: Path) -> None:
    roles = {role.name: role for role in found(Wishes(lines=1), tmp_path, tmp_path / "run").roles}
    order = ["board line-1", "gateway", "inspector-1", "sorter line-1", "archivist", "broker"]
    assert [roles[name].stop_order for name in order] == sorted({roles[name].stop_order for name in order})
    assert roles["sorter line-1"].stage > roles["gateway"].stage > roles["topics"].stage > roles["broker"].stage


def test_settings_of_a_real_plant_are_taken_out_of_the_environment() -> None:
    environment = {"PATH": "/bin", "CASTLINE_KAFKA__BOOTSTRAP": "plant:9092", "CASTLINE_BATCH__SIZE": "8", "CASTLINE_SETTINGS_FILE": "x"}
    assert shed(environment) == ["CASTLINE_KAFKA__BOOTSTRAP", "CASTLINE_SETTINGS_FILE"]
    assert environment == {"PATH": "/bin", "CASTLINE_BATCH__SIZE": "8"}


def test_a_version_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such"):
        found(Wishes(model="no-such"), tmp_path, tmp_path / "run")


def test_more_parts_than_a_board_can_follow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected at most 56 parts between camera and gate"):
        found(Wishes(rate_per_s=6, travel_s=20), tmp_path, tmp_path / "run")


def test_ports_in_a_row_are_free() -> None:
    first = free_ports(2)
    for port in (first, first + 1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_castings_are_drawn_once_in_class_folders(tmp_path: Path) -> None:
    drawn: list[None] = []
    folder = cached_castings(3, lambda: drawn.append(None), tmp_path, count=12)
    assert len(drawn) == 12
    pictures = sorted(folder.rglob("*.jp*g"))
    assert len(pictures) == 12
    assert {picture.parent.name for picture in pictures} == {"ok_front", "def_front"}
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.size == (300, 300)
    assert not list(folder.rglob("*.png")), "a camera would photograph the masks"
    assert cached_castings(3, lambda: drawn.append(None), tmp_path, count=12) == folder
    assert len(drawn) == 12
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_castings(3, interrupt, tmp_path, count=3)
    assert not list(tmp_path.iterdir())


def test_falls_are_read_from_the_boards_log(tmp_path: Path) -> None:
    log = tmp_path / "board.jsonl"
    log.write_text(
        '{"what": "servo", "at": 1.0, "at_us": 5, "from_us": 1000, "to_us": 2000, "run": 7}\n'
        '{"what": "fell", "at": 2.0, "at_us": 9, "run": 7, "casting": 1, "counted": 3, "side": "diverted", "struck": false}\n'
        '{"what": "fell", "at": 3.0, "at_us": 9, "run": 7, "casting": 2, "counted": 0, "side": "passed", "struck": true}\n'
    )
    assert read_falls(log, "line-1") == [Fall(PartId("line-1", 7, 3), "diverted", False), Fall(None, "passed", True)]
    assert read_falls(tmp_path / "absent.jsonl", "line-1") == []


def test_the_independent_reader_reads_every_topic_to_its_end(make_settings: MakeSettings) -> None:
    from kafka import KafkaProducer

    settings = make_settings(lines=("line-1", "line-2"))
    names = TopicNames(settings.topics.prefix)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for part in range(1, 101):
        key = f"line-1:7:{part}".encode()
        producer.send(names.images("line-1"), b"picture", key, [("truth", b"defect")])
        producer.send(names.verdicts("line-1"), judged(part).verdict.encode(), key)
        producer.send(names.sorted("line-1"), sorting(part).encode(), key)
    producer.send(names.images("line-2"), b"nobody knows whose")
    producer.send(names.verdicts("line-2"), b"no verdict")
    producer.send(names.dead_letters, b"bytes")
    producer.flush()
    producer.close()
    evidence = read_evidence(settings)
    assert {picture.part.part for picture in evidence.pictures} == set(range(1, 101))
    assert {picture.truth for picture in evidence.pictures} == {"defect"}
    assert len(evidence.judged) == len(evidence.sortings) == 100
    assert (evidence.dead_letters, evidence.unreadable) == (1, 2)
