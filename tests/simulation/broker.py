"""A simulated Kafka broker, and the clients of aiokafka and kafka-python that Castline's roles use.

The broker delays, fails and loses answers as its `weather` says. The seed of the event loop chooses each delay and each failure.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaTimeoutError,
    RequestTimedOutError,
)
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp
from kafka.errors import KafkaConnectionError as ReaderConnectionError

from streams.operating_system import OperatingSystem
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_processes import EPOCH_S

# The broker removes a member that does not rejoin within this time, or that died this long ago.
SESSION_S = 10.0
_FENCED = "Commit cannot be completed since the group has already rebalanced and may have assigned the partitions to another member"


@dataclass(frozen=True)
class StoredRecord:
    """A record in a partition, with the fields that Faust reads."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_type: int = 0
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


@dataclass
class Weather:
    """How often the broker fails. The chances lie between 0 and 1.

    - `fail`: the broker refuses a record.
    - `lose_answer`: the broker stores a record, and its answer is lost.
    - `longest_delay_s`: the longest time until the broker answers.
    - `is_away`: the broker answers nothing.
    """

    fail: float = 0.0
    lose_answer: float = 0.0
    longest_delay_s: float = 0.02
    is_away: bool = False


@dataclass(frozen=True)
class Commit:
    """An offset that a group has committed, and the virtual time of the commit."""

    group: str
    place: TopicPartition
    offset: int
    at_s: float


class Broker:
    """The records and the consumer groups. `on_commit` is called before each commit."""

    def __init__(self, loop: VirtualLoop, partitions: Mapping[str, int]) -> None:
        self.loop = loop
        self.choice = random.Random(loop.choice.random())
        self.weather = Weather()
        self.partitions = dict(partitions)
        self.logs: dict[TopicPartition, list[StoredRecord]] = defaultdict(list)
        self.commits: list[Commit] = []
        self._groups: dict[str, Group] = {}
        self.on_commit: Callable[[Commit], None] = lambda commit: None
        self._news = asyncio.Event()

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), partition: int = 0
    ) -> int:
        """Stores a record and returns its offset."""
        log = self.logs[TopicPartition(topic, partition)]
        time_ms = int((EPOCH_S + self.loop.time()) * 1000)
        log.append(StoredRecord(topic, partition, len(log), time_ms, key, value, tuple(headers)))
        self._news.set()
        return len(log) - 1

    def read(self, topic: str) -> list[StoredRecord]:
        """Returns all records of a topic, by partition and offset."""
        return [record for place in sorted(self.logs) if place.topic == topic for record in self.logs[place]]

    async def wait_for_news(self, timeout_s: float) -> None:
        """Waits until a record is stored, at most `timeout_s` seconds."""
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return

    async def answer(self) -> None:
        """Waits as long as the broker needs for an answer. The client repeats a lost request, so this call raises no error."""
        await asyncio.sleep(self.choice.uniform(0.0, self.weather.longest_delay_s))
        while self.weather.is_away:  # noqa: ASYNC110  The test changes the weather without an event.
            await asyncio.sleep(0.25)

    def group(self, name: str) -> Group:
        """Returns the consumer group `name`. A new group has no members."""
        return self._groups.setdefault(name, Group(self, name))

    def list_groups(self) -> list[Group]:
        return list(self._groups.values())

    def find_offset(self, place: TopicPartition, time_ms: int) -> OffsetAndTimestamp | None:
        """Returns the offset and the time of the first record that is not older than `time_ms`, or None if there is none."""
        return next(
            (OffsetAndTimestamp(record.offset, record.timestamp) for record in self.logs[place] if record.timestamp >= time_ms), None
        )


