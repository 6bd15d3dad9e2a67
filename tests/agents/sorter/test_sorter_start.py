"""A sorter that is started while Kafka is away waits, and starts by itself when Kafka comes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topic_creation import create_topics
from tests.processes import get_page, make_environment
from tests.wired_line import WiredLine, wait_until

pytestmark = pytest.mark.real
LINE = "line-1"
# `castline sorter` that finds Kafka at its start and loses it at once: at its first attempt, it does not wait for Kafka.
LOSES_KAFKA = """
import os
import sys
from agents.sorter import process
from agents.sorter.part_states import PartStates
from deploy.cli.main import main
from streams.worker_process import WorkerProcess

wait_for_topics = WorkerProcess.wait_for_topics

def wait_from_the_second_time(self, topics, identities):
    is_first = os.environ.get("ATTEMPT") is None
    os.environ["ATTEMPT"] = "2"
    return is_first or wait_for_topics(self, topics, identities)

WorkerProcess.wait_for_topics = wait_from_the_second_time
if sys.argv.pop(1) == "after-the-states":
    process.restore_states = lambda settings, line, journal: PartStates()
main()
"""


def start_losing_kafka(settings: Settings, when: str, log: Path) -> subprocess.Popen[bytes]:
    command = bound_command([sys.executable, "-c", LOSES_KAFKA, when, "sorter"])
    with log.open("ab") as file:
        return subprocess.Popen(command, env=make_environment(settings), stdout=file, stderr=file)


@pytest.fixture
def kafka_away(tmp_path: Path) -> Settings:
    """The settings of a plant whose Kafka is away."""
    return Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text", "grace_s": 1},
            "gateway": {"port": free_ports()},
            "sorter": {"journal_dir": tmp_path / "journal"},
            "lines": [{"name": LINE, "gate": {"port": str(tmp_path / LINE), "travel_mm": 600, "belt_mm_per_s": 1000}}],
        }
    )


@pytest.fixture
def settings(kafka_away: Settings) -> Settings:
    """The settings of a plant whose topics exist and whose Kafka is away."""
    broker = EmbeddedBroker(kafka_away)
    broker.start()
    admin = KafkaAdminClient(bootstrap_servers=kafka_away.bootstrap)
    create_topics(admin, kafka_away)
    admin.close()
    broker.stop(20)
    return kafka_away


def test_a_sorter_whose_worker_loses_kafka_during_the_start_is_healthy_and_stops_when_asked(kafka_away: Settings, tmp_path: Path) -> None:
    log, target = tmp_path / "sorter.log", tmp_path / "run" / "targets" / "sorter-line-1-1.json"
    sorter = start_losing_kafka(kafka_away, "after-the-states", log)
    try:
        wait_until(lambda: "No Kafka broker answers" in log.read_text() or sorter.poll() is not None, 120)
        assert sorter.poll() is None, log.read_text()[-3000:]
        assert "Kafka stopped answering while this worker started" in log.read_text()
        address = json.loads(target.read_text())[0]["targets"][0]
        with urllib.request.urlopen(f"http://{address}/healthz") as response:
            assert response.status == 200
        ports = re.findall(r"serves its health pages at (\S+)\.", log.read_text())
        assert set(ports) == {address}, "the supervisor asks at the first address"
        sorter.send_signal(signal.SIGTERM)
        assert sorter.wait(40) == 0
        assert not target.exists()
    finally:
        sorter.kill()
        sorter.wait()


def test_a_sorter_whose_kafka_goes_away_during_the_start_starts_by_itself_when_kafka_comes(settings: Settings, tmp_path: Path) -> None:
    file, target = tmp_path / "sorter.log", tmp_path / "run" / "targets" / "sorter-line-1-1.json"
    damaged = settings.sorter.journal_dir / "line-1.damaged-1795000000"
    damaged.parent.mkdir()
    damaged.touch()
    with WiredLine(tmp_path / LINE, parts=0) as line:
        sorter = start_losing_kafka(settings, "before-the-states", file)
        try:
            wait_until(lambda: "No Kafka broker answers" in file.read_text() or sorter.poll() is not None, 60)
            assert sorter.poll() is None, file.read_text()[-3000:]
            assert line.line.board.state == "waiting", "the board leaves its safe state before the sorter can record its parts"
            broker = EmbeddedBroker(settings)
            broker.start()
            wait_until(lambda: line.line.board.state == "running", 60)
            # A journal that an earlier process found damaged is named until a person moves it away.
            page = f"http://{json.loads(target.read_text())[0]['targets'][0]}/healthz"
            assert get_page(page) == (
                200,
                "ok, but: the journal of line-1 was damaged, and sorting records were perhaps not sent: check the disk, and move "
                f"{damaged.name} out of {damaged.parent}\n",
            )
            damaged.unlink()
            wait_until(lambda: get_page(page) == (200, "ok\n"), 10)
            sorter.send_signal(signal.SIGTERM)
            assert sorter.wait(40) == 0
            broker.stop(20)
        finally:
            sorter.kill()
            sorter.wait()
