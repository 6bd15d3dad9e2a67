"""A sorter that is started while Kafka is away waits, and starts by itself when Kafka comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topics import create_topics
from tests.processes import make_environment
from tests.wired_line import WiredLine, wait_until

pytestmark = pytest.mark.real
LINE = "line-1"
# A sorter that finds Kafka at its start, and loses it before it has read the states of the parts.
LOSES_KAFKA = """
from deploy.cli.sorter import ROLE, serve_lines
from streams.logs import configure_logs
from streams.settings import load_settings
from streams.worker_process import WorkerProcess, worker_process

asked = []

class LosesKafka(WorkerProcess):
    def wait_for_topics(self, topics):
        asked.append(topics)
        return len(asked) == 1 or super().wait_for_topics(topics)

settings = load_settings(None)
configure_logs(settings.service, ROLE)
with worker_process(settings, ROLE, 0, "sorter-line-1") as process:
    raise SystemExit(serve_lines(LosesKafka(**vars(process)), ["line-1"]))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a plant whose topics exist and whose Kafka is away."""
    made = Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "gateway": {"port": free_ports()},
            "sorter": {"journal_dir": tmp_path / "journal"},
            "lines": [{"name": LINE, "gate": {"port": str(tmp_path / LINE), "travel_mm": 600, "belt_mm_per_s": 1000}}],
        }
    )
    broker = EmbeddedBroker(made)
    broker.start()
    admin = KafkaAdminClient(bootstrap_servers=made.bootstrap)
    create_topics(admin, made)
    admin.close()
    broker.stop(20)
    return made


def test_a_sorter_whose_kafka_goes_away_during_the_start_starts_by_itself_when_kafka_comes(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "sorter.log"
    with WiredLine(tmp_path / LINE, parts=0) as line, file.open("ab") as log:
        sorter = subprocess.Popen(
            bound_command([sys.executable, "-c", LOSES_KAFKA]), env=make_environment(settings), stdout=log, stderr=log
        )
        try:
            wait_until(lambda: "No Kafka broker answers" in file.read_text() or sorter.poll() is not None, 60)
            assert sorter.poll() is None, file.read_text()[-3000:]
            assert line.line.board.state == "waiting", "the board leaves its safe state before the sorter can record its parts"
            broker = EmbeddedBroker(settings)
            broker.start()
            wait_until(lambda: line.line.board.state == "running", 60)
            sorter.send_signal(signal.SIGTERM)
            assert sorter.wait(40) == 0
            broker.stop(20)
        finally:
            sorter.kill()
            sorter.wait()
