"""A simulated Kafka broker with one consumer group, and the two clients of aiokafka that Castline's workers use.

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
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.virtual_loop import VirtualLoop

# The broker removes a member that does not rejoin within this time, or that died this long ago.
SESSION_S = 10.0
_FENCED = "Commit cannot be completed since the group has already rebalanced and may have assigned the partitions to another member"
# The Kafka time of the first records, in seconds since 1970.
_EPOCH_S = 1.76e9


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
    """A committed offset, and the virtual time of the commit."""

    place: TopicPartition
    offset: int
    at_s: float


class Broker:
    """The records, the committed offsets and the members of one consumer group. `on_commit` is called before each commit."""

    def __init__(self, loop: VirtualLoop, partitions: Mapping[str, int]) -> None:
        self.loop = loop
        self.choice = random.Random(loop.choice.random())
        self.weather = Weather()
        self.partitions = dict(partitions)
        self.logs: dict[TopicPartition, list[StoredRecord]] = defaultdict(list)
        self.committed: dict[TopicPartition, int] = {}
        self.commits: list[Commit] = []
        self.group = Group(self)
        self.on_commit: Callable[[Commit], None] = lambda commit: None
        self._news = asyncio.Event()

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), partition: int = 0
    ) -> int:
        """Stores a record and returns its offset."""
        log = self.logs[TopicPartition(topic, partition)]
        time_ms = int((_EPOCH_S + self.loop.time()) * 1000)
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

    def commit(self, place: TopicPartition, offset: int) -> None:
        commit = Commit(place, offset, self.loop.time())
        self.on_commit(commit)
        self.commits.append(commit)
        self.committed[place] = offset


class Group:
    """The broker's coordinator of one consumer group, with eager rebalances."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.generation = 0
        self.members: list[SimulatedConsumer] = []
        self._joined: dict[SimulatedConsumer, asyncio.Future[set[TopicPartition]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, member: SimulatedConsumer) -> None:
        self.members.append(member)
        self.rebalance()

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
            self._timer = self._broker.loop.call_later(SESSION_S, self._evict_absent)
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

    def __init__(self, broker: Broker, max_poll_records: int) -> None:
        self._broker = broker
        self._max_poll_records = max_poll_records
        self._closed = False
        self._fetcher = self._coordinator = self._subscriptions = self
        self._prefetch_backoff = 0.0
        self.topics: frozenset[str] = frozenset()
        self.generation = 0
        self.needs_join = asyncio.Event()
        self.is_dead = False
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
        self._broker.group.remove(self)

    async def die(self) -> None:
        """Ends the client as a killed process does. The group learns of the end after the session time-out."""
        self.is_dead = True
        if self._coordinating is not None:
            self._coordinating.cancel()
        await asyncio.sleep(SESSION_S)
        self._broker.group.remove(self)

    def subscribe(self, topics: Iterable[str], listener: Any) -> None:
        self.topics = frozenset(topics)
        if self._coordinating is None:
            self._broker.group.add(self)
            self._coordinating = asyncio.get_running_loop().create_task(self._coordinate(listener))

    async def _coordinate(self, listener: Any) -> None:
        """Joins the group, and joins it again at each rebalance."""
        while True:
            await self.needs_join.wait()
            await listener.on_partitions_revoked(set(self._assigned))
            await asyncio.sleep(self._broker.choice.uniform(0.0, 0.5))
            self._is_joining = True
            assigned = await self._broker.group.join(self)
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

    async def position(self, place: TopicPartition) -> int:
        return self._positions.get(place, 0)

    async def seek_to_committed(self) -> dict[TopicPartition, int | None]:
        offsets: dict[TopicPartition, int | None] = {}
        for place in sorted(self._assigned):
            await self._broker.answer()
            offset = offsets[place] = self._broker.committed.get(place)
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
            if not (self.is_dead or self._is_joining or self._broker.weather.is_away):
                for place in self._broker.choice.sample(wanted, len(wanted)):
                    if place in self._assigned and (records := self._take(place, max_records)):
                        return {place: records}
            left_s = give_up_s - self._broker.loop.time()
            if left_s <= 0:
                return {}
            await self._broker.wait_for_news(min(left_s, 0.25))

    def _take(self, place: TopicPartition, most: int) -> list[StoredRecord]:
        first = self._positions.setdefault(place, self._broker.committed.get(place, 0))
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
            if self.is_dead:
                await asyncio.Event().wait()
            if generation != self._broker.group.generation or self not in self._broker.group.members:
                raise CommitFailedError(_FENCED)
            if self._broker.choice.random() < self._broker.weather.fail:
                continue
            for place, offset in offsets.items():
                self._broker.commit(TopicPartition(*place), offset.offset)
            if self._broker.choice.random() >= self._broker.weather.lose_answer:
                return


@dataclass
class SimulatedProducer:
    """Stands for `aiokafka.AIOKafkaProducer`. Records of one partition are stored in the order of `send`, unless one of them fails."""

    broker: Broker
    is_dead: bool = False
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
        if self.is_dead or answer.done():
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
