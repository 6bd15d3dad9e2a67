"""Connects to Kafka: makes the arguments of kafka-python, waits for a broker, and reads topics to their end."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError, UnknownTopicOrPartitionError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streams.backoff import Backoff
from streams.errors import CastlineError
from streams.kafka_users import read_login
from streams.settings import KafkaSettings, Settings
from streams.unreadable_batches import ReadableBatches

_SECURITY_PROTOCOLS = {"plaintext": "PLAINTEXT", "tls": "SSL", "sasl-plaintext": "SASL_PLAINTEXT", "sasl-tls": "SASL_SSL"}
_READ_TIMEOUT_S = 30
# Limits for a reader without a consumer group: the bytes of one answer of a broker, and the records of one poll. The limits are small,
# because a record may be a picture of some megabytes. A single record that is larger than the limit is still sent.
_ANSWER_BYTES = 8 * 2**20
READER_POLL_RECORDS = 4
# The longest time for setting up a connection: TCP, TLS, log-in and first answer. By default, kafka-python waits longer after each
# failure, up to 30 s.
_LONGEST_SETUP_MS = 10_000
_NETWORK_CARDS = Path("/sys/class/net")
_NO_ADDRESS = "00:00:00:00:00:00"


Client = TypeVar("Client", KafkaAdminClient, KafkaConsumer, KafkaProducer)


class PartitionFinder(Protocol):
    """An object that knows the partition numbers of topics, such as a KafkaConsumer."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Returns the partition numbers of `topic`, or None if the topic does not exist."""


def make_tls_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """Returns the TLS context for the connection to the brokers, or None if the settings do not ask for TLS.

    Raises OSError if a certificate file cannot be read.
    """
    if kafka.security not in ("tls", "sasl-tls"):
        return None
    context = ssl.create_default_context(cafile=str(kafka.ca_file) if kafka.ca_file else None)
    if kafka.cert_file:
        context.load_cert_chain(str(kafka.cert_file), str(kafka.key_file))
    return context


def make_client_id(settings: Settings, slot: str) -> str:
    """Returns the name of a Kafka client: `castline-<site>.<machine>.<slot>.<fingerprint of the installation>`.

    The brokers show this name in their logs, metrics and lists of group members.
    """
    return f"castline-{settings.service.name_process(slot)}.{installation_fingerprint(settings.service.run_dir)}"


def make_client_arguments(settings: Settings, role: str) -> dict[str, Any]:
    """Returns the arguments that every kafka-python client of `role` needs: addresses, client id, security, request time-out.

    Raises KafkaLoginError if the password of the process cannot be read.
    """
    kafka, login = settings.kafka, read_login(settings)
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "client_id": make_client_id(settings, role),
        "security_protocol": _SECURITY_PROTOCOLS[login.security],
        "request_timeout_ms": int(kafka.request_timeout_s * 1000),
        # The longest wait between two attempts to connect. With kafka-python's default of 30 s, a line could get no verdicts for 30 s
        # after a broker has come back.
        "reconnect_backoff_max_ms": 1000,
    }
    if context := make_tls_context(kafka):
        arguments["ssl_context"] = context
    if login.username:
        arguments |= {
            "sasl_mechanism": kafka.mechanism,
            "sasl_plain_username": login.username,
            "sasl_plain_password": login.password,
        }
    return arguments


class _ReaderPartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python ships no types
    """The records that a broker's answer contains for one partition.

    If the records of a batch cannot be decoded, one record takes their place. The value of this record is an `UnreadableBatch`.
    """

    def __init__(self, fetch_offset: int, place: TopicPartition, batches: Any, **options: Any) -> None:
        super().__init__(fetch_offset, place, ReadableBatches(batches, place, fetch_offset), **options)


