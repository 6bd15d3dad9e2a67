"""The gateway as a process, with a real Kafka that starts late, stops and starts again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import sqlite3
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession
from kafka import KafkaAdminClient

from agents.gateway.gateway import Gateway, GatewayLine, ask_disk, find_disk_problem, run_camera, store_waiting_pictures
from agents.gateway.intake import CameraFrame
from agents.gateway.sender import Sender
from agents.gateway.spool import Spool, SpoolBudget
from agents.gateway.upload_camera import UploadCamera
from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.complaints import Complaints
from streams.health import ProgressWatchdog
from streams.identity import read_identity
from streams.settings import CameraSettings, LineSettings, Settings, load_settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.agents.gateway.camera_line import CameraLine, make_jpeg, wait_until
from tests.campaign.plant import FaultFile, build_machine_faults
from tests.conftest import MakeSettings
from tests.image_topics import read_topic
from tests.processes import CASTLINE, CastlineProcess

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
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"},
            "service": {"run_dir": tmp_path / "run", "grace_s": 8},
            "gateway": {"spool_dir": tmp_path / "spool", "port": 0},
            "lines": [{"name": name, "camera": camera} for name in ("line-1", "line-2")],
        }
    )


def read_runs(settings: Settings, line: str) -> dict[int, list[int]]:
    """Returns the part numbers of each run in the order of their first records. Checks that a part always has the same picture."""
    found = read_topic(settings, TopicNames(settings.topics.prefix).images(line))
    content: dict[tuple[int, int], str] = {}
    runs: dict[int, list[int]] = defaultdict(list)
    for key, headers, value in zip(found.keys, found.headers, found.values, strict=True):
        identity = read_identity(key, headers, line)
        number = (identity.part.run, identity.part.part)
        assert content.setdefault(number, identity.sha256 or "") == identity.sha256 == hashlib.sha256(value or b"").hexdigest()
        runs[identity.part.run].append(identity.part.part)
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
        # kafka-python logs a traceback itself if the broker resets a connection.
        own = [line for line in gateway.log().splitlines() if '"logger": "kafka.' not in line]
        assert "Traceback" not in "\n".join(own)
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
        (("--line", "line-7"), "The settings have no line 'line-7'. Known lines: line-1, line-2"),
        (("--line", "line-2"), "lines.camera: expected a camera on line-2, found none"),
    ],
)
def test_a_line_without_a_camera_is_refused_at_the_start(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in"))}
    settings = Settings.model_validate({"lines": [{"name": "line-1", "camera": camera}, {"name": "line-2"}]})
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", *arguments) as gateway:
        assert gateway.process.wait(30) == 3
        assert sentence in gateway.log()


@pytest.mark.parametrize("kind", ["drop", "folder"])
def test_a_line_without_its_folder_complains_and_the_other_line_goes_on(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    settings = make_settings_with_own_broker(tmp_path)
    good = settings.lines[1].model_dump(mode="json", exclude={"token", "gate", "deadline_s"})
    away = {"name": "line-1", "camera": {"kind": kind, "path": str(tmp_path / "file/share")}}
    settings = Settings.model_validate(settings.model_dump(exclude={"lines"}) | {"lines": [away, good]})
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway") as gateway:
        wait_until(lambda: gateway.metric("castline_pictures_received_total", line="line-2") > RATE_PER_S, 40)
        wait_until(lambda: gateway.metric("castline_camera_complaints", line="line-1") == 1, 10)
        assert [gateway.metric("castline_camera_up", line=line) for line in ("line-1", "line-2")] == [0, 1]
        assert gateway.page("/readyz/line-1")[0] == 503
        assert gateway.page("/readyz/line-2") == (200, "ready\n")
        assert "share of line-1" not in gateway.page("/readyz")[1], "the process can work"
        status, text = gateway.page("/healthz")
        assert status == 200, "a restart would help nobody and would interrupt the other line"
        assert "file/share of line-1" in text
        assert "or correct lines.camera.path" in text
        assert "line-2" not in text
        (tmp_path / "file").unlink()
        write_class_folders(tmp_path / "file/share", 1)
        wait_until(lambda: gateway.metric("castline_pictures_received_total", line="line-1") > 0, 20)
        wait_until(lambda: gateway.page("/readyz/line-1") == (200, "ready\n"), 10)
        assert gateway.metric("castline_camera_up", line="line-1") == 1
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


def test_an_error_while_pictures_get_their_parts_ends_neither_the_gateway_nor_another_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    camera = {"kind": "http", "trigger": "board", "latency_s": 0}
    settings = Settings.model_validate(
        {
            "service": {"run_dir": tmp_path / "run"},
            "gateway": {"spool_dir": tmp_path / "spool"},
            "lines": [{"name": name, "camera": camera} for name in ("line-1", "line-2")],
        }
    )
    gateway = Gateway(settings, settings.lines)
    failing, healthy = gateway._lines

    def fail(*arguments: object) -> None:
        raise sqlite3.ProgrammingError("an error that nobody expects")

    monkeypatch.setattr(failing.spool, "accept", fail)
    frames = [CameraFrame(make_jpeg(""), datetime.now(UTC) - timedelta(seconds=60)) for _ in range(2)]
    for line, frame in zip((failing, healthy), frames, strict=True):
        line.intake.accept(frame)
        assert not frame.receipt.done(), "the picture waits for its part"
    while not all(frame.receipt.done() for frame in frames):
        for line in gateway._lines:
            store_waiting_pictures(line, line.intake.decide_due)
    with pytest.raises(sqlite3.ProgrammingError):
        frames[0].receipt.result(0)
    assert not frames[1].receipt.result(0).is_matched
    assert healthy.find_complaint() == ""
    assert failing.find_complaint() == ("pictures of line-1 could not be stored: an error that nobody expects; the log has the details")
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]
    for line in gateway._lines:
        line.spool.close()


def test_a_wrong_clock_of_a_camera_is_among_the_complaints_of_its_line(tmp_path: Path) -> None:
    """The page /healthz shows the complaints of all lines."""
    line, watchdog = CameraLine(tmp_path, CameraSettings(kind="http")), ProgressWatchdog(30)
    sender = Sender(
        line.spool, connect=lambda: pytest.fail("nothing is sent"), is_kafka_reachable=lambda: False, in_flight=1, watchdog=watchdog
    )
    gateway_line = GatewayLine(LineSettings(name="line-1"), UploadCamera(), line.spool, line.intake, sender, watchdog)
    assert gateway_line.find_complaint() == ""
    line.accept(CameraFrame(make_jpeg(""), datetime(1970, 1, 1, tzinfo=UTC)))
    assert gateway_line.find_complaint().startswith("line-1: a picture has the time 1970-01-01 00:00, which cannot be right")
    line.stop()


BELT_SPACING_S = 0.2
ODD_PARTS = (7, 12, 18)


class TimedBelt:
    """Parts and pictures of one line, sent to a gateway over HTTP in real time. A picture is dated `latency_s` after its part."""

    def __init__(self, line: str, url: str, latency_s: float) -> None:
        self._line = line
        self._url = url
        self.latency_s = latency_s
        self.next_part = 1
        self._time = datetime.now(UTC)
        self._draw = random.Random(line)

    async def run(self, count: int) -> list[tuple[int, int, bool]]:
        """Lets `count` parts pass. Returns the number of each part, the number that its picture got, and whether it was matched."""
        self._time = datetime.now(UTC) + timedelta(seconds=0.5)
        async with ClientSession() as session, asyncio.TaskGroup() as tasks:
            sent = [tasks.create_task(self._pass_part(session, number)) for number in range(count)]
        return [task.result() for task in sent]

    async def _pass_part(self, session: ClientSession, index: int) -> tuple[int, int, bool]:
        number, self.next_part = self.next_part, self.next_part + 1
        odd_s = BELT_SPACING_S / 2 * sum(odd <= index for odd in ODD_PARTS)
        counted_at = self._time + timedelta(seconds=index * BELT_SPACING_S + odd_s)
        await asyncio.sleep(max(0.0, (counted_at - datetime.now(UTC)).total_seconds()))
        report = {"run": 9, "part": number, "captured_at": counted_at.isoformat()}
        async with session.post(f"{self._url}/lines/{self._line}/parts", json=report, headers={"Authorization": "Bearer secret"}) as answer:
            assert answer.status == 202
        jitter_s = self._draw.uniform(-0.1, 0.1) * BELT_SPACING_S / 2
        captured_at = counted_at + timedelta(seconds=self.latency_s + jitter_s)
        await asyncio.sleep(max(0.0, (captured_at - datetime.now(UTC)).total_seconds()))
        headers = {"Authorization": "Bearer upload", "Content-Type": "image/jpeg", "X-Captured-At": captured_at.isoformat()}
        picture = b"\xff\xd8\xff" + f"{self._line} {number}".encode() + b"\xff\xd9"
        async with session.post(f"{self._url}/lines/{self._line}/pictures", data=picture, headers=headers) as answer:
            receipt = await answer.json()
            assert answer.status == 201, receipt
        return number, receipt["number"], receipt["matched"]


def count_wrong(passed: list[tuple[int, int, bool]]) -> int:
    return sum(is_matched and number != got for number, got, is_matched in passed)


def count_right(passed: list[tuple[int, int, bool]]) -> int:
    return sum(is_matched and number == got for number, got, is_matched in passed)


def write_timed_lines(settings: Settings, tmp_path: Path) -> Path:
    """Writes a settings file with two HTTP cameras, whose parts a board counts. The latency of line-1 is unknown."""
    file = tmp_path / "castline.toml"
    file.write_text(
        f"""
