"""The embedded broker: starts, stops, starts again on its data, and says what is wrong in one sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.errors import BrokerError, BrokerStartError
from streams.settings import Settings

pytestmark = pytest.mark.real

CASTLINE = Path(sys.executable).with_name("castline")


def settings_for(folder: Path, port: int | None = None) -> Settings:
    return Settings.model_validate({"broker": {"port": port or free_ports(2), "data_dir": folder, "access": "open"}})


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a broker that once held a topic with one record, and was stopped by SIGTERM.

    In Kafka's settings, each odd character of the folder's name has a special meaning or needs an encoding.
    """
    folder = tmp_path_factory.mktemp("used") / "Gießerei, Halle\\2 = #1 'A'"
    broker = EmbeddedBroker(settings_for(folder))
    broker.start()
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics({"kept": {"num_partitions": 1}}, wait_for_metadata=True)
    admin.close()
    producer = KafkaProducer(bootstrap_servers=broker.address)
    producer.send("kept", b"here").get(10)
    producer.close()
    broker.stop(20)
    assert broker.poll() is not None
    return folder


def test_a_broker_started_again_still_has_its_records(used_folder: Path) -> None:
    broker = EmbeddedBroker(settings_for(used_folder))
    broker.start()
    try:
        consumer = KafkaConsumer("kept", bootstrap_servers=broker.address, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
        assert next(consumer).value == b"here"
        consumer.close()
    finally:
        broker.stop(20)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    port = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(BrokerError, match=f"Port {port} is in use"):
            EmbeddedBroker(settings_for(tmp_path, port)).start()


def test_a_folder_with_other_files_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("not Kafka's")
    with pytest.raises(BrokerError, match="holds files that are not the data"):
        EmbeddedBroker(settings_for(tmp_path)).start()
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.txt"]


def test_the_data_of_another_cluster_is_refused(used_folder: Path) -> None:
    meta = used_folder / "log" / "meta.properties"
    ours = meta.read_text()
    meta.write_text(ours.replace("cluster.id=", "cluster.id=other"))
    try:
        with pytest.raises(BrokerError, match="found the cluster id other"):
            EmbeddedBroker(settings_for(used_folder)).start()
    finally:
        meta.write_text(ours)


def test_a_damaged_metadata_log_is_refused_instead_of_forgetting_topics(used_folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    subprocess.run(["cp", "-r", str(used_folder), str(damaged)], check=True)
    for kept in (damaged / "log" / "__cluster_metadata-0").iterdir():
        if kept.suffix in (".log", ".checkpoint"):
            kept.write_bytes(b"\x00" * kept.stat().st_size)
    with pytest.raises(BrokerError, match=r"damaged|ended with status"):
        EmbeddedBroker(settings_for(damaged)).start()


def test_a_broker_that_ends_while_it_starts_may_be_started_again(used_folder: Path) -> None:
    with pytest.raises(BrokerStartError, match="while it started"):
        EmbeddedBroker(settings_for(used_folder), properties={"process.roles": "none"}).start()


def test_a_broker_that_is_slow_ends_with_a_status_after_which_it_is_started_again(used_folder: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CASTLINE_BROKER__PORT": str(free_ports(2)),
        "CASTLINE_BROKER__DATA_DIR": str(used_folder),
        "CASTLINE_BROKER__START_TIMEOUT_S": "0.1",
        "CASTLINE_SERVICE__RUN_DIR": str(tmp_path / "run"),
    }
    done = subprocess.run([CASTLINE, "broker"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "did not respond within" in done.stderr
    assert done.returncode == 1, "the supervisor and systemd do not start a process again whose exit status is 3"


def test_a_clock_that_is_far_ahead_at_the_start_deletes_no_records_and_a_corrected_clock_restarts_the_broker(
    used_folder: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "CASTLINE_BROKER__PORT": str(free_ports(2)),
        "CASTLINE_BROKER__DATA_DIR": str(used_folder),
        "CASTLINE_BROKER__ACCESS": "open",
        "CASTLINE_SERVICE__RUN_DIR": str(tmp_path / "run"),
    }
    clock = used_folder / "clock"
    clock.write_text(f"{time.time() - 32 * 86400:.0f}")
    process = subprocess.Popen([CASTLINE, "broker"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Kafka ready")
        address = f"127.0.0.1:{environment['CASTLINE_BROKER__PORT']}"
        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "kept", {"retention.ms": "1000"})])
        admin.close()
        # Kafka would look for old records for the first time 30 s after its start.
        time.sleep(36)
        consumer = KafkaConsumer(bootstrap_servers=address)
        assert list(consumer.beginning_offsets([TopicPartition("kept", 0)]).values()) == [0]
        consumer.close()
        clock.write_text(f"{time.time():.0f}")
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "If the clock is right, delete the file" in errors, "the output says what a person does"
    assert "The clock is right again" in errors
    assert process.returncode == 1
    clock.unlink()


def test_the_log_of_a_broker_that_runs_for_long_does_not_fill_the_disk(tmp_path: Path) -> None:
    broker, log = EmbeddedBroker(settings_for(tmp_path)), tmp_path / "broker.log"
    broker.limit_log()
    with log.open("ab") as kafka:
        for _ in range(3):
            kafka.write(b"x" * (17 * 2**20))
            kafka.flush()
            broker.limit_log()
        kafka.write(b"later")
    assert log.read_bytes() == b"later"
    assert (tmp_path / "broker.log.1").stat().st_size == 17 * 2**20


def test_the_command_says_ready_and_stops_on_sigterm_and_no_java_outlives_its_kill(tmp_path: Path) -> None:
    port = free_ports(2)
    environment = {
        **os.environ,
        "CASTLINE_BROKER__PORT": str(port),
        "CASTLINE_BROKER__DATA_DIR": str(tmp_path / "kafka"),
        "CASTLINE_SERVICE__RUN_DIR": str(tmp_path / "run"),
    }
    for signum, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen([CASTLINE, "broker"], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == f"Kafka ready at 127.0.0.1:{port}\n"
        process.send_signal(signum)
        assert process.wait(30) == status
        process.stdout.close()
        until = time.monotonic() + 30
        while answers(port):
            assert time.monotonic() < until, "the broker outlived the command"
            time.sleep(0.2)
