"""Measures how many records wait for a worker: the end offsets of its partitions minus the committed offsets.

The lag also shows a worker that hangs, although the worker's own counters still look normal.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import closing

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from streams import metrics
from streams.group_members import GroupIdentity, list_members
from streams.health import ProcessHealth
from streams.kafka import make_client_arguments
from streams.settings import Settings
from streams.supervision import SupervisedThread

Partition = tuple[str, int]


def lag_by_topic(end_offsets: Mapping[Partition, int], committed_offsets: Mapping[Partition, int]) -> dict[str, int]:
    """Returns, for each topic, the number of uncommitted records. In a partition without a committed offset all records count."""
    lag: dict[str, int] = defaultdict(int)
    for partition, end in end_offsets.items():
        lag[partition[0]] += max(0, end - max(0, committed_offsets.get(partition, 0)))
    return dict(lag)


class LagMonitor:
    """Measures a worker's lag, the number of records that wait for it, every `interval_s` seconds in a thread.

    The thread also calls `report_conflict` with a sentence if another machine has the name or the exclusive work of this process.

    The lag of a worker without partitions is 0. Its health check then watches all partitions of the topics in `lines_by_topic`.
    """

    def __init__(
        self,
        settings: Settings,
        identity: GroupIdentity,
        lines_by_topic: Mapping[str, str],
        assigned_partitions: Callable[[], Collection[Partition]],
        health: ProcessHealth,
        report_conflict: Callable[[str], None] = lambda _: None,
        interval_s: float = 1.0,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._report_conflict = report_conflict
        self._lines_by_topic = lines_by_topic
        self._assigned_partitions = assigned_partitions
        self._health = health
        self._interval_s = interval_s
        self._stop_requested = threading.Event()
        self._previous_committed: dict[Partition, int] = {}
        self._all_partitions: set[Partition] | None = None
        self._thread = SupervisedThread("lag", self._run, self._stop_requested)

    def start(self) -> None:
        """Starts the thread that measures the lag."""
        self._thread.start()

    def request_stop(self) -> None:
        """Asks the thread to end after its current measurement. Does not wait for the end."""
        self._stop_requested.set()

    def stop(self) -> None:
        """Asks the thread to end, and waits for its end for at most 5 s."""
        self.request_stop()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop_requested.wait(self._interval_s):
            try:
                admin = KafkaAdminClient(**make_client_arguments(self._settings, "lag"), bootstrap_timeout_ms=5000)
                with closing(admin):
                    self._measure_with(admin)
            except (KafkaError, OSError, ValueError) as error:
                self._health.set_not_ready(f"Kafka at {self._settings.bootstrap} does not answer: {error!r}", "kafka")

    def _measure_with(self, admin: KafkaAdminClient) -> None:
        """Measures until the monitor is asked to stop. Raises KafkaError, OSError or ValueError if Kafka does not answer."""
        while True:
            self._measure(admin)
            self._health.set_ready("kafka")
            if self._stop_requested.wait(self._interval_s):
                return

    def _measure(self, admin: KafkaAdminClient) -> None:
        self._check_members(admin)
        own = set(self._assigned_partitions())
        partitions = own or self._list_all_partitions(admin)
        latest = {TopicPartition(*partition): OffsetSpec.LATEST for partition in sorted(partitions)}
        end_offsets = {(place.topic, place.partition): found.offset for place, found in admin.list_partition_offsets(latest).items()}
        groups = admin.list_group_offsets({self._identity.group: list(latest)})
        committed = {(place.topic, place.partition): found.offset for place, found in groups[self._identity.group].items()}
        lag = lag_by_topic(end_offsets, committed)
        lag_by_line = dict.fromkeys(self._lines_by_topic.values(), 0)
        for topic, line in self._lines_by_topic.items():
            lag_by_line[line] += lag.get(topic, 0) if own else 0
        for line, records in lag_by_line.items():
            metrics.consumer_lag.labels(line).set(records)
        if committed != self._previous_committed:
            self._health.watchdog.record_progress()
        self._previous_committed = committed
        self._health.watchdog.set_pending(sum(lag.values()))

    def _check_members(self, admin: KafkaAdminClient) -> None:
        """Reports a conflict if another machine has joined the group in spite of the check at the start of its process."""
        rival = self._identity.find_rival(list_members(admin, self._identity.group))
        if rival is not None and not self._identity.outranks(rival):
            self._report_conflict(self._identity.describe_conflict(rival))

    def _list_all_partitions(self, admin: KafkaAdminClient) -> set[Partition]:
        if self._all_partitions is None:
            topics = admin.describe_topics(list(self._lines_by_topic))
            self._all_partitions = {(topic["name"], part["partition_index"]) for topic in topics for part in topic["partitions"]}
        return self._all_partitions
