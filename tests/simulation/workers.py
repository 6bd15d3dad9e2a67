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
from streams.consumed_offsets import CheckedConsumer
from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.object_store import ObjectStore
from streams.record_memory import BoundedConsumerThread
from streams.record_producer import RecordProducer
from streams.settings import Settings
from streams.worker import ConsumerGroup, ReceivedRecord, make_app
from tests.agents.inspector.inspector_rig import RecordingRuntime, make_switcher
from tests.simulation.broker import Broker, SimulatedConsumer, SimulatedProducer
from tests.simulation.virtual_processes import VirtualProcess


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
        conf, broker = self.app.conf, self.transport.broker
        return SimulatedConsumer(broker, broker.group(conf.id), conf.consumer_group_instance_id, conf.broker_max_poll_records)

    async def _find_positions(self) -> dict[Any, tuple[int, int | None]]:
        positions = {} if self._consumer is None else self._consumer.list_positions()
        return {place: (position, self.last_taken.get(place)) for place, position in positions.items()}

    def verify_event_path(self, now: float, tp: object) -> None:
        """Does nothing, because the simulation itself notices commits that stop."""


class _SimulatedFaustConsumer(CheckedConsumer):
    def _new_consumer_thread(self) -> _ThreadInLoop:
        return _ThreadInLoop(self, loop=self.loop, beacon=self.beacon)


class _SimulatedFaustProducer(Producer):  # type: ignore[misc]  # Faust ships no types
    def _new_producer(self, transactional_id: str | None = None) -> SimulatedProducer:
        return SimulatedProducer(self.app.transport.broker)


def connect_app(app: AppT[object], broker: Broker) -> None:
    """Makes the Faust application `app` use the simulated broker. Its transport stays the same, such as that of a `RecentStart`."""
    transport = app.transport
    transport.broker = broker
    transport.Consumer = type("SimulatedConsumer", (_SimulatedFaustConsumer, transport.Consumer), {})
    transport.Producer = _SimulatedFaustProducer


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
        self,
        number: int,
        settings: Settings,
        broker: Broker,
        switcher: ModelSwitcher,
        on_accept: Callable[[SimulatedWorker, ReceivedRecord], None] = lambda worker, received: None,
    ) -> None:
        self.number = number
        self.is_gone = False
        self.has_ended = False
        self._switcher = switcher
        self._process = VirtualProcess(broker.loop, f"inspector {number}")
        self._process.call(self._build, settings, broker, on_accept)

    def _build(self, settings: Settings, broker: Broker, on_accept: Callable[[SimulatedWorker, ReceivedRecord], None]) -> None:
        identity = make_identity(settings, "inspector", str(self.number))
        self.app: AppT[object] = make_app(settings, identity, 16)
        connect_app(self.app, broker)
        producer = RecordProducer(self.app, settings, "inspector", lambda problem: None)
        self.inspector = _WatchedInspector(settings, self._switcher, ObjectStore(settings.store.url), producer, lambda *_: None)
        self.inspector.on_accept = lambda received: on_accept(self, received)
        health = ProcessHealth("inspector", ProgressWatchdog(30))
        self.group = ConsumerGroup(self.app, identity, self.inspector, settings, "inspector", health, self.inspector.report_expired)

    @property
    def client(self) -> SimulatedConsumer | None:
        consumer: SimulatedConsumer | None = self.app.consumer._thread._consumer
        return consumer

    @property
    def is_ready(self) -> bool:
        return self.group.has_tasks.is_set() and not self.is_gone

    @property
    def has_crashed(self) -> bool:
        return self.app.crash_reason is not None

    def start(self) -> None:
        self._process.run(self.app.start())

    def stop(self) -> None:
        """Ends the worker as the supervisor does: it finishes its records, commits and leaves the group."""
        self.is_gone = True
        self._process.run(self._drain_and_stop())

    async def _drain_and_stop(self) -> None:
        await self.group.drain()
        await self.app.consumer.commit()
        await self.app.stop()
        self.has_ended = True

    def kill(self) -> None:
        """Ends the worker as kill -9 does."""
        self.is_gone = self.has_ended = True
        if self.app.consumer is not None and self.client is not None:
            self.client.die()
        self._process.kill()


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
            "kafka": {"bootstrap": "simulated:9092"},
            "store": {"url": str(folder)},
            "service": {"run_dir": folder},
        }
    )
