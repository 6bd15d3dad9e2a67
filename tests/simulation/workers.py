"""Runs the real inspectors of one consumer group, with Faust, on the simulated broker."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from faust.transport.drivers.aiokafka import Producer
from faust.types import AppT

from agents.inspector.inspector import Inspector
from agents.inspector.model_switcher import ModelSwitcher
from streams.consumed_offsets import CheckedConsumer, CheckedTransport, set_transport
from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.object_store import ObjectStore
from streams.record_memory import BoundedConsumerThread
from streams.record_producer import RecordProducer
from streams.settings import Settings
from streams.worker import ConsumerGroup, ReceivedRecord, make_app
from tests.agents.inspector.inspector_rig import RecordingRuntime, make_switcher
from tests.simulation.broker import Broker, SimulatedConsumer, SimulatedProducer


class _ThreadInLoop(BoundedConsumerThread):
    """Faust's thread for the Kafka client. The simulation runs its calls in the event loop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, thread_loop=asyncio.get_running_loop(), **options)

    async def start(self) -> None:
        self._thread_started.set()
        await self.on_start()

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        result = fun(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> SimulatedConsumer:
        return SimulatedConsumer(self.transport.broker, self.app.conf.broker_max_poll_records)

    def verify_event_path(self, now: float, tp: object) -> None:
        """Does nothing, because the simulation itself notices commits that stop."""


class _SimulatedFaustConsumer(CheckedConsumer):
    def _new_consumer_thread(self) -> _ThreadInLoop:
        return _ThreadInLoop(self, loop=self.loop, beacon=self.beacon)


class _SimulatedFaustProducer(Producer):  # type: ignore[misc]  # Faust ships no types
    def _new_producer(self, transactional_id: str | None = None) -> SimulatedProducer:
        return SimulatedProducer(self.app.transport.broker)


class _SimulatedTransport(CheckedTransport):
    broker: Broker
    Consumer = _SimulatedFaustConsumer
    Producer = _SimulatedFaustProducer


class _WatchedInspector(Inspector):
    """Notes each record that Faust passes to the inspector."""

    on_accept: Callable[[ReceivedRecord], None]

    async def accept(self, received: ReceivedRecord) -> None:
        self.on_accept(received)
        await super().accept(received)


LINES = ("line-1", "line-2")


class SimulatedWorker:
    """A process of the inspector: the Faust app, the consumer group and the inspector are the real ones."""

    def __init__(
        self, number: int, settings: Settings, broker: Broker, on_accept: Callable[[SimulatedWorker, ReceivedRecord], None]
    ) -> None:
        self.number = number
        self.is_gone = False
        identity = make_identity(settings, "inspector", str(number))
        self.app: AppT[object] = make_app(settings, identity, 16)
        transport = set_transport(self.app, _SimulatedTransport)
        transport.broker = broker
        producer = RecordProducer(self.app, settings, "inspector", lambda problem: None)
        self.inspector = _WatchedInspector(settings, get_switcher(), ObjectStore(settings.store.url), producer, lambda *_: None)
        self.inspector.on_accept = lambda received: on_accept(self, received)
        health = ProcessHealth("inspector", ProgressWatchdog(30))
        self.group = ConsumerGroup(self.app, identity, self.inspector, settings, "inspector", health, self.inspector.report_expired)

    @property
    def client(self) -> SimulatedConsumer | None:
        consumer: SimulatedConsumer | None = self.app.consumer._thread._consumer
        return consumer

    async def start(self) -> None:
        await self.app.start()

    async def stop(self) -> None:
        """Ends the worker as the supervisor does: it finishes its records, commits and leaves the group."""
        self.is_gone = True
        await self.group.drain()
        await self.app.consumer.commit()
        await self.app.stop()

    async def kill(self) -> None:
        """Ends the worker as kill -9 does. Nothing that the worker sends from now on reaches the broker."""
        self.is_gone = True
        if self.app.producer._producer is not None:
            self.app.producer._producer.is_dead = True
        if self.client is not None:
            await self.client.die()


@cache
def get_switcher() -> ModelSwitcher:
    """Returns the switcher that all workers share, because its start takes longer than a whole seed."""
    return make_switcher(LINES, RecordingRuntime())


@cache
def make_settings(folder: Path, image_partitions: int) -> Settings:
    return Settings.model_validate(
        {
            "lines": [{"name": line} for line in LINES],
            "batch": {"size": 4, "shapes": (1, 2, 4), "max_wait_s": 0.05},
            "inspector": {"buffer": 8},
            "topics": {"image_partitions": image_partitions},
            "store": {"url": str(folder)},
            "service": {"run_dir": folder},
        }
    )