[kafka]
bootstrap = "{settings.bootstrap}"
[topics]
prefix = "{settings.topics.prefix}"
[service]
run_dir = "{settings.service.run_dir}"
[gateway]
spool_dir = "{settings.gateway.spool_dir}"
port = 0
token = "secret"
[[lines]]
name = "line-1"
token = "upload"
camera = {{ kind = "http", trigger = "board" }}
[[lines]]
name = "line-2"
token = "upload"
camera = {{ kind = "http", trigger = "board", latency_s = 0.0 }}
"""
    )
    return file


def test_the_latency_of_a_camera_is_measured_once_and_a_drifting_one_moves_no_verdict_to_a_neighbour(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(lines=({"name": "line-1"}, {"name": "line-2"}))
    file = write_timed_lines(settings, tmp_path)
    measure: list[str | Path] = [CASTLINE, "--settings", file, "gateway", "measure", "line-1"]

    def find_url(line: str) -> str:
        return (settings.service.run_dir / "gateways" / line).read_text().strip()

    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", file=file) as gateway:
        # Without a latency the line is not ready and none of its pictures is assigned. The other line is not affected.
        wait_until(lambda: "castline gateway measure line-1" in gateway.page("/readyz")[1], 40)
        wait_until(lambda: "line-2" not in gateway.page("/readyz")[1], 40)
        belt, other = TimedBelt("line-1", find_url("line-1"), 0.3), TimedBelt("line-2", find_url("line-2"), 0.0)

        async def run_both() -> tuple[list[tuple[int, int, bool]], list[tuple[int, int, bool]]]:
            return await asyncio.gather(belt.run(24), other.run(24))

        passed, others = asyncio.run(run_both())
        assert gateway.page("/readyz")[0] == 503
        assert count_right(passed) == count_wrong(passed) == 0
        assert (count_right(others), count_wrong(others)) == (24, 0)
        assert gateway.metric("castline_camera_latency_known", line="line-1") == 0

        # The pictures that came meanwhile show the latency, of more than one spacing, because some gaps were odd.
        dry = subprocess.run([*measure, "--seconds", "0", "--dry-run", "--json"], capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(dry.stdout)["latency_s"] == pytest.approx(0.3, abs=0.02)
        assert gateway.page("/readyz")[0] == 503
        measured = subprocess.run([*measure, "--seconds", "0"], capture_output=True, text=True, timeout=60, check=True)
        assert measured.stdout.startswith("line-1: latency 0.")
        assert "The gateway has stored the latency and uses it now." in measured.stdout
        gateway.wait_ready(20)
        passed = asyncio.run(belt.run(24))
        assert (count_right(passed), count_wrong(passed)) == (24, 0)

        # The gateway still knows the latency after a restart.
        assert gateway.stop() == 0
        gateway.start()
        gateway.wait_ready(40)
        belt = TimedBelt("line-1", find_url("line-1"), 0.3)
        belt.next_part = 101
        passed = asyncio.run(belt.run(24))
        assert count_right(passed) >= 23
        assert count_wrong(passed) == 0

        # The clock of the camera jumps by half a spacing, and the gateway stops assigning, also after a restart.
        belt.latency_s += BELT_SPACING_S / 2
        passed = asyncio.run(belt.run(24))
        assert count_right(passed) == count_wrong(passed) == 0
        assert gateway.metric("castline_camera_latency_suspended", line="line-1") == 1
        assert "is no longer right" in gateway.page("/readyz")[1]
        assert gateway.page("/healthz")[0] == 200
        gateway.kill()
        gateway.start()
        wait_until(lambda: "is no longer right" in gateway.page("/readyz")[1], 40)
        belt = TimedBelt("line-1", find_url("line-1"), 0.3 + BELT_SPACING_S / 2)
        belt.next_part = 201
        asyncio.run(belt.run(24))
        subprocess.run([*measure, "--seconds", "5"], capture_output=True, text=True, timeout=60, check=True)
        gateway.wait_ready(20)
        passed = asyncio.run(belt.run(24))
        assert (count_right(passed), count_wrong(passed)) == (24, 0)
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log()


async def upload(url: str, token: str, headers: dict[str, str]) -> int:
    """Returns the status of the answer."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg", **headers}
    async with ClientSession() as session, session.post(f"{url}/lines/line-1/pictures", data=make_jpeg(token), headers=headers) as answer:
        return answer.status


