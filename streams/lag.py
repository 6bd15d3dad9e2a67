"""Measures the lag of a worker. The lag is the number of records that wait for the worker: end offsets minus committed offsets.

If a worker hangs, its lag grows, even if its own counters look normal. The monitor watches each partition separately. Otherwise, progress
in other partitions would hide a partition that nobody reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import closing
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from streams import metrics
from streams.group_members import GroupIdentity, GroupMember, make_members
from streams.health import ProcessHealth, ProgressWatchdog
from streams.kafka import make_client_arguments, open_client
from streams.settings import Settings
from streams.supervision import SupervisedThread

Partition = tuple[str, int]

# A worker with many waiting records reads its partitions one after the other. So a single partition counts as stalled only after this many
# times the setting service.stall_s.
_PARTITION_STALLS = 2
# If no worker reads a partition in this many measurements in a row, this worker asks Kafka to distribute the partitions again.
_MAX_OWNERLESS = 5


def lag_by_partition(
    end_offsets: Mapping[Partition, int], committed_offsets: Mapping[Partition, int], start_offsets: Mapping[Partition, int]
) -> dict[Partition, int]:
    """Returns, for each partition, the number of uncommitted records that Kafka still holds.

    If a partition has no committed offset, all its records are uncommitted. Records that Kafka has deleted are left out.
    """
    return {
        partition: max(0, end - max(start_offsets.get(partition, 0), committed_offsets.get(partition, 0)))
        for partition, end in end_offsets.items()
    }


class LagMonitor:
    """Measures a worker's lag, the number of records that wait for the worker, every `interval_s` seconds in a thread.

    `lines_by_topic` gives the line of each topic. If Kafka has assigned no partition to the worker, the reported lag is 0. The health check
    then watches all partitions of these topics.

    The thread calls these functions:

    - `report_conflict`: with a sentence if another installation runs a process with the same name or task.
    - `on_topic_replaced`: with the name of a topic that was deleted and created again.
    - `on_ownerless_partition`: when no worker has read a partition for some seconds, and Kafka is not distributing the partitions now.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._report_conflict = report_conflict
        self._lines_by_topic = lines_by_topic
        self._assigned_partitions = assigned_partitions
        self._health = health
        self._interval_s = interval_s
        # Kafka's id of each topic, by name. A topic that was deleted and created again has another id.
        self._topic_ids: dict[str, object] = {}
        self.on_topic_replaced: Callable[[str], None] = lambda topic: None
        self.on_ownerless_partition: Callable[[], None] = lambda: None
        self._ownerless_count = 0
        self._stop_requested = threading.Event()
        self._previous_committed: dict[Partition, int] = {}
        self._previous_waits = 0
        self._clock = clock
        self._watchdogs: dict[Partition, ProgressWatchdog] = {}
        health.add_check(self.find_stalled_partition)
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
                admin = open_client(KafkaAdminClient, **make_client_arguments(self._settings, "lag"), bootstrap_timeout_ms=5000)
                with closing(admin):
                    self._measure_with(admin)
            except (KafkaError, OSError, ValueError) as error:
                # While Kafka does not answer, the worker makes no progress. It must not be reported as stalled, because the supervisor
                # would restart it, and a restart does not help.
                for watchdog in (self._health.watchdog, *self._watchdogs.values()):
                    watchdog.set_pending(0)
                self._health.set_not_ready(f"Kafka at {self._settings.bootstrap} does not answer: {error!r}", "kafka")

    def _measure_with(self, admin: KafkaAdminClient) -> None:
        """Measures the lag again and again with the connection `admin`, until the monitor is asked to stop.

        Raises KafkaError, OSError or ValueError if Kafka does not answer.
        """
        while True:
            self._measure(admin)
            self._health.set_ready("kafka")
            if self._stop_requested.wait(self._interval_s):
                return

    def _measure(self, admin: KafkaAdminClient) -> None:
        group = admin.describe_groups([self._identity.group])[self._identity.group]
        self._check_members(make_members(group))
        topics = admin.describe_topics(list(self._lines_by_topic))
        if not self._check_topics(topics):
            return
        own = set(self._assigned_partitions())
        every_partition = {(topic["name"], part["partition_index"]) for topic in topics for part in topic["partitions"]}
        self._check_owners(group, every_partition)
        partitions = own or every_partition
        end_offsets = _list_offsets(admin, partitions, OffsetSpec.LATEST)
        start_offsets = _list_offsets(admin, partitions, OffsetSpec.EARLIEST)
        groups = admin.list_group_offsets({self._identity.group: [TopicPartition(*partition) for partition in partitions]})
        committed = {(place.topic, place.partition): found.offset for place, found in groups[self._identity.group].items()}
        lag = lag_by_partition(end_offsets, committed, start_offsets)
        lag_by_line = dict.fromkeys(self._lines_by_topic.values(), 0)
        for topic, line in self._lines_by_topic.items():
            lag_by_line[line] += sum(records for partition, records in lag.items() if partition[0] == topic) if own else 0
        for line, records in lag_by_line.items():
            metrics.consumer_lag.labels(line).set(records)
        if committed != self._previous_committed:
            self._health.watchdog.record_progress()
        self._watch_partitions(lag, committed)
        self._previous_committed = committed
        self._health.watchdog.set_pending(sum(lag.values()))

    def _check_members(self, members: Sequence[GroupMember]) -> None:
        """Reports a conflict if a process of another installation must not run beside this process.

        This is also checked when a process starts, but the check at the start misses a process that starts at the same time.
        """
        rival = self._identity.find_rival(members)
        if rival is not None and self._identity.must_yield_to(rival):
            self._report_conflict(self._identity.describe_conflict(rival))

    def _check_topics(self, topics: Iterable[Mapping[str, Any]]) -> bool:
        """Returns whether all topics exist. Reports a topic that is missing, or that was deleted and created again."""
        present = {topic["name"]: topic["topic_id"] for topic in topics if not topic["error_code"]}
        missing = sorted(self._lines_by_topic.keys() - present.keys())
        problem = f"These topics do not exist: {', '.join(missing)}. Create them with: castline topics create" if missing else ""
        self._health.set_problem(problem, "topics")
        for name, topic_id in present.items():
            if self._topic_ids.setdefault(name, topic_id) != topic_id:
                self._topic_ids[name] = topic_id
                self.on_topic_replaced(name)
        return not missing

    def _watch_partitions(self, lag: Mapping[Partition, int], committed: Mapping[Partition, int]) -> None:
        """Tells the watchdog of each partition how many records wait and whether the worker has made progress since the last call.

        A newly committed offset is progress. An attempt to reach Kafka, the database or the object store again also counts as progress, so
        that a worker that waits for one of them is not reported as stalled. The watchdogs of partitions that the worker no longer reads are
        deleted.
        """
        watchdogs = {
            partition: self._watchdogs.get(partition) or ProgressWatchdog(_PARTITION_STALLS * self._settings.service.stall_s, self._clock)
            for partition in lag
        }
        waits = self._health.count_waits()
        has_waited, self._previous_waits = waits != self._previous_waits, waits
        for partition, watchdog in watchdogs.items():
            if has_waited or committed.get(partition) != self._previous_committed.get(partition):
                watchdog.record_progress()
            watchdog.set_pending(lag[partition])
        self._watchdogs = watchdogs

    def find_stalled_partition(self) -> str:
        """Returns a sentence about a partition in which records wait without progress, or "" if no partition is stalled."""
        for (topic, partition), watchdog in self._watchdogs.items():
            if stall := watchdog.find_stall():
                return f"partition {partition} of {topic}: {stall}"
        return ""

    def _check_owners(self, group: Mapping[str, Any], partitions: Set[Partition]) -> None:
        """Calls `on_ownerless_partition` if no worker reads one of the `partitions` in several measurements in a row.

        A restarted worker gets back only its former partitions. A new partition has no worker until Kafka distributes the partitions again.
        """
        owned = {
            (topic["topic"], partition)
            for member in group["members"]
            if member["member_assignment"]
            for topic in member["member_assignment"]["assigned_partitions"]
            for partition in topic["partitions"]
        }
        is_complete = group["group_state"] != "Stable" or partitions <= owned
        self._ownerless_count = 0 if is_complete else self._ownerless_count + 1
        if self._ownerless_count >= _MAX_OWNERLESS:
            self._ownerless_count = 0
            self.on_ownerless_partition()


def _list_offsets(admin: KafkaAdminClient, partitions: Iterable[Partition], spec: OffsetSpec) -> dict[Partition, int]:
    found = admin.list_partition_offsets(dict.fromkeys((TopicPartition(*partition) for partition in sorted(partitions)), spec))
    return {(place.topic, place.partition): offset.offset for place, offset in found.items()}