class _ConnectionManager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python ships no types
    """Waits longer and longer before it connects to a broker again, also if each connection is accepted and then closed.

    A proxy before a broker that does not run accepts each connection and closes it. kafka-python 3.0.12 counts such a connection as a
    success. It would connect again without a wait, more than a hundred times a second, and so use a whole processor.
    """

    async def _connect(self, node: Any, conn: Any, reset_backoff_on_connect: bool = True, timeout_at: float | None = None) -> None:
        before = self._backoff.get(node.node_id)
        await super()._connect(node, conn, reset_backoff_on_connect=False, timeout_at=timeout_at)
        # During the first contact with Kafka, kafka-python counts the failures itself, and calls this method with
        # `reset_backoff_on_connect=False`.
        if not reset_backoff_on_connect:
            return
        if conn.connected:
            self.reset_backoff(node.node_id)
        elif self._backoff.get(node.node_id) == before:
            self.update_backoff(node.node_id)


def open_client(kind: type[Client], *topics: str, **arguments: Any) -> Client:
    """Returns a new client of kafka-python of the class `kind`. If the client is a consumer, it reads `topics`.

    If a consumer cannot decode some records, it gets one record in their place. The value of this record is an `UnreadableBatch`.

    Raises the errors of the constructor of `kind`, for example if no broker answers. After an error, no thread of kafka-python is left
    that tries to connect again.
    """
    networks: list[KafkaNetClient] = []

    def make_network(**options: Any) -> KafkaNetClient:
        net = NetworkSelector(**options)
        manager = _ConnectionManager(net, **options, socket_connection_setup_timeout_max_ms=_LONGEST_SETUP_MS)
        networks.append(KafkaNetClient(net=net, manager=manager))
        return networks[-1]

    try:
        client = kind(*topics, kafka_client=make_network, **arguments)
    except BaseException:
        for network in networks:
            network.close()
        raise
    if isinstance(client, KafkaConsumer):
        client._fetcher.PartitionRecords = _ReaderPartitionRecords
    return client


def make_reader(settings: Settings, role: str, **options: Any) -> KafkaConsumer:
    """Returns a consumer that belongs to no consumer group and needs little memory for large records.

    `options` are further arguments of KafkaConsumer.
    """
    limits = {"fetch_max_bytes": _ANSWER_BYTES, "max_poll_records": READER_POLL_RECORDS}
    arguments = make_client_arguments(settings, role) | limits | options
    return open_client(KafkaConsumer, **arguments, group_id=None, enable_auto_commit=False)


def is_reachable(bootstrap: str) -> bool:
    """Returns whether a TCP connection can be opened to one of the comma-separated addresses host:port. Waits at most 1 s for each."""
    for address in bootstrap.split(","):
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            continue
        return True
    return False


def wait_for_kafka(
    settings: Settings, role: str, report_problem: Callable[[str], None], should_stop: Callable[[], bool]
) -> KafkaAdminClient | None:
    """Waits until a broker answers and the hosts of all brokers are known, and then returns an admin client.

    Returns None if `should_stop` returns True. After each failed attempt, `report_problem` is called with a sentence about the problem.
    The waits between the attempts grow from 0.5 s to 2 s.
    """
    backoff = Backoff(first_s=0.5, longest_s=2.0)
    while not should_stop():
        try:
            admin = open_client(KafkaAdminClient, **make_client_arguments(settings, role), bootstrap_timeout_ms=5000)
        except (KafkaError, OSError) as error:
            problem = f"No Kafka broker answers at {settings.bootstrap} ({type(error).__name__}: {error})."
        else:
            problem = find_unknown_host(admin)
            if not problem:
                return admin
            admin.close()
        wait_s = backoff.failed()
        report_problem(f"{problem} The next attempt follows in {wait_s:.1f} s.")
        resume_at_s = time.monotonic() + wait_s
        while time.monotonic() < resume_at_s and not should_stop():
            time.sleep(0.1)
    return None


