"""One seed of the inspectors: pictures, failures of Kafka, rebalances and killed workers, and then the check of every casting."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import TopicPartition

from streams.group_members import make_identity
from streams.topics import TopicNames
from streams.worker import ReceivedRecord
from tests.image_topics import make_jpeg
from tests.simulation.broker import Broker, Commit, Weather
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.workers import LINES, SimulatedWorker, get_switcher, make_settings

_GOOD, _BROKEN = make_jpeg(1, 32), b"no picture"
# After the last failure, every picture must be judged and committed within this time in virtual seconds.
_SETTLE_S = 120.0


@dataclass
class SeedResult:
    """What one seed did. `faults` are sentences, and `trace` is a checksum of everything that the broker stored."""

    seed: int
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    trace: str = ""


class InspectorHours:
    """The plant of one seed: two lines, up to four inspectors and the simulated broker."""

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop) -> None:
        self.result = SeedResult(seed)
        self._choice = random.Random(loop.choice.random())
        self._loop = loop
        self._settings = make_settings(folder, self._choice.choice((1, 2, 3)))
        self._names = TopicNames(self._settings.topics.prefix)
        partitions = {self._names.images(line): self._settings.topics.image_partitions for line in LINES}
        self.broker = Broker(loop, partitions)
        self._group = self.broker.group(make_identity(self._settings, "inspector", "1").group)
        self.broker.on_commit = self._check_commit
        self.workers: list[SimulatedWorker] = []
        # The parts that have a verdict or a dead letter on the broker, and how many records of the two topics were read.
        self._answered: set[bytes] = set()
        self._read_counts: dict[str, int] = defaultdict(int)
        self._highest_commits: dict[TopicPartition, int] = defaultdict(int)
        # The offset that Faust must pass next, by worker, generation of the group and partition.
        self._next_offsets: dict[tuple[int, int, TopicPartition], int] = {}

    async def run(self) -> None:
        self._add_worker()
        camera = asyncio.create_task(self._send_pictures())
        while not camera.done():
            await asyncio.sleep(self._choice.uniform(0.2, 6.0))
            self._choose_event()()
            self._restart_crashed()
        self.broker.weather = Weather()
        await self._settle()
        self._check_outputs()
        self.result.trace = self._make_trace()

    # What happens

    async def _send_pictures(self) -> None:
        for part in range(1, self._choice.randint(20, 60)):
            await asyncio.sleep(self._choice.expovariate(3.0))
            line, value = self._choice.choice(LINES), _BROKEN if self._choice.random() < 0.08 else _GOOD
            key = b"no part %d" % part if self._choice.random() < 0.05 else f"{line}:1:{part}".encode()
            partition = self._choice.randrange(self._settings.topics.image_partitions)
            self.broker.append(self._names.images(line), key, value, partition=partition)

    def _choose_event(self) -> Callable[[], None]:
        events = (self._add_worker, self._stop_worker, self._kill_worker, self._rebalance, self._rebalance_twice, self._change_weather)
        return self._choice.choices(events, weights=(2, 1, 1, 2, 1, 4))[0]

    def _add_worker(self) -> None:
        if len(self._running) < 4:
            worker = SimulatedWorker(len(self.workers) + 1, self._settings, self.broker, get_switcher(), self._check_order)
            self.workers.append(worker)
            worker.start()
            self.result.counts["workers"] += 1

    def _stop_worker(self) -> None:
        self._end_worker("stopped", SimulatedWorker.stop)

    def _kill_worker(self) -> None:
        self._end_worker("killed", SimulatedWorker.kill)

    def _end_worker(self, kind: str, end: Callable[[SimulatedWorker], object]) -> None:
        ready = [worker for worker in self._running if worker.group.has_tasks.is_set()]
        if len(self._running) > 1 and ready:
            worker = self._choice.choice(ready)
            end(worker)
            self.result.counts[kind] += 1

    def _rebalance(self) -> None:
        self._group.rebalance()
        self.result.counts["rebalances"] += 1

    def _rebalance_twice(self) -> None:
        """Asks for a second rebalance while the workers still handle the first one."""
        self._rebalance()
        self._loop.call_later(self._choice.uniform(0.0, 1.0), self._rebalance)

    def _change_weather(self) -> None:
        choice = self._choice
        self.broker.weather = choice.choice(
            (
                Weather(),
                Weather(fail=choice.uniform(0.0, 0.6), longest_delay_s=choice.uniform(0.01, 1.0)),
                Weather(lose_answer=choice.uniform(0.0, 0.5), longest_delay_s=choice.uniform(0.01, 1.0)),
                Weather(is_away=True),
            )
        )
        self.result.counts["changes of the weather"] += 1

    def _restart_crashed(self) -> None:
        """Does what the supervisor does: a worker that has crashed is ended, and another one is started."""
        for worker in self._running:
            if worker.has_crashed:
                self.result.counts["crashed"] += 1
                worker.kill()
                self._add_worker()

    @property
    def _running(self) -> list[SimulatedWorker]:
        return [worker for worker in self.workers if not worker.is_gone]

    # What must hold

    async def _settle(self) -> None:
        """Waits until all pictures are committed. Reports a fault if this takes too long."""
        give_up_s = self._loop.time() + _SETTLE_S
        while uncommitted := self._list_uncommitted():
            if self._loop.time() > give_up_s:
                self.result.faults.append(f"Commits stopped: {'; '.join(uncommitted)}.")
                return
            await asyncio.sleep(1.0)
            self._restart_crashed()

    def _list_uncommitted(self) -> list[str]:
        return [
            f"{place.topic}/{place.partition} has {len(log)} records and the committed offset {self._group.committed.get(place)}"
            for place, log in sorted(self.broker.logs.items())
            if place.topic in self.broker.partitions and self._group.committed.get(place, 0) != len(log)
        ]

    def _check_order(self, worker: SimulatedWorker, received: ReceivedRecord) -> None:
        """Faust must leave out no record that is not committed (Faust's issue 221). Repeated records do no harm."""
        record = received.record
        place = TopicPartition(record.topic, record.partition)
        assert worker.client is not None
        key = (worker.number, worker.client.generation, place)
        latest = max(self._next_offsets.get(key, 0), self._highest_commits[place])
        if record.offset > latest:
            self.result.faults.append(f"Worker {worker.number} got offset {record.offset} of {place} before offset {latest}.")
        self._next_offsets[key] = record.offset + 1
        self.result.counts["records passed"] += 1

    def _check_commit(self, commit: Commit) -> None:
        """A committed record must have its verdict or dead letter on the broker. A commit may go back, which only repeats work."""
        previous = self._group.committed.get(commit.place, 0)
        self.result.counts["commits that went back"] += commit.offset < previous
        self._highest_commits[commit.place] = max(self._highest_commits[commit.place], commit.offset)
        self._read_answers()
        for record in self.broker.logs[commit.place][previous : commit.offset]:
            if (record.key or b"") not in self._answered:
                self.result.faults.append(f"{commit.place}, offset {record.offset}: committed before its verdict or dead letter.")

    def _read_answers(self) -> None:
        """Adds the keys of the newest verdicts and dead letters to `_answered`."""
        for topic in (*map(self._names.verdicts, LINES), self._names.dead_letters):
            log = self.broker.logs[TopicPartition(topic, 0)]
            self._answered |= {record.key or b"" for record in log[self._read_counts[topic] :]}
            self._read_counts[topic] = len(log)

    def _check_outputs(self) -> None:
        """Checks that each picture has one verdict, or a dead letter if it names no part. Repeated verdicts must be equal."""
        verdicts: dict[bytes, list[str]] = defaultdict(list)
        for line in LINES:
            for record in self.broker.read(self._names.verdicts(line)):
                verdicts[record.key or b""].append(json.loads(record.value or b"")["verdict_id"])
        letters = Counter(record.key or b"" for record in self.broker.read(self._names.dead_letters))
        for line in LINES:
            for record in self.broker.read(self._names.images(line)):
                self._check_picture(record.key or b"", record.value == _BROKEN, verdicts, letters)
        unexpected = set(verdicts) - {record.key for line in LINES for record in self.broker.read(self._names.images(line))}
        self.result.faults += [f"{key!r} has a verdict and no picture." for key in sorted(unexpected)]
        self.result.faults += [f"The event loop reported: {error}" for error in self._loop.unhandled]

    def _check_picture(self, key: bytes, is_broken: bool, verdicts: dict[bytes, list[str]], letters: Counter[bytes]) -> None:
        names_part = not key.startswith(b"no part")
        ids = verdicts.get(key, [])
        self.result.counts["pictures"] += 1
        self.result.counts["repeated verdicts"] += max(0, len(ids) - 1)
        if len(set(ids)) != (1 if names_part else 0):
            self.result.faults.append(f"{key!r} has {len(set(ids))} different verdicts.")
        if (is_broken or not names_part) and not letters[key]:
            self.result.faults.append(f"{key!r} has no dead letter.")

    def _make_trace(self) -> str:
        """Returns a checksum of the keys of all records and of all commits, in their order."""
        stored = [(tuple(place), record.offset, record.key) for place in sorted(self.broker.logs) for record in self.broker.logs[place]]
        commits = [(tuple(commit.place), commit.offset, round(commit.at_s, 6)) for commit in self.broker.commits]
        return hashlib.sha256(repr((stored, commits)).encode()).hexdigest()[:16]


def run_inspector_hours(seed: int, folder: Path) -> SeedResult:
    """Runs one seed and returns what it found."""
    loop = VirtualLoop(seed)
    asyncio.set_event_loop(loop)
    plant = InspectorHours(seed, folder, loop)
    try:
        loop.run_until_complete(plant.run())
    finally:
        loop.end()
    return plant.result
