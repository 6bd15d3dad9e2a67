"""How much work waits for a worker, asked of the brokers: end offsets against committed offsets.

Asked by a thread with a client of its own. A worker that hangs without an error after a failed rebalance still believes in
its own counters; the brokers do not.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from streams import metrics
from streams.health import ProcessHealth
from streams.kafka import make_client_arguments
from streams.settings import Settings

Partition = tuple[str, int]


def lag_by_topic(ends: dict[Partition, int], committed: dict[Partition, int]) -> dict[str, int]:
    """Records not yet committed, by topic. A partition never committed counts from its beginning."""
    lag: dict[str, int] = defaultdict(int)
    for place, end in ends.items():
        lag[place[0]] += max(0, end - max(0, committed.get(place, 0)))
    return dict(lag)


class LagWatch:
    """Every `every_s`: the lag of this worker's partitions to the metrics and to `health`, which is not ready while Kafka does not answer.

    `assigned` names the worker's partitions; when it has none, all partitions of `lines`' topics are watched, since then
    they must be someone else's work that moves. The metrics then say 0: what waits for others is theirs to show, and would be
    counted twice in a sum over the workers. When it waits for nobody, /healthz says so.
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        lines: dict[str, str],
        assigned: Callable[[], Collection[Partition]],
        health: ProcessHealth,
        every_s: float = 1.0,
    ) -> None:
        self._settings = settings
        self._group = group
        self._lines = lines  # topic -> line
        self._assigned = assigned
        self._health = health
        self._every_s = every_s
        self._stopping = threading.Event()
        self._before: dict[Partition, int] = {}
        self._partitions: set[Partition] | None = None
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        admin: KafkaAdminClient | None = None
        while not self._stopping.wait(self._every_s):
            try:
                admin = admin or KafkaAdminClient(**make_client_arguments(self._settings, "lag"), bootstrap_timeout_ms=5000)
                self._look(admin)
                self._health.set_ready("kafka")
            except (KafkaError, OSError, ValueError) as error:
                self._health.set_not_ready(f"expected Kafka at {self._settings.bootstrap} to answer, it did not: {error!r}", "kafka")
                if admin is not None:
                    admin.close()
                    admin = None
        if admin is not None:
            admin.close()

    def _look(self, admin: KafkaAdminClient) -> None:
        own = set(self._assigned())
        watched = own or self._all(admin)
        latest = {TopicPartition(*place): OffsetSpec.LATEST for place in sorted(watched)}
        ends = {(place.topic, place.partition): found.offset for place, found in admin.list_partition_offsets(latest).items()}
        groups = admin.list_group_offsets({self._group: list(latest)})
        committed = {(place.topic, place.partition): found.offset for place, found in groups[self._group].items()}
        lag = lag_by_topic(ends, committed)
        by_line = dict.fromkeys(self._lines.values(), 0)
        for topic, line in self._lines.items():
            by_line[line] += lag.get(topic, 0) if own else 0
        for line, records in by_line.items():
            metrics.consumer_lag.labels(line).set(records)
        if committed != self._before:
            self._health.watchdog.record_progress()
        self._before = committed
        self._health.watchdog.set_pending(sum(lag.values()))

    def _all(self, admin: KafkaAdminClient) -> set[Partition]:
        if self._partitions is None:
            topics = admin.describe_topics(list(self._lines))
            self._partitions = {(topic["name"], part["partition_index"]) for topic in topics for part in topic["partitions"]}
        return self._partitions