def test_a_camera_goes_on_after_a_restart_while_somebody_guesses_and_an_unknown_proxy_is_named(tmp_path: Path) -> None:
    port = free_ports(1)
    settings = Settings.model_validate(
        {
            "service": {"run_dir": tmp_path / "run"},
            "gateway": {"port": port, "spool_dir": tmp_path / "spool"},
            "lines": [{"name": "line-1", "camera": {"kind": "http"}}],
        }
    )
    settings_file = tmp_path / "castline.toml"
    settings_file.write_text(
        f"""
[service]
run_dir = "{settings.service.run_dir}"
[gateway]
port = {port}
spool_dir = "{settings.gateway.spool_dir}"
[[lines]]
name = "line-1"
token = "the-right-token"
camera = {{ kind = "http" }}
"""
    )
    url, file = f"http://127.0.0.1:{port}", tmp_path / "spool/line-1.clients.json"
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", file=settings_file) as gateway:
        wait_until(lambda: gateway.page("/healthz")[0] == 200 and (tmp_path / "run/gateways/line-1").exists(), 40)
        assert asyncio.run(upload(url, "the-right-token", {})) == 201
        wait_until(file.exists, 10)
        gateway.kill()
        (tmp_path / "run/gateways/line-1").unlink()
        gateway.start()
        wait_until((tmp_path / "run/gateways/line-1").exists, 40)
        guesses = [asyncio.run(upload(url, f"guess-{number}", {})) for number in range(12)]
        assert guesses[:10] == [401] * 10
        assert guesses[-1] == 429
        assert asyncio.run(upload(url, "the-right-token", {})) == 201
        assert "gateway.proxies" not in gateway.page("/readyz")[1]
        assert asyncio.run(upload(url, "the-right-token", {"X-Forwarded-For": "192.0.2.1"})) == 201
        wait_until(lambda: "gateway.proxies is 0" in gateway.page("/readyz")[1], 10)
    assert "the-right-token" not in file.read_text()


