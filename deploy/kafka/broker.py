"""Runs the embedded broker: one Apache Kafka process without ZooKeeper. Only programs on this machine can connect.

A broker can have Kafka users (setting `broker.access`). Then every client must log in. At each start, this module gives the Kafka user
`broker` a new password and logs in as this user. Then it gives each role its password and its permissions (ACLs).
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.kafka.broker_clock import CLOCK_FILE
from deploy.kafka.disk_guard import RESERVE_FILE
from deploy.kafka.java import archive_options, java_command
from deploy.supervisor.launch import bound_command
from deploy.supervisor.log_file import limit_log
from streams.atomic_file import write_atomically
from streams.errors import BrokerError, BrokerStartError, PortInUseError
from streams.kafka import open_client
from streams.kafka_access import create_access, set_passwords
from streams.kafka_users import ACCESS_MARKER, PASSWORD_FOLDER, ROLES, broker_password_dir, has_users
from streams.port_holder import describe_holder
from streams.secrets import remember_secret
from streams.settings import BrokerSettings, Settings

# All embedded brokers have this cluster id. A broker refuses a data folder with another id.
CLUSTER_ID = "Y2FzdGxpbmUtZm91bmRyeQ"

# The name of a Kafka user with all permissions. Kafka's broker and controller log in to each other as this user. Castline logs in as this
# user to give the other users their permissions.
OWN_USER = "broker"

# Largest size of the log of the broker, in bytes. The previous log, which is kept beside it, has at most about this size, too.
_LOG_BYTES = 16 * 2**20

LOG4J = """\
Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d{ISO8601} %p %c{1}: %m%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
    Logger:
      - {name: org.apache.kafka.common.utils.AppInfoParser, level: ERROR}
      # This logger warns at every start that optional parts of Kafka are not configured.
      - {name: kafka.server.KafkaConfig, level: ERROR}
      # This logger writes two lines for each connection that does not log in, so that a stranger could fill the disk with them.
      - {name: org.apache.kafka.common.network.Selector, level: ERROR}
