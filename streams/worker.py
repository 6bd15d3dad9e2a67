"""Builds and runs a Faust worker. If a worker is asked to stop, it finishes the accepted records before it stops.

    identity = make_identity(settings, "inspector", instance)
    app = make_app(settings, identity, buffer_records)
    group = ConsumerGroup(app, identity, handler, settings, "inspector", health)
    exit_status = await run_worker([group], "inspector", settings.service.grace_s)

The constants of this module come from tests in which workers and brokers were killed under load.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import faust
import faust.auth
from aiokafka.errors import KafkaConnectionError
from faust.tables.manager import TableManager
from faust.types import AppT, EventT, StreamT

from streams import metrics
from streams.consumed_offsets import CheckedTransport, ExpiredRecords, set_transport
from streams.errors import BrokerError, DuplicateProcessError
from streams.group_members import GroupIdentity
from streams.health import ProcessHealth
from streams.identity import make_header_map
from streams.kafka import make_tls_context
from streams.kafka_users import read_login
from streams.lag import LagMonitor, Partition
from streams.record_memory import BoundedApp, RecordMemory, measure_record
from streams.record_producer import ConsumedRecord
from streams.record_reader import read_broker_time
from streams.settings import Settings
from streams.supervision import run_supervised

log = logging.getLogger(__name__)

# The worker gives Faust this many seconds to close its connections to Kafka. If Kafka does not answer in this time, the worker waits for
# the same time again, and then ends its process by force.
_LEAVE_S = 3.0


def make_app(settings: Settings, identity: GroupIdentity, buffer_records: int) -> AppT[object]:
    """Returns a Faust application that consumes in the group of `identity`.

    `buffer_records` is the number of records that Faust fetches in advance. A smaller number saves memory.
    """
    kafka, topics = settings.kafka, settings.topics
    request_bytes = topics.max_message_bytes + 2**17
    folder = settings.service.run_dir / "faust" / identity.instance_id
    # Faust creates only the last folder of this path, so the folders above it are created here.
    folder.parent.mkdir(parents=True, exist_ok=True)
    app: AppT[object] = BoundedApp(
        buffer_bytes=kafka.buffer_bytes,
        id=identity.group,
        broker=[f"kafka://{address}" for address in settings.bootstrap.split(",")],
        broker_credentials=make_faust_credentials(settings),
        broker_client_id=identity.client_id,
        # With a fixed group instance id, a worker gets its partitions back at once after a restart. Without the id, it would have to wait
        # for the session time-out.
        consumer_group_instance_id=identity.instance_id,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 5,
        broker_request_timeout=max(40.0, kafka.session_timeout_s + 5),
        broker_commit_interval=kafka.commit_interval_s,
        broker_max_poll_records=min(256, max(64, buffer_records // 2)),
        consumer_max_fetch_size=request_bytes,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=buffer_records,
        # With `stream_wait_empty=True`, a rebalance would wait until the worker has finished all records that it has accepted.
        stream_wait_empty=False,
        producer_acks=-1,
        producer_linger=0.0,
        producer_max_request_size=request_bytes,
        producer_request_timeout=kafka.request_timeout_s,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        # Faust creates the folder `datadir` for its tables. The folder stays empty, because the workers have no tables.
        datadir=folder,
        web_enabled=False,
        autodiscover=False,
        TableManager=_NoTables,
        logging_config=None,
        worker_redirect_stdouts=False,
    )
    set_transport(app, CheckedTransport)
    return app


def make_faust_credentials(settings: Settings) -> faust.auth.Credentials | None:
    """Returns the credentials that Faust needs for the connection to the brokers, or None for an unprotected connection.

    Raises KafkaLoginError if the password of the process cannot be read.
    """
    context, login = make_tls_context(settings.kafka), read_login(settings)
    if login.username:
        return faust.auth.SASLCredentials(
            username=login.username, password=login.password, mechanism=settings.kafka.mechanism, ssl_context=context
        )
    return faust.auth.SSLCredentials(context) if context else None


class _NoTables(TableManager):  # type: ignore[misc]  # Faust ships no types
    """A table manager for Faust workers without Faust tables. Faust's own table manager would wait a second for tables."""

    logger = logging.getLogger("faust.tables")

    async def on_start(self) -> None:
        """Lets the worker subscribe to its topics without the wait for tables."""
        await self._update_channels()
        await self.recovery.start()