def test_a_disk_that_does_not_finish_a_write_is_named_with_its_age_until_it_answers(tmp_path: Path) -> None:
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in")), "rate_per_s": RATE_PER_S}
    settings = Settings.model_validate(
        {
            "service": {"run_dir": tmp_path / "run"},
            "gateway": {"spool_dir": tmp_path / "spool"},
            "lines": [{"name": "line-1", "camera": camera}],
        }
    )
    faults = FaultFile(tmp_path / "faults")
    environment = {"LD_PRELOAD": str(build_machine_faults(tmp_path)), "CAMPAIGN_FAULTS": str(faults.path)}
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", environment=environment) as gateway:
        wait_until(lambda: gateway.metric("castline_spool_pictures", line="line-1") > 0, 40)
        assert "has not finished" not in gateway.page("/readyz")[1]
        faults.set_flush_delay_s(9)
        sentence = re.compile("the disk of the spool of line-1 has not finished a read or write for [67] s")
        wait_until(lambda: sentence.search(gateway.page("/readyz")[1]) is not None, 20)
        assert gateway.page("/healthz")[0] == 200, "a restart does not help"
        faults.set_flush_delay_s(0)
        wait_until(lambda: "has not finished" not in gateway.page("/readyz")[1], 20)


async def send_picture(session: ClientSession, url: str, picture: bytes, headers: dict[str, str] | None = None) -> dict[str, object]:
    """Uploads a picture to the line with the address `url`, and returns the receipt."""
    headers = {"Authorization": "Bearer upload", "Content-Type": "image/jpeg", **(headers or {})}
    async with session.post(f"{url}/pictures", data=picture, headers=headers) as answer:
        receipt: dict[str, object] = await answer.json()
        assert answer.status == 201, receipt
        return receipt


