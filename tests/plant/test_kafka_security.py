"""TLS and SASL/SCRAM with a real broker that requires both: pictures get verdicts, and wrong credentials are refused."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from deploy.kafka.broker import CLUSTER_ID, LOG4J, server_properties
from deploy.kafka.java import archive_options, java_command
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.kafka import make_client_arguments, open_client
from streams.settings import BrokerSettings, Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.image_topics import make_jpeg
from tests.processes import CastlineProcess

pytestmark = pytest.mark.real

USER, PASSWORD = "castline", "a long and random one"


@pytest.fixture
def secured_settings(tmp_path: Path, models_root: Path) -> Iterator[Settings]:
    """Settings for a running broker whose only listener for clients requires TLS and a SCRAM password."""
    port = free_ports(3)
    folder = tmp_path / "kafka"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = authority.issue_cert("127.0.0.1", "localhost")
    # Java reads keys only in PKCS 8.
    key = load_pem_private_key(server.private_key_pem.bytes(), None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(key + b"".join(blob.bytes() for blob in server.cert_chain_pems))
    broker = BrokerSettings(port=port, data_dir=folder, access="open")
    properties = server_properties(broker, 8 * 2**20)
    replacements = {
        "listeners": f"OUTSIDE://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1},INSIDE://127.0.0.1:{port + 2}",
        "advertised.listeners": f"OUTSIDE://127.0.0.1:{port},INSIDE://127.0.0.1:{port + 2}",
        "listener.security.protocol.map": "OUTSIDE:SASL_SSL,CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT",
        "inter.broker.listener.name": "INSIDE",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.outside.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "server.pem",
    }
    lines = [line for line in properties.splitlines() if line.split("=")[0] not in replacements]
    (folder / "server.properties").write_text("\n".join([*lines, *(f"{name}={value}" for name, value in replacements.items())]))
    (folder / "log4j2.yaml").write_text(LOG4J)
    java = [*java_command(broker), *archive_options()]
    scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    storage = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(folder / "server.properties"), "--add-scram", scram]
    subprocess.run(storage, check=True, capture_output=True, cwd=folder)
    with (folder / "broker.log").open("ab") as log:
        command = bound_command([*java, "kafka.Kafka", str(folder / "server.properties")])
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    kafka = {
        "bootstrap": f"127.0.0.1:{port}",
        "security": "sasl-tls",
        "ca_file": folder / "ca.pem",
        "username": USER,
        "password_file": secret,
    }
    settings = Settings.model_validate(
        {
            "kafka": kafka,
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "model": {"root": models_root, "version": "tiny", "runtime": "litert"},
            "lines": [{"name": "line-1"}],
        }
    )
    try:
        admin = wait_for_admin(settings, process)
        create_topics(admin, settings)
        admin.close()
        yield settings
    finally:
        process.terminate()
        process.wait(30)


def wait_for_admin(settings: Settings, process: subprocess.Popen[bytes]) -> KafkaAdminClient:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return open_client(KafkaAdminClient, **make_client_arguments(settings, "test"), bootstrap_timeout_ms=3000)
        except (KafkaError, OSError):
            assert process.poll() is None, "the broker ended"
            assert time.monotonic() < deadline_s, "the broker does not answer"
            time.sleep(0.5)


def test_pictures_get_their_verdicts_over_tls_with_a_password(secured_settings: Settings, tmp_path: Path) -> None:
    names = TopicNames(secured_settings.topics.prefix)
    with CastlineProcess(secured_settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        producer = open_client(KafkaProducer, **make_client_arguments(secured_settings, "test"))
        for part in range(1, 6):
            producer.send(names.images("line-1"), key=f"line-1:1:{part}".encode(), value=make_jpeg(part)).get(20)
        producer.close()
        consumer = open_client(
            KafkaConsumer,
            names.verdicts("line-1"),
            **make_client_arguments(secured_settings, "test"),
            auto_offset_reset="earliest",
            consumer_timeout_ms=30_000,
        )
        keys = {next(consumer).key for _ in range(5)}
        consumer.close()
        assert keys == {f"line-1:1:{part}".encode() for part in range(1, 6)}
        assert inspector.stop() == 0


def test_a_wrong_password_and_an_unknown_authority_are_refused(secured_settings: Settings, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    for changes in ({"password_file": wrong}, {"ca_file": None}, {"security": "sasl-plaintext"}):
        settings = secured_settings.model_copy(update={"kafka": secured_settings.kafka.model_copy(update=changes)})
        with pytest.raises((KafkaError, OSError)):
            open_client(KafkaAdminClient, **make_client_arguments(settings, "test"), bootstrap_timeout_ms=3000)
