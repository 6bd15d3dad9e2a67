"""A running plant of an older release, whose broker is open, is moved to Kafka users without losing a part."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import tomli_w
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from deploy.supervisor.ports import free_ports
from streams.kafka import make_client_arguments, open_client
from streams.settings import Settings, load_settings
from streams.topics import TopicNames
from tests.image_topics import make_jpeg
from tests.processes import CastlineProcess

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

LINE, TOKEN = "line-1", "a-token-of-the-test"


class Camera:
    """A camera that uploads a picture every half second and repeats it until the gateway has confirmed it."""

    def __init__(self, port: int) -> None:
        self.confirmed = 0
        self._port = port
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(120)

    def wait_for(self, confirmed: int) -> None:
        deadline_s = time.monotonic() + 180
        while self.confirmed < confirmed:
            assert time.monotonic() < deadline_s, f"only {self.confirmed} pictures are confirmed"
            time.sleep(0.1)

    def _run(self) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            picture = make_jpeg(number)
            while not self._upload(picture, number):
                time.sleep(0.3)
            self.confirmed += 1
            time.sleep(0.5)

    def _upload(self, picture: bytes, number: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/jpeg", "Idempotency-Key": f"casting-{number}"}
            connection.request("POST", f"/lines/{LINE}/pictures", picture, headers)
            return connection.getresponse().status in (200, 201, 202)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running_plant(file: Path, folder: Path) -> Iterator[Settings]:
    """Runs broker, inspector and gateway with the settings in `file` until the block ends."""
    settings = load_settings(file)
    folder.mkdir()
    with ExitStack() as stack:

        def start(*command: str) -> CastlineProcess:
            return stack.enter_context(CastlineProcess(settings, folder / f"{command[0]}.log", *command, file=file))

        broker = start("broker")
        deadline_s = time.monotonic() + 120
        while "Kafka ready at" not in broker.log():
            assert time.monotonic() < deadline_s, broker.log()
            time.sleep(0.2)
        assert start("topics", "create").process.wait(120) == 0
        inspector, gateway = start("inspector"), start("gateway")
        gateway.wait_ready(180)
        inspector.wait_ready(240)
        yield settings


def write_settings(file: Path, folder: Path, access: str, ports: tuple[int, int], models_root: Path) -> None:
    values = {
        "broker": {"port": ports[0], "data_dir": str(folder / "kafka"), "access": access},
        "service": {"run_dir": str(folder / "run"), "log_format": "text"},
        "gateway": {"port": ports[1], "spool_dir": str(folder / "spool")},
        "store": {"url": str(folder / "store")},
        "model": {"root": str(models_root), "version": "tiny", "runtime": "litert"},
        "lines": [{"name": LINE, "token": TOKEN, "camera": {"kind": "http"}}],
    }
    file.write_text(tomli_w.dumps(values))


def read_all(settings: Settings, topic: str) -> list[bytes]:
    consumer = open_client(KafkaConsumer, **make_client_arguments(settings, "test"), group_id=None)
    try:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        keys = []
        while any(consumer.position(place) < ends[place] for place in places):
            keys += [record.key for records in consumer.poll(timeout_ms=500).values() for record in records]
        return keys
    finally:
        consumer.close()


def test_a_running_plant_gets_kafka_users_and_no_picture_is_lost(tmp_path: Path, models_root: Path) -> None:
    file, ports, names = tmp_path / "castline.toml", (free_ports(2), free_ports()), TopicNames("castings")
    write_settings(file, tmp_path, "open", ports, models_root)
    camera = Camera(ports[1])
    try:
        with running_plant(file, tmp_path / "before") as settings:
            camera.wait_for(5)
            open_client(KafkaAdminClient, bootstrap_servers=settings.bootstrap).close()
        during = camera.confirmed
        write_settings(file, tmp_path, "roles", ports, models_root)
        with running_plant(file, tmp_path / "after") as settings:
            camera.wait_for(during + 5)
            camera.stop()
            deadline_s = time.monotonic() + 120
            while len(set(read_all(settings, names.verdicts(LINE)))) < camera.confirmed:
                assert time.monotonic() < deadline_s, f"{camera.confirmed} pictures were confirmed"
                time.sleep(0.5)
            pictures, verdicts = read_all(settings, names.images(LINE)), read_all(settings, names.verdicts(LINE))
            with pytest.raises(KafkaError):
                open_client(KafkaAdminClient, bootstrap_servers=settings.bootstrap, bootstrap_timeout_ms=2000)
    finally:
        camera.stop()
    assert Counter(pictures) == dict.fromkeys(pictures, 1)
    assert camera.confirmed == len(pictures) > 10 - 1
    assert set(verdicts) == set(pictures)