def find_partitions(consumer: PartitionFinder, topics: Iterable[str]) -> list[TopicPartition]:
    """Returns all partitions of `topics`, in the order of `topics` and of the partition numbers.

    Raises UnknownTopicOrPartitionError if a topic does not exist.
    """
    partitions = []
    for topic in topics:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise UnknownTopicOrPartitionError(f'The topic {topic} does not exist. Create it with "castline topics create".')
        partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
    return partitions


def find_unknown_host(admin: KafkaAdminClient) -> str:
    """Returns a sentence about a broker whose host name this machine cannot find, or "" if this machine finds the hosts of all brokers.

    A client opens its first connection to an address in `kafka.bootstrap`. For all later connections, the client uses the host names that
    the brokers advertise.
    """
    for broker in admin._manager.cluster.brokers():
        try:
            socket.getaddrinfo(broker.host, broker.port)
        except OSError as error:
            return (
                f"A Kafka broker gives its address as {broker.host}:{broker.port}, but this machine cannot find the host {broker.host} "
                f"({error.strerror}). Correct advertised.listeners of the broker, or add the host to the DNS or to /etc/hosts."
            )
    return ""


def read_to_end(
    settings: Settings,
    role: str,
    topics: Sequence[str],
    since: datetime | None = None,
    first_offsets: Mapping[TopicPartition, int] | None = None,
) -> Iterator[Any]:
    """Yields the records that `topics` hold at the time of the call, in order within each partition.

    - `since`: records that are older than this time are left out.
    - `first_offsets`: for some partitions, the offset at which the reading begins.

    Raises CastlineError if a topic is missing, or if Kafka sends no record for 30 s.
    """
    consumer = make_reader(settings, role)
    try:
        partitions = _find_partitions_to_read(consumer, topics, settings.bootstrap)
        consumer.assign(partitions)
        starts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        if since is not None:
            found = consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
            # If all records of a partition are older than `since`, Kafka returns no offset. Such a partition is not read.
            starts = {partition: found[partition].offset if found[partition] else ends[partition] for partition in partitions}
        starts = {partition: max(start, (first_offsets or {}).get(partition, 0)) for partition, start in starts.items()}
        for partition in partitions:
            consumer.seek(partition, starts[partition])
        unread = {partition for partition in partitions if ends[partition] > starts[partition]}
        while unread:
            polled = consumer.poll(timeout_ms=_READ_TIMEOUT_S * 1000)
            if not polled:
                names = ", ".join(f"{partition.topic}/{partition.partition}" for partition in sorted(unread))
                raise CastlineError(f"Kafka sent no record of {names} for {_READ_TIMEOUT_S} s. Check the brokers, then try again.")
            for partition, records in polled.items():
                yield from (record for record in records if record.offset < ends[partition])
            unread = {partition for partition in unread if consumer.position(partition) < ends[partition]}
    finally:
        consumer.close()


def _find_partitions_to_read(consumer: KafkaConsumer, topics: Sequence[str], bootstrap: str) -> list[TopicPartition]:
    try:
        return find_partitions(consumer, topics)
    except UnknownTopicOrPartitionError as error:
        raise CastlineError(f"Kafka at {bootstrap} lacks a topic that Castline needs. {error.args[0]}") from error


@cache
def installation_fingerprint(run_dir: Path) -> str:
    """Returns eight hexadecimal digits that identify one installation: this machine and the folder `run_dir`.

    A restart does not change the digits. The disk of a machine is sometimes copied to another machine, so the digits depend on the hardware
    addresses of the network cards.
    """
    content = "\n".join([*_hardware_addresses(), str(run_dir.resolve())])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _hardware_addresses() -> list[str]:
    """Returns the sorted addresses of the real network cards. If all cards are virtual, as in a container, returns their addresses."""
    cards = sorted(_NETWORK_CARDS.glob("*"))
    real = [card for card in cards if (card / "device").exists()]
    addresses = {_read_address(card) for card in real or cards}
    return sorted(addresses - {"", _NO_ADDRESS})


def _read_address(card: Path) -> str:
    try:
        return (card / "address").read_text().strip()
    except OSError:
        return ""
