"""The partitions whose lag a worker shows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from faust.types import TP

from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.topics import TopicNames
from streams.worker import ConsumerGroup, ReceivedRecord, make_app
from tests.conftest import MakeSettings


class _Handler:
    background_tasks = ()

    def __init__(self, topic: str) -> None:
        self.lines_by_topic = {topic: "line-1"}

    async def accept(self, received: ReceivedRecord) -> None:
        await received.acknowledge()

    async def drain(self) -> None:
        pass


def test_a_worker_without_its_database_still_shows_the_lag_of_its_partitions(make_settings: MakeSettings) -> None:
    settings = make_settings()
    topic = TopicNames(settings.topics.prefix).images("line-1")
    health = ProcessHealth("archivist", ProgressWatchdog(30))

    async def check() -> None:
        identity = make_identity(settings, "archivist", "archivist-1")
        group = ConsumerGroup(make_app(settings, identity, 64), identity, _Handler(topic), settings, "archivist", health)
        assert group._assigned_partitions() == set(), "Faust has not started, so there are no partitions"
        group.app.consumer = SimpleNamespace(assignment=lambda: {TP(topic, 0)})
        group.has_partitions.set()
        health.set_ready()
        health.set_problem("The database does not answer.", "database")
        assert group._assigned_partitions() == {(topic, 0)}

    asyncio.run(check())