"""


def server_properties(broker: BrokerSettings, max_message_bytes: int, own_password: str = "") -> str:
    """Returns the text of server.properties. The broker listens on loopback only, and keeps one replica of each partition.

    With `own_password`, the broker asks all clients for a log-in. The user `broker` has this password and may do everything.
    """
    listener, controller = broker.port, broker.port + 1
    protocol = "SASL_PLAINTEXT" if own_password else "PLAINTEXT"
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"{protocol}://127.0.0.1:{listener},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"{protocol}://127.0.0.1:{listener}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:{protocol}",
        # The path is relative to the data folder. An absolute path can contain a comma, and Kafka would split such a path into two paths.
        "log.dirs": "log",
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
        # Kafka must delete the files of dropped records within seconds. With its defaults, this takes up to six minutes.
        "log.retention.check.interval.ms": 2000,
        "log.segment.delete.delay.ms": 1000,
        # After kill -9, the broker serves clients only when its former session with Kafka's controller has expired. The default of 9 s is
        # too long. A broker that starts again tries to register at once, and again 0.1, 0.3, 0.7 and 1.5 s later. With a session of 1.4 s,
        # the attempt after 1.5 s always succeeds. The short session has a price: if the process of the broker stands still for more than
        # 1.4 s, for example on a busy machine, its partitions have no leader until its next heartbeat.
        "broker.session.timeout.ms": 1400,
        "broker.heartbeat.interval.ms": 350,
        "num.network.threads": 2,
        "num.io.threads": 4,
        **(_access_properties(own_password) if own_password else {}),
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def _access_properties(own_password: str) -> dict[str, str]:
    """Returns the properties that make Kafka ask for a log-in, and refuse everything that no ACL allows.

    The broker logs in to itself with the mechanism PLAIN, because SCRAM needs users that a new data folder does not have yet.
    """
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    own_login = f'{plain} required username="{OWN_USER}" password="{own_password}" user_{OWN_USER}="{own_password}";'
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "security.inter.broker.protocol": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": own_login,
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": own_login,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{OWN_USER}",
    }


class EmbeddedBroker:
    """Runs one broker process, which keeps its data in the folder `broker.data_dir` of the settings.

    If `record` is given, the Java runtime writes a start-up archive to this file when the broker stops. With this archive, later starts
    are faster. `properties` are additional properties for Kafka. They replace properties of the broker that have the same name.
    """

    def __init__(self, settings: Settings, record: Path | None = None, properties: Mapping[str, object] | None = None) -> None:
        self._settings = settings
        self._broker = settings.broker
        self._own_password = ""
        self._max_message_bytes = settings.topics.max_message_bytes
        self._log = self._broker.data_dir / "broker.log"
        self._record = record
        self._properties = dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._broker.port}"

    @property
    def pid(self) -> int:
        """The process id of the broker, or 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def has_data(self) -> bool:
        """Whether the data folder belongs to a broker that was started before."""
        return (self._broker.data_dir / "log" / "meta.properties").exists()

    def connect(self) -> KafkaAdminClient:
        """Returns an admin client that may do everything.

        Raises KafkaError or OSError if the broker does not answer.
        """
        if not self._is_listening():
            raise ConnectionRefusedError(f"The broker does not listen at {self.address}")
        return open_client(KafkaAdminClient, **self._make_arguments())

    def _make_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"bootstrap_servers": self.address, "bootstrap_timeout_ms": 2000, "request_timeout_ms": 5000}
        if not self._own_password:
            return arguments
        login = {"sasl_mechanism": "PLAIN", "sasl_plain_username": OWN_USER, "sasl_plain_password": self._own_password}
        return {**arguments, "security_protocol": "SASL_PLAINTEXT", **login}

    def start(self, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Starts Kafka and returns when Kafka serves clients. If `is_cancelled` returns True, stops the broker and returns.

        Raises PortInUseError if another program listens at a port of the broker, and BrokerStartError if Kafka ends, or does not serve
        clients within `broker.start_timeout_s` seconds. Raises another BrokerError if the data folder or the jars cannot be used.
        """
        self._refuse_used_ports()
        java = java_command(self._broker)
        properties = self._prepare_folder(java)
        # The broker gets its own session, so that Ctrl-C in a terminal does not stop the broker before its clients.
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                bound_command([*java, *archive_options(self._record), "kafka.Kafka", properties.name]),
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._broker.data_dir,
                env=_make_environment(),
            )
        self._wait_until_ready(is_cancelled)

    def limit_log(self) -> None:
        """Empties the log of the broker if it has become too large. Call this method from time to time while the broker runs."""
        # A full disk is ignored here, because the disk guard reports it.
        with suppress(OSError):
            limit_log(self._log, _LOG_BYTES)

    def _refuse_used_ports(self) -> None:
        for port in (self._broker.port, self._broker.port + 1):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    raise PortInUseError(
                        f"Port {port} is in use by {describe_holder(port)}. Stop this program, or choose another broker.port."
                    ) from None

    def _prepare_folder(self, java: list[str]) -> Path:
        folder = self._broker.data_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            properties = folder / "server.properties"
            meta = folder / "log" / "meta.properties"
            if not meta.exists() and any(entry.name not in _OWN_FILES for entry in folder.iterdir()):
                raise BrokerError(f"The folder {folder} holds files that are not the data of a broker. Choose another broker.data_dir.")
            if has_users(self._broker):
                self._own_password = secrets.token_hex(32)
                folder.chmod(0o700)
                write_atomically(folder / ACCESS_MARKER, "roles\n", mode=0o600)
            content = server_properties(self._broker, self._max_message_bytes, self._own_password)
            # If a property occurs twice, Kafka uses the last value.
            content += "".join(f"{name}={value}\n" for name, value in self._properties.items())
            write_atomically(properties, content, mode=0o600)
            (folder / "log4j2.yaml").write_text(LOG4J)
        except OSError as error:
            raise BrokerError(f"Cannot write to broker.data_dir {folder}: {error.strerror}. Choose another broker.data_dir.") from None
        if meta.exists():
            cluster = re.search(r"^cluster\.id=(\S+)$", meta.read_text(errors="replace"), re.MULTILINE)
            if not cluster or cluster[1] != CLUSTER_ID:
                actual = f"the cluster id {cluster[1]}" if cluster else "no cluster id"
                raise BrokerError(
                    f"The data in {folder} is damaged or belongs to another cluster. Expected the cluster id {CLUSTER_ID}, found {actual}. "
                    "Choose another broker.data_dir, or move this folder away."
                )
            return properties
        formatting = subprocess.run(
            [*java, *archive_options(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", properties.name],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=_make_environment(),
        )
        if formatting.returncode < 0:
            raise BrokerStartError(f"The program that formats the data folder {folder} was ended by signal {-formatting.returncode}.")
        if formatting.returncode:
            raise BrokerError(
                f"Kafka cannot format the data folder {folder}. Choose another broker.data_dir, or correct what Kafka reports: "
                f"{(formatting.stderr or formatting.stdout).strip()[-500:]}"
            )
        return properties

    def _wait_until_ready(self, is_cancelled: Callable[[], bool]) -> None:
        process = self._process
        assert process is not None
        until = time.monotonic() + self._broker.start_timeout_s
        while not is_cancelled():
            if process.poll() is not None:
                self._refuse_used_ports()
                raise BrokerStartError(f"The broker ended with status {process.returncode} while it started. {self._last_line()}")
            problem = "The broker did not respond"
            if self._is_responding():
                self._refuse_lost_topics()
                problem = self._give_access() if self._own_password else ""
                if not problem:
                    return
            if time.monotonic() > until:
                self.stop(5)
                self._refuse_used_ports()
                raise BrokerStartError(
                    f"{problem} within {self._broker.start_timeout_s:.0f} s (broker.start_timeout_s). {self._last_line()}"
                )
            time.sleep(0.1)
        self.stop(5)

    def _refuse_lost_topics(self) -> None:
        # If the metadata log is damaged, Kafka starts without its topics and renames the folders of the topics to *-stray.
        strays = sorted(folder.name for folder in (self._broker.data_dir / "log").glob("*-stray"))
        if strays:
            self.stop(20)
            raise BrokerError(
                f"The data folder {self._broker.data_dir} is damaged: Kafka has lost the topics of the folders {', '.join(strays[:4])}. "
                "Restore the data folder from a copy, or choose another broker.data_dir."
            )

    def _is_listening(self) -> bool:
        """Returns whether the broker's own process listens at its port.

        Call this method before a log-in as the Kafka user `broker`, because a client sends this user's password in plain text. If another
        program listened at the port, this program would get the password.
        """
        if self.poll() is not None or not self.pid:
            return False
        try:
            sockets = psutil.Process(self.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == self._broker.port for one in sockets)

    def _is_responding(self) -> bool:
        try:
            admin = self.connect()
            try:
                return bool(admin.describe_cluster()["brokers"])
            finally:
                admin.close()
        except (KafkaError, OSError):
            return False

    def _give_access(self) -> str:
        """Makes the missing passwords, and gives the users of all roles their passwords and their permissions.

        Returns "" if Kafka has accepted passwords and permissions, otherwise the reason. The caller then tries again, because a broker that
        has just started can be slow. Raises BrokerError if the passwords cannot be made.
        """
        folder = broker_password_dir(self._settings)
        try:
            passwords = [(role, _read_or_make_password(folder / role)) for role in ROLES]
        except OSError as error:
            raise BrokerError(
                f"Cannot make the passwords of Kafka users in {folder}: {error}. Correct the permissions of this folder."
            ) from None
        try:
            admin = self.connect()
            try:
                set_passwords(admin, self._settings, passwords)
                create_access(admin, self._settings)
            finally:
                admin.close()
        except (KafkaError, OSError, BrokerError) as error:
            return f"Kafka did not take its users and their permissions ({error!r})"
        return ""

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        errors = [line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line]
        last = (errors or lines)[-1:] or ["nothing"]
        return f"The last line of its log {self._log} is: {last[0][:400]}"

    def poll(self) -> int | None:
        """Returns the broker's exit status, or None while the broker runs."""
        return self._process.poll() if self._process else None

    def stop(self, grace_s: float) -> None:
        """Stops the broker by SIGTERM. If it still runs after `grace_s` seconds, kills it."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_OWN_FILES = frozenset(
    {"log", "server.properties", "log4j2.yaml", "broker.log", "broker.log.1", RESERVE_FILE, CLOCK_FILE, ACCESS_MARKER, PASSWORD_FOLDER}
)


def _read_or_make_password(file: Path) -> str:
    """Returns the password in `file`. If the file is missing or empty, writes a new password that only the owner of the file can read."""
    password = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if not password:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_urlsafe(32)
        write_atomically(file, password + "\n", mode=0o600)
    remember_secret(password)
    return password


def _make_environment() -> dict[str, str]:
    """Returns the environment for Java. Without a UTF-8 locale, Java cannot open a folder whose name has letters such as "ä"."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}