class Group:
    """The broker's coordinator of one consumer group, with eager rebalances. `committed` holds the committed offsets."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self.name = name
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0
        self.members: list[SimulatedConsumer] = []
        self._joined: dict[SimulatedConsumer, asyncio.Future[set[TopicPartition]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, member: SimulatedConsumer) -> None:
        """Adds a member. It takes the place of a killed member with the same instance id (static membership)."""
        for other in [other for other in self.members if other.instance_id == member.instance_id]:
            self.members.remove(other)
            self._joined.pop(other, None)
        self.members.append(member)
        self.rebalance()

    def commit(self, place: TopicPartition, offset: int) -> None:
        commit = Commit(self.name, place, offset, self._broker.loop.time())
        self._broker.on_commit(commit)
        self._broker.commits.append(commit)
        self.committed[place] = offset

    def remove(self, member: SimulatedConsumer) -> None:
        if member in self.members:
            self.members.remove(member)
            self._joined.pop(member, None)
            self.rebalance()

    def rebalance(self) -> None:
        """Asks each member to join again."""
        for member in self.members:
            member.needs_join.set()
        self._end_if_complete()

    async def join(self, member: SimulatedConsumer) -> set[TopicPartition]:
        """Returns the new partitions of `member` when all members have joined, or when the others have missed the session time-out."""
        if member not in self.members:
            self.members.append(member)
        member.needs_join.clear()
        joined = self._joined[member] = self._broker.loop.create_future()
        for other in self.members:
            if other not in self._joined:
                other.needs_join.set()
        if self._timer is None:
            self._timer = self._broker.loop.call_later(SESSION_S, self._evict_absent, context=self._broker.loop.world)
        self._end_if_complete()
        partitions: set[TopicPartition] = await joined
        return partitions

    def _evict_absent(self) -> None:
        self._timer = None
        self.members = [member for member in self.members if member in self._joined]
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if not self._joined or any(member not in self._joined for member in self.members):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.generation += 1
        joined, self._joined = self._joined, {}
        shares: dict[SimulatedConsumer, set[TopicPartition]] = {member: set() for member in self.members}
        topics = sorted({topic for member in self.members for topic in member.topics})
        places = [TopicPartition(topic, number) for topic in topics for number in range(self._broker.partitions[topic])]
        for index, place in enumerate(places):
            shares[self.members[(index + self.generation) % len(self.members)]].add(place)
        for member, future in joined.items():
            if member in shares and not future.done():
                member.generation = self.generation
                future.set_result(shares[member])


class SimulatedConsumer:
    """Stands for `aiokafka.AIOKafkaConsumer`, with the attributes that Faust uses. It is also its own fetcher and coordinator."""

    def __init__(self, broker: Broker, group: Group, instance_id: str, max_poll_records: int) -> None:
        self._broker = broker
        self._group = group
        self.instance_id = instance_id
        self._max_poll_records = max_poll_records
        self._closed = False
        self._fetcher = self._coordinator = self._subscriptions = self
        self._prefetch_backoff = 0.0
        self.topics: frozenset[str] = frozenset()
        self.generation = 0
        self.needs_join = asyncio.Event()
        self._assigned: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._is_joining = False
        self._coordinating: asyncio.Task[None] | None = None
        self._metadata_snapshot = broker.partitions

    async def start(self) -> None:
        await self._broker.answer()

    async def stop(self) -> None:
        self._closed = True
        if self._coordinating is not None:
            self._coordinating.cancel()
        self._group.remove(self)

    def die(self) -> None:
        """Ends the client of a killed process. The group learns of the end after the session time-out."""
        self._broker.loop.call_later(SESSION_S, self._group.remove, self, context=self._broker.loop.world)

    def subscribe(self, topics: Iterable[str], listener: Any) -> None:
        self.topics = frozenset(topics)
        if self._coordinating is None:
            self._group.add(self)
            self._coordinating = asyncio.get_running_loop().create_task(self._coordinate(listener))

    async def _coordinate(self, listener: Any) -> None:
        """Joins the group, and joins it again at each rebalance."""
        while True:
            await self.needs_join.wait()
            await listener.on_partitions_revoked(set(self._assigned))
            await asyncio.sleep(self._broker.choice.uniform(0.0, 0.5))
            self._is_joining = True
            assigned = await self._group.join(self)
            self._assigned, self._positions, self._is_joining = assigned, {}, False
            await listener.on_partitions_assigned(set(assigned))

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def fetch_context(self) -> AbstractContextManager[None]:
        return nullcontext()

    def highwater(self, place: TopicPartition) -> int:
        return len(self._broker.logs[place])

    async def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self._broker.answer()
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self._broker.answer()
        return {place: len(self._broker.logs[place]) for place in places}

    async def offsets_for_times(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        await self._broker.answer()
        return {place: self._broker.find_offset(TopicPartition(*place), time_ms) for place, time_ms in times_ms.items()}

    async def position(self, place: TopicPartition) -> int:
        return self._positions.get(place, 0)

    def list_positions(self) -> dict[TopicPartition, int]:
        return dict(self._positions)

    async def seek_to_committed(self) -> dict[TopicPartition, int | None]:
        offsets: dict[TopicPartition, int | None] = {}
        for place in sorted(self._assigned):
            await self._broker.answer()
            offset = offsets[place] = self._group.committed.get(place)
            if offset:
                self.seek(place, offset)
        return offsets

    def seek(self, place: TopicPartition, offset: int) -> None:
        if place not in self._assigned:
            raise IllegalStateError(f"No current assignment for partition {place}")
        self._positions[TopicPartition(*place)] = offset

    async def fetched_records(
        self,
        active: Iterable[TopicPartition],
        timeout: float,  # noqa: ASYNC109  the method of aiokafka has this parameter
        max_records: int,
    ) -> dict[TopicPartition, list[StoredRecord]]:
        wanted = sorted({TopicPartition(*place) for place in active})
        give_up_s = self._broker.loop.time() + timeout
        while True:
            if not (self._is_joining or self._broker.weather.is_away):
                for place in self._broker.choice.sample(wanted, len(wanted)):
                    if place in self._assigned and (records := self._take(place, max_records)):
                        return {place: records}
            left_s = give_up_s - self._broker.loop.time()
            if left_s <= 0:
                return {}
            await self._broker.wait_for_news(min(left_s, 0.5))

    def _take(self, place: TopicPartition, most: int) -> list[StoredRecord]:
        first = self._positions.setdefault(place, self._group.committed.get(place, 0))
        records = self._broker.logs[place][first : first + most]
        self._positions[place] = first + len(records)
        return records

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commits offsets as aiokafka does: it repeats a request without an answer, and fails if the group has a new generation."""
        generation = self.generation
        for place in offsets:
            if place not in self._assigned:
                raise IllegalStateError(f"Partition {place} is not assigned")
        while True:
            await self._broker.answer()
            if generation != self._group.generation or self not in self._group.members:
                raise CommitFailedError(_FENCED)
            if self._broker.choice.random() < self._broker.weather.fail:
                continue
            for place, offset in offsets.items():
                self._group.commit(TopicPartition(*place), offset.offset)
            if self._broker.choice.random() >= self._broker.weather.lose_answer:
                return