@dataclass(frozen=True, slots=True)
class ReceivedRecord:
    """A record that came from Kafka and is not acknowledged yet.

    `broker_time` is the Kafka time of the record in UTC. If Kafka gives no plausible time, it is the time at which the record was read.
    """

    record: ConsumedRecord
    broker_time: datetime
    _event: EventT[bytes]
    _stream: StreamT[bytes]
    _release_memory: Callable[[], None] = lambda: None

    async def acknowledge(self) -> None:
        """Marks the record as finished, so that the next commit includes it, and frees its share of the worker's memory.

        Acknowledge the records of a partition in their order, because Faust may otherwise commit a later record first.
        """
        self._release_memory()
        await self._stream.ack(self._event)


class RecordHandler(Protocol):
    """Processes the records of a consumer group. Each worker role implements this class. All methods are called in the event loop."""

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """Maps each topic that the group reads to the name of its line. The lag metric has this name as a label."""

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """Coroutine functions that the worker runs in the background until it stops."""

    async def accept(self, received: ReceivedRecord) -> None:
        """Accepts a record. Waits while the handler's queue is full. While the handler waits, Faust fetches no records."""

    async def drain(self) -> None:
        """Stops accepting records. Returns when every accepted record is finished and acknowledged."""


class ConsumerGroup:
    """One consumer group of a worker: a Faust application that passes records to a handler, and a monitor of the group's lag.

    - `report_expired`: an async function that is called if Kafka deleted records before the worker read them.
    - `has_partitions`: set when Kafka assigns partitions for the first time.
    - `has_tasks`: set when Faust has started the background tasks of the handler.
    - `conflict`: a future that gets a result if another installation runs a process with the same name or task. The result is a sentence
      that describes the conflict.
    """

    def __init__(
        self,
        app: AppT[object],
        identity: GroupIdentity,
        handler: RecordHandler,
        settings: Settings,
        role: str,
        health: ProcessHealth,
        report_expired: Callable[[ExpiredRecords], Awaitable[None]] | None = None,
    ) -> None:
        self.app = app
        self._report_expired = report_expired
        app.transport.on_expired = self._count_expired
        self.has_partitions = asyncio.Event()
        self.has_tasks = asyncio.Event()
        self.conflict: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.lag_monitor = LagMonitor(settings, identity, handler.lines_by_topic, self._assigned_partitions, health, self._report_conflict)
        self.lag_monitor.on_ownerless_partition = self._request_rejoin
        self._handler = handler
        self._memory = RecordMemory(settings.kafka.buffer_bytes // 2)
        self._health = health
        self._is_draining = False
        self._connect(role)

    def _connect(self, role: str) -> None:
        topics = self.app.topic(
            *self._handler.lines_by_topic, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes
        )

        @self.app.agent(topics, name=role)  # type: ignore[untyped-decorator]
        async def consume(stream: StreamT[bytes]) -> None:
            unacknowledged = stream.noack()
            try:
                async for event in unacknowledged.events():
                    await self.app.consumer.check_offset(event.message.tp, event.message.offset)
                    await self._accept(event, unacknowledged)
            except asyncio.CancelledError:
                # Faust also cancels the agent when the worker stops as planned. In this case, do not raise the error again, because the
                # stop would look like a crash.
                if not self._is_draining:
                    raise

        @self.app.on_partitions_assigned.connect(weak=False)  # type: ignore[untyped-decorator]
        async def take_partitions(_sender: object, assigned: set[object], **_: object) -> None:
            log.info("Consumer group %s was assigned %d partitions.", self.app.conf.id, len(assigned))
            self._health.set_ready()
            self.has_partitions.set()

        async def report_tasks() -> None:
            self.has_tasks.set()

        for task in (*self._handler.background_tasks, report_tasks):
            self.app.task(task)

    async def _accept(self, event: EventT[bytes], stream: StreamT[bytes]) -> None:
        """Waits until there is memory for the record of `event`, and passes the record to the handler."""
        release = await self._memory.reserve(measure_record(event.message.key, event.message.value))
        try:
            await self._handler.accept(_received(event, stream, release))
        except BaseException:
            # Faust cancels this call at a rebalance. Then the handler never acknowledges the record, so the memory of the record is
            # released here.
            release()
            raise

    def _report_conflict(self, sentence: str) -> None:
        """Ends the worker, because another installation does the same work. The thread of the lag monitor calls this method."""

        def set_conflict() -> None:
            if not self.conflict.done():
                self.conflict.set_result(sentence)

        # If the worker has ended already, its event loop is closed, and the call raises RuntimeError. Ignore this error.
        with suppress(RuntimeError):
            self.conflict.get_loop().call_soon_threadsafe(set_conflict)

    async def _count_expired(self, expired: ExpiredRecords) -> None:
        log.error(
            "Kafka deleted %d records of %s/%d, from offset %d on, before this worker read them. Start more workers, or keep records for a "
            "longer time.",
            expired.count,
            expired.topic,
            expired.partition,
            expired.first,
        )
        metrics.records_expired.labels(self._handler.lines_by_topic[expired.topic]).inc(expired.count)
        if self._report_expired is not None:
            await self._report_expired(expired)

    def _assigned_partitions(self) -> set[Partition]:
        if not self.has_partitions.is_set():
            return set()
        return {(place.topic, place.partition) for place in self.app.consumer.assignment()}

    def _request_rejoin(self) -> None:
        """Asks Kafka to distribute the partitions of the group again. Only the request of the group's leader has an effect."""
        log.warning(
            "A partition of the consumer group %s has no worker. This worker asks Kafka to distribute the partitions again.",
            self.app.conf.id,
        )
        thread = self.app.consumer._thread
        client = thread._consumer

        async def rejoin() -> None:
            # The leader of the group distributes the partitions that its metadata contains. The metadata can be five minutes old and lack a
            # new partition. So update the metadata first.
            await client._client.force_metadata_update()
            client._coordinator.request_rejoin()

        if client is not None:
            asyncio.run_coroutine_threadsafe(rejoin(), thread.thread_loop)

    async def drain(self) -> None:
        """Waits until the handler has finished and acknowledged all records that it has accepted."""
        self._is_draining = True
        await self._handler.drain()


def _received(event: EventT[bytes], stream: StreamT[bytes], release_memory: Callable[[], None]) -> ReceivedRecord:
    message = event.message
    record = ConsumedRecord(message.topic, message.partition, message.offset, message.key, message.value, make_header_map(message.headers))
    return ReceivedRecord(record, read_broker_time(message.timestamp), event, stream, release_memory)


async def run_worker(groups: Sequence[ConsumerGroup], role: str, grace_s: float) -> int:
    """Runs the consumer groups until SIGTERM, SIGINT or a crash. Returns the exit status: 1 after a crash, 0 otherwise.

    After a signal, the groups finish their records for at most `grace_s` seconds. Raises BrokerError if Kafka fails during the start.
    Raises DuplicateProcessError if another installation runs a process with the same name or task.
    """
    worker = _DrainingWorker(groups, grace_s)
    for group in groups:
        group.lag_monitor.on_topic_replaced = _end_process
    measuring = asyncio.create_task(run_supervised("loop delay", partial(_measure_loop_delay, role)))
    for group in groups:
        group.conflict.add_done_callback(worker.stop_at_conflict)
        group.lag_monitor.start()
    failure: KafkaConnectionError | None = None
    try:
        await worker.start()
        await worker.wait_until_stopped()
    except KafkaConnectionError as error:
        failure = error
    finally:
        measuring.cancel()
        for group in groups:
            group.lag_monitor.request_stop()
        await worker.wait_until_left()
        for group in groups:
            group.lag_monitor.stop()
    if worker.conflict:
        raise DuplicateProcessError(worker.conflict)
    if failure is not None and not worker.is_asked_to_stop:
        worker.release_process()
        raise BrokerError(f"Kafka stopped answering while this worker started: {failure}") from failure
    if crash := worker.crash_reason or next((group.app.crash_reason for group in groups if group.app.crash_reason), None):
        log.error("The worker stopped because of a crash: %r", crash)
        return 1
    return 0


def _end_process(topic: str) -> None:
    """Ends this process at once and without a commit, because `topic` was deleted and created again.

    Faust still has offsets of the deleted topic. If a normal stop committed these offsets, records of the new topic would be skipped.
    """
    log.critical("The topic %s was deleted and created again. This worker ends, so that its next start reads the new topic.", topic)
    logging.shutdown()
    os._exit(1)


class _DrainingWorker(faust.Worker):  # type: ignore[misc]  # Faust ships no types
    """A Faust worker that finishes its work before it stops: it accepts no more records, finishes the accepted ones, and commits."""

    def __init__(self, groups: Sequence[ConsumerGroup], grace_s: float) -> None:
        apps = [group.app for group in groups]
        super().__init__(
            *apps, override_logging=False, redirect_stdouts=False, blocking_timeout=0.0, quiet=True, loop=asyncio.get_running_loop()
        )
        self.spinner = None
        self._groups = groups
        self._grace_s = grace_s
        self._stopping: asyncio.Task[None] | None = None
        self._former_handlers: dict[signal.Signals, Any] = {}
        self._forced_exit: threading.Timer | None = None
        self.conflict = ""

    @property
    def is_asked_to_stop(self) -> bool:
        """True if a signal has asked the worker to stop."""
        return self._stopping is not None

    def install_signal_handlers(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._former_handlers[signum] = signal.getsignal(signum)
            self.loop.add_signal_handler(signum, self._begin_stop)

    def release_process(self) -> None:
        """Restores the former signal handlers, so that the process can go on after the worker has ended.

        Also cancels the timer that would end the process by force.
        """
        for signum, handler in self._former_handlers.items():
            self.loop.remove_signal_handler(signum)
            signal.signal(signum, handler)
        if self._forced_exit is not None:
            self._forced_exit.cancel()

    def stop_at_conflict(self, conflict: asyncio.Future[str]) -> None:
        """Stops the worker at once, because another process does the same work. The other process handles the unfinished records."""
        self.conflict = conflict.result()
        log.error(self.conflict)
        if self._stopping is None:
            self._stopping = asyncio.create_task(self.stop())

    def _begin_stop(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._drain_and_stop())

    async def _drain_and_stop(self) -> None:
        log.info("The worker stops. It first finishes the records that it has accepted, for at most %.0f s.", self._grace_s)
        try:
            async with asyncio.timeout(self._grace_s):
                await asyncio.gather(*(group.drain() for group in self._groups))
                for group in self._groups:
                    await group.app.consumer.commit()
        except TimeoutError:
            log.warning(
                "Not all accepted records were finished within %.0f s. They are processed again after the next start.", self._grace_s
            )
        await self.stop()

    async def wait_until_left(self) -> None:
        """Waits for a limited time until Faust has stopped completely.

        The event loop must not end before Faust. Without the loop, Faust's producer cannot send, and Faust would wait for ever.
        """
        stopping = self._stopping or asyncio.create_task(self.stop())
        await asyncio.wait([stopping], timeout=self._grace_s + _LEAVE_S)
        if stopping.done():
            return
        log.warning("Kafka does not answer, so this worker cannot leave its group. It keeps its partitions until its session times out.")
        # Faust's consumer has a thread that may wait for Kafka for a long time. This timer ends the process even if that thread still
        # waits.
        self._forced_exit = threading.Timer(_LEAVE_S, os._exit, (DuplicateProcessError.EXIT_STATUS if self.conflict else 0,))
        self._forced_exit.daemon = True
        self._forced_exit.start()
        # A task of Faust can ignore its first cancellation and send another request to Kafka. So the tasks are cancelled again and again
        # until they have ended.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.sleep(0.05)


async def _measure_loop_delay(role: str, interval_s: float = 0.25) -> None:
    """Measures every `interval_s` seconds by how much the event loop is late. A late event loop delays commits and heartbeats."""
    loop = asyncio.get_running_loop()
    observe = metrics.event_loop_delay_seconds.labels(role).observe
    while True:
        due_s = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        observe(max(0.0, loop.time() - due_s))