async def send_report(session: ClientSession, url: str, number: int, counted_at: datetime) -> None:
    report = {"run": 9, "part": number, "captured_at": counted_at.isoformat()}
    async with session.post(f"{url}/parts", json=report, headers={"Authorization": "Bearer secret"}) as answer:
        assert answer.status == 202


async def pass_parts(address: str, first_part: int, *pictures: bytes) -> list[object]:
    """Reports parts that are 20, 10 and 0 s old, and uploads pictures one by one. Returns their parts, None for no part."""
    url = f"{address.strip()}/lines/line-1"
    async with ClientSession() as session:
        now = datetime.now(UTC)
        for index in range(3):
            await send_report(session, url, first_part + index, now + timedelta(seconds=10 * (index - 2)))
        receipts = [await send_picture(session, url, picture) for picture in pictures]
    return [receipt["number"] if receipt["matched"] else None for receipt in receipts]


def write_two_lines(tmp_path: Path) -> tuple[Settings, Path]:
    """Returns the settings of two HTTP cameras, and their file. A board counts the parts of line-1. Kafka does not run."""
    file = tmp_path / "castline.toml"
    file.write_text(
        f"""
[service]
run_dir = "{tmp_path}/run"
[gateway]
spool_dir = "{tmp_path}/spool"
port = 0
token = "secret"
[[lines]]
name = "line-1"
token = "upload"
camera = {{ kind = "http", trigger = "board", latency_s = 0.0, match_window_s = 2.0 }}
[[lines]]
name = "line-2"
token = "upload"
camera = {{ kind = "http" }}
"""
    )
    return load_settings(file), file


def test_after_a_kill_of_the_gateway_a_copy_does_not_take_the_part_of_a_later_casting(tmp_path: Path) -> None:
    """The camera gives neither a time nor a key. It has not got its answers, so it sends its pictures again."""
    settings, file = write_two_lines(tmp_path)
    address = settings.service.run_dir / "gateways/line-1"
    matched, unmatched, following = (make_jpeg(text) for text in ("of part 3", "of no part", "of part 13"))
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", file=file) as gateway:
        wait_until(address.exists, 40)
        assert asyncio.run(pass_parts(address.read_text(), 1, matched, unmatched)) == [3, None]
        gateway.kill()
        address.unlink()
        gateway.start()
        wait_until(address.exists, 40)
        assert asyncio.run(pass_parts(address.read_text(), 11, unmatched, matched, following)) == [None, None, 13]


