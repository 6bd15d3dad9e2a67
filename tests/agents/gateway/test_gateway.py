"""The gateway as a process, with a real Kafka that starts late, stops and starts again."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer

from agents.gateway.complaints import Complaints
from agents.gateway.gateway import run_camera
from agents.gateway.intake import CameraFrame
from agents.gateway.spool import Spool, SpoolBudget
from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.identity import make_header_map, read_identity
from streams.settings import CameraSettings, Settings
from streams.topics import TopicNames, create_topics
from tests.agents.gateway.camera_line import CameraLine, make_jpeg, wait_until
from tests.conftest import MakeSettings
from tests.processes import CastlineProcess

pytestmark = pytest.mark.real

RATE_PER_S = 40


def write_class_folders(root: Path, count: int = 20) -> Path:
    for number in range(count):
        file = root / ("ok_front" if number % 2 else "def_front") / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_jpeg(f"casting {number}" * 50))
    return root


def make_settings_with_own_broker(tmp_path: Path) -> Settings:
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in")), "rate_per_s": RATE_PER_S}
    return Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka"},
            "service": {"run_dir": tmp_path / "run", "grace_s": 8},
            "gateway": {"spool_dir": tmp_path / "spool", "port": 0},
            "lines": [{"name": name, "camera": camera} for name in ("line-1", "line-2")],
        }
    )


def read_runs(settings: Settings, line: str) -> dict[int, list[int]]:
    """Returns the part numbers of each run in the order of their first records. Checks that a part always has the same picture."""
    consumer = KafkaConsumer(
        TopicNames(settings.topics.prefix).images(line),
        bootstrap_servers=settings.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=3000,
    )
    content: dict[tuple[int, int], str] = {}
    runs: dict[int, list[int]] = defaultdict(list)
    for record in consumer:
        identity = read_identity(record.key, make_header_map(record.headers), line)
        number = (identity.part.run, identity.part.part)
        assert content.setdefault(number, identity.sha256 or "") == identity.sha256 == hashlib.sha256(record.value).hexdigest()
        runs[identity.part.run].append(identity.part.part)
    consumer.close()
    return runs


def test_no_picture_is_lost_when_kafka_starts_late_the_gateway_is_killed_and_the_broker_restarts(tmp_path: Path) -> None:
    settings = make_settings_with_own_broker(tmp_path)
    broker = EmbeddedBroker(settings)
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway") as gateway:
        # Kafka does not run yet. The cameras are not blocked, the pictures wait, /readyz names the reason, and /healthz is fine.
        wait_until(lambda: gateway.metric("castline_spool_pictures", line="line-1") > 2 * RATE_PER_S, 40)
        status, why = gateway.page("/readyz")
        assert status == 503
        assert "nothing listens there" in why
        assert gateway.page("/healthz")[0] == 200
        gateway.kill()
        gateway.start()
        wait_until(lambda: gateway.metric("castline_pictures_received_total") > 0, 40)
        broker.start()
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        create_topics(admin, settings)
        admin.close()
        gateway.wait_ready(40)
        wait_until(lambda: gateway.metric("castline_spool_pictures") < 10, 40)

        # The gateway is killed while it works.
        gateway.kill()
        gateway.start()
        gateway.wait_ready(40)

        # The broker restarts under load.
        before = gateway.metric("castline_pictures_received_total")
        broker.stop(20)
        wait_until(lambda: gateway.page("/readyz")[0] == 503, 40)
        wait_until(lambda: gateway.metric("castline_pictures_received_total") > before + 2 * RATE_PER_S, 40)
        broker.start()
        gateway.wait_ready(40)
        wait_until(lambda: gateway.metric("castline_spool_pictures") < 10, 40)
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log()
        assert gateway.log().count("stay on disk") < 20, "an outage is logged once a minute for each line, not for each picture"
    try:
        for line in ("line-1", "line-2"):
            spool = Spool(tmp_path / "spool", line, SpoolBudget(2**30))
            left = {(spooled.part.run, spooled.part.part) for spooled in spool.read_after(0, 10_000)}
            spool.close()
            runs = read_runs(settings, line)
            assert len(runs) == 3, "each start begins a new run"
            for run, numbers in runs.items():
                known = set(numbers) | {number for left_run, number in left if left_run == run}
                # Picture and number are stored in one transaction, so a gap would be a lost picture.
                assert known == set(range(1, max(known) + 1))
    finally:
        broker.stop(20)


def test_a_stopped_gateway_has_sent_all_accepted_pictures_and_ends_with_status_0(make_settings: MakeSettings, tmp_path: Path) -> None:
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in")), "rate_per_s": 100}
    settings = make_settings(lines=({"name": "line-1", "camera": camera}, {"name": "line-2"}))
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway") as gateway:
        gateway.wait_ready()
        wait_until(lambda: gateway.metric("castline_pictures_sent_total", line="line-1") > 50, 40)
        assert gateway.page("/healthz") == (200, "ok\n")
        assert gateway.stop() == 0
    (numbers,) = read_runs(settings, "line-1").values()
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "without a crash there is no gap and no repeat"
    spool = Spool(settings.gateway.spool_dir, "line-1", SpoolBudget(2**30))
    assert spool.waiting_count == 0
    spool.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--line", "line-7"), "lines: expected one of line-1, line-2, found 'line-7'"),
        (("--line", "line-2"), "lines.camera: expected a camera on line-2, found none"),
    ],
)
def test_a_line_without_a_camera_is_refused_at_the_start(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in"))}
    settings = Settings.model_validate({"lines": [{"name": "line-1", "camera": camera}, {"name": "line-2"}]})
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", *arguments) as gateway:
        assert gateway.process.wait(30) == 3
        assert sentence in gateway.log()


def test_a_line_without_its_folder_complains_and_the_other_line_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = make_settings_with_own_broker(tmp_path)
    good = settings.lines[1].model_dump(mode="json", exclude={"token", "gate", "deadline_s"})
    away = {"name": "line-1", "camera": {"kind": "drop", "path": str(tmp_path / "file/share")}}
    settings = Settings.model_validate(settings.model_dump(exclude={"lines"}) | {"lines": [away, good]})
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway") as gateway:
        wait_until(lambda: gateway.metric("castline_pictures_received_total", line="line-2") > RATE_PER_S, 40)
        wait_until(lambda: gateway.metric("castline_camera_complaints", line="line-1") == 1, 10)
        status, text = gateway.page("/healthz")
        assert status == 200, "a restart would help nobody and would interrupt the other line"
        assert "share of line-1 cannot be read: Not a directory; mount the share, or correct lines.camera.path" in text
        assert "line-2" not in text
        (tmp_path / "file").unlink()
        write_class_folders(tmp_path / "file/share", 1)
        wait_until(lambda: gateway.metric("castline_pictures_received_total", line="line-1") > 0, 20)
        assert gateway.page("/healthz") == (200, "ok\n")
        assert gateway.stop() == 0


class FailingCamera:
    """A camera that fails after each of its pictures with an error that nobody expects."""

    def __init__(self) -> None:
        self.given = 0

    def list_complaints(self) -> list[str]:
        return []

    def frames(self, stopping: threading.Event) -> Iterator[CameraFrame]:
        self.given += 1
        yield CameraFrame(make_jpeg(str(self.given)), datetime.now(UTC))
        raise ZeroDivisionError("an error that nobody expects")


def test_a_camera_survives_every_error_and_says_so(tmp_path: Path) -> None:
    line = CameraLine(tmp_path, CameraSettings(kind="http"))
    complaints, stopping = Complaints(), threading.Event()
    thread = threading.Thread(target=run_camera, args=("line-1", FailingCamera(), line.intake, complaints, stopping))
    thread.start()
    wait_until(lambda: len(line.parts()) >= 3)
    assert complaints.list_texts() == [
        "the camera of line-1 was interrupted by an error: an error that nobody expects; the log has the details"
    ]
    stopping.set()
    thread.join(5)
    line.stop()
