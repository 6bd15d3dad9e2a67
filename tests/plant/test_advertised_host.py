"""A broker that gives its clients a host name which this machine does not know."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import CLUSTER_ID, LOG4J, server_properties
from deploy.kafka.java import archive_options, java_command
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.settings import BrokerSettings, Settings
from tests.image_topics import wait_for
from tests.processes import CASTLINE, CastlineProcess, make_environment

pytestmark = pytest.mark.real


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    folder = tmp_path / "kafka"
    folder.mkdir()
    broker = BrokerSettings(port=free_ports(2), data_dir=folder, access="open")
    address = f"advertised.listeners=PLAINTEXT://{{}}:{broker.port}"
    properties = server_properties(broker, 8 * 2**20)
    (folder / "server.properties").write_text(properties.replace(address.format("127.0.0.1"), address.format("kafka-1.invalid")))
    (folder / "log4j2.yaml").write_text(LOG4J)
    java = [*java_command(broker), *archive_options()]
    formatting = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties"]
    subprocess.run(formatting, check=True, capture_output=True, cwd=folder)
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(bound_command([*java, "kafka.Kafka", "server.properties"]), stdout=log, stderr=log, cwd=folder)

    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", broker.port)) == 0

    try:
        wait_for(is_listening, 60, "expected the broker to listen")
        kafka = {"bootstrap": f"127.0.0.1:{broker.port}"}
        service = {"run_dir": tmp_path / "run", "log_format": "text"}
        yield Settings.model_validate({"kafka": kafka, "service": service, "lines": [{"name": "line-1"}]})
    finally:
        process.kill()
        process.wait()


def test_an_advertised_host_that_nobody_knows_is_named(settings: Settings, tmp_path: Path) -> None:
    expected = "this machine cannot find the host kafka-1.invalid"
    with CastlineProcess(settings, tmp_path / "log", "archivist") as archivist:
        wait_for(lambda: expected in archivist.page("/readyz")[1], 60, "expected /readyz to name the host")
        assert archivist.process.poll() is None, "the host may be added to the DNS later"
    created = subprocess.run([CASTLINE, "topics", "create"], env=make_environment(settings), capture_output=True, text=True, check=False)
    assert created.returncode == 3
    assert expected in created.stderr
    assert "advertised.listeners" in created.stderr