def test_after_a_stop_of_the_gateway_a_copy_of_an_abandoned_upload_does_not_take_the_part_of_a_later_casting(tmp_path: Path) -> None:
    """An upload waits behind a copy that cannot be stored, because another program holds the lock of the file. Its camera gives up."""
    settings, file = write_two_lines(tmp_path)
    address = settings.service.run_dir / "gateways/line-1"
    stored, abandoned, following = (make_jpeg(text) for text in ("of part 3", "of part 4", "of part 13"))

    async def upload_behind_copy() -> None:
        url = f"{address.read_text().strip()}/lines/line-1"
        async with ClientSession() as session:
            blocked = asyncio.create_task(send_picture(session, url, stored))
            await asyncio.to_thread(wait_until, lambda: gateway.metric("castline_pictures_received_total", line="line-1") == 2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send_picture(session, url, abandoned), 0.5)
            blocked.cancel()
            with suppress(asyncio.CancelledError):
                await blocked

    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", file=file) as gateway:
        wait_until(address.exists, 40)
        assert asyncio.run(pass_parts(address.read_text(), 1, stored)) == [3]
        blocker = sqlite3.connect(settings.gateway.spool_dir / "line-1.sqlite", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        asyncio.run(upload_behind_copy())
        gateway.process.terminate()
        blocker.execute("ROLLBACK")
        blocker.close()
        assert gateway.process.wait(40) == 0
        address.unlink()
        gateway.start()
        wait_until(address.exists, 40)
        assert asyncio.run(pass_parts(address.read_text(), 11, abandoned, following)) == [None, 13]


def test_a_spool_whose_write_blocks_stops_no_upload_of_another_line(tmp_path: Path) -> None:
    """Another program holds the lock of the file of line-1, so the gateway waits up to 5 s when it stores a picture of this line."""
    settings, file = write_two_lines(tmp_path)
    address = settings.service.run_dir / "gateways/line-1"

    async def upload_to_both_lines(blocker: sqlite3.Connection) -> None:
        url = address.read_text().strip()
        async with ClientSession() as session:
            taken_at = datetime.now(UTC) - timedelta(seconds=60)
            waiting = asyncio.create_task(
                send_picture(session, f"{url}/lines/line-1", make_jpeg("waits for its part"), {"X-Captured-At": taken_at.isoformat()})
            )
            await asyncio.to_thread(wait_until, lambda: reads_waiting_picture(gateway))
            # A picture waits 2 s for its part, and then the gateway tries to store it.
            for number in range(30):
                await send_picture(session, f"{url}/lines/line-2", make_jpeg(f"of line-2, {number}"))
                await asyncio.sleep(0.1)
            assert not waiting.done()
            blocker.execute("ROLLBACK")
            assert not (await waiting)["matched"]

    def reads_waiting_picture(gateway: CastlineProcess) -> bool:
        return gateway.metric("castline_pictures_received_total", line="line-1") == 1

    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", file=file) as gateway:
        wait_until(address.exists, 40)
        blocker = sqlite3.connect(settings.gateway.spool_dir / "line-1.sqlite", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        asyncio.run(upload_to_both_lines(blocker))
        blocker.close()


@pytest.mark.parametrize("is_full", [False, True], ids=["spool with room", "full spool"])
def test_a_disk_that_hangs_does_not_stop_the_end_of_the_gateway(tmp_path: Path, is_full: bool) -> None:
    spool_bytes = 2**20 if is_full else 2**24
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in")), "rate_per_s": RATE_PER_S}
    settings = Settings.model_validate(
        {
            "service": {"run_dir": tmp_path / "run", "grace_s": 2},
            "gateway": {"spool_dir": tmp_path / "spool", "spool_max_bytes": spool_bytes},
            "lines": [{"name": "line-1", "camera": camera}],
        }
    )
    faults = FaultFile(tmp_path / "faults")
    environment = {"LD_PRELOAD": str(build_machine_faults(tmp_path)), "CAMPAIGN_FAULTS": str(faults.path)}
    with CastlineProcess(settings, tmp_path / "gateway.log", "gateway", environment=environment) as gateway:
        wait_until(lambda: gateway.metric("castline_spool_pictures", line="line-1") > 0, 40)
        faults.set_flush_delay_s(600)
        if is_full:
            # A picture for which the spool has no room waits for the disk while it holds the locks of the spool.
            used = ("castline_spool_bytes", "castline_spool_write_ahead_bytes")
            wait_until(lambda: sum(gateway.metric(name) for name in used) > spool_bytes - 5000, 60)
        wait_until(lambda: "has not finished a read or write" in gateway.page("/readyz")[1], 20)
        gateway.process.terminate()
        # With room, all threads but the flush end by themselves, so the process perhaps needs no force.
        assert gateway.process.wait(60) in ((1,) if is_full else (0, 1))
        assert ("ends by force" if is_full else "does not answer") in gateway.log()
        assert "pictures were perhaps not written" in gateway.log()


def test_measuring_says_why_it_cannot_measure(tmp_path: Path) -> None:
    camera = {"kind": "folder", "path": str(write_class_folders(tmp_path / "in")), "trigger": "board"}
    lines = [{"name": "line-1", "camera": camera}, {"name": "line-2", "camera": {"kind": "http", "trigger": "board"}}]
    gateway = {"port": free_ports(1), "spool_dir": tmp_path / "spool"}
    settings = Settings.model_validate({"lines": lines, "gateway": gateway, "service": {"run_dir": tmp_path / "run"}})
    for line, sentence in (("line-1", "line-1 needs no latency"), ("line-2", 'Start the gateway with "castline gateway"')):
        with CastlineProcess(settings, tmp_path / f"{line}.log", "gateway", "measure", line) as command:
            assert command.process.wait(30) == 3
            assert sentence in command.log()


@pytest.mark.parametrize(
    ("free", "needed", "is_told"),
    [(64, 2048, False), (50, 2048, True), (50, 60, True), (50, 40, False), (0, 2048, True), (0, 0, False)],
)
def test_a_disk_that_other_files_have_filled_is_told_before_pictures_are_refused(free: int, needed: int, is_told: bool) -> None:
    sentence = find_disk_problem(Path("spool"), free * 2**20, 640 * 2**20, needed * 2**20)
    assert sentence.startswith(f"the disk of the spool spool has only {free} of 640 MB free" if is_told else "")
    assert bool(sentence) == is_told


def test_a_disk_that_does_not_answer_is_told_instead_of_ending_the_gateway(tmp_path: Path) -> None:
    assert ask_disk(tmp_path, 0) == ""
    assert "check that its disk is connected" in ask_disk(tmp_path / "unmounted", 0)