@dataclass
class SimulatedProducer:
    """Stands for `aiokafka.AIOKafkaProducer`. Records of one partition are stored in the order of `send`, unless one of them fails."""

    broker: Broker
    client: Any = field(default_factory=SimpleNamespace)
    _due_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _pending: set[asyncio.Future[object]] = field(default_factory=set)

    async def start(self) -> None:
        await self.broker.answer()

    async def stop(self) -> None:
        await self.flush()

    async def flush(self) -> None:
        while self._pending:
            await asyncio.wait(list(self._pending))

    async def send(self, topic: str, value: bytes | None, *, key: bytes | None, headers: Sequence[tuple[str, bytes]], **_: object) -> Any:
        choice, weather, loop = self.broker.choice, self.broker.weather, self.broker.loop
        if choice.random() < weather.fail / 4:
            raise KafkaConnectionError("The connection broke before the record was sent.")
        answer: asyncio.Future[object] = loop.create_future()
        self._pending.add(answer)
        answer.add_done_callback(self._pending.discard)
        # The small distance keeps the order of two records with the same delay.
        self._due_s[topic] = max(self._due_s[topic] + 1e-6, loop.time() + choice.uniform(0.0, weather.longest_delay_s))
        loop.call_at(self._due_s[topic], self._store, topic, key, value, tuple(headers or ()), answer)
        return answer

    def _store(
        self, topic: str, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...], answer: asyncio.Future[object]
    ) -> None:
        if answer.done():
            return
        choice, weather = self.broker.choice, self.broker.weather
        if weather.is_away:
            # The client gives up when its request time-out has passed.
            self.broker.loop.call_later(5.0, _fail, answer, KafkaTimeoutError())
        elif choice.random() < weather.fail:
            _fail(answer, KafkaTimeoutError())
        else:
            self.broker.append(topic, key, value, headers)
            if choice.random() < weather.lose_answer:
                _fail(answer, RequestTimedOutError())
            else:
                answer.set_result(None)


def _fail(answer: asyncio.Future[object], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class SimulatedReader:
    """Stands for `kafka.KafkaConsumer` of a reader without a group. Its methods raise an error while the broker is away."""

    def __init__(self, broker: Broker, system: OperatingSystem) -> None:
        self._broker = broker
        self._system = system
        self._positions: dict[Any, int] = {}
        self._check()

    def _check(self) -> None:
        if self._broker.weather.is_away:
            raise ReaderConnectionError("The broker is away.")

    def assign(self, places: Iterable[Any]) -> None:
        self._positions = dict.fromkeys(places, 0)

    def partitions_for_topic(self, topic: str) -> set[int]:
        self._check()
        return {0}

    def end_offsets(self, places: Iterable[Any]) -> dict[Any, int]:
        self._check()
        return {place: len(self._broker.logs[TopicPartition(*place)]) for place in places}

    def beginning_offsets(self, places: Iterable[Any]) -> dict[Any, int]:
        self._check()
        return dict.fromkeys(places, 0)

    def offsets_for_times(self, times_ms: Mapping[Any, int]) -> dict[Any, OffsetAndTimestamp | None]:
        self._check()
        return {place: self._broker.find_offset(TopicPartition(*place), time_ms) for place, time_ms in times_ms.items()}

    def seek(self, place: Any, offset: int) -> None:
        self._positions[place] = offset

    def seek_to_beginning(self, place: Any) -> None:
        self._positions[place] = 0

    def position(self, place: Any) -> int:
        return self._positions[place]

    def poll(self, timeout_ms: int) -> dict[Any, list[StoredRecord]]:
        self._check()
        for place, position in self._positions.items():
            if records := self._broker.logs[TopicPartition(*place)][position:]:
                self._positions[place] += len(records)
                return {place: records}
        self._system.sleep(timeout_ms / 1000)
        return {}

    def close(self) -> None: ...
