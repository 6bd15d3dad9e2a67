"""Runs a real inspector in tests, with a fake runtime and a producer that keeps the records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from faust.types import EventT, StreamT

from agents.inspector.inspector import Inspector
from agents.inspector.model_switcher import ModelSwitcher
from models.inference.ensemble import Ensemble
from models.inference.soft_vote import SoftVote
from streams.model_choices import ModelChoices
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer
from streams.settings import LineSettings, Settings
from streams.worker import ReceivedRecord
from tests.agents.inspector.test_model_switcher import make_version
from tests.image_topics import make_jpeg

LINES = ("line-1", "uploads")


@dataclass
class RecordingRuntime:
    """A runtime that gives every picture the same defect probability."""

    defect_probability: float = 0.9
    name: str = "recording"
    max_batch: int = 32

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.full((len(pixels), 1, 2), (1 - self.defect_probability, self.defect_probability), np.float32)


class RecordingProducer(RecordProducer):
    """Keeps the records instead of sending them. Reports those with a key in `refused_keys` as refused."""

    def __init__(self) -> None:
        self.records: list[ProducerRecord] = []
        self.refused_keys: set[bytes | None] = set()

    async def deliver(self, records: Sequence[ProducerRecord]) -> list[ProducerRecord]:
        self.records += records
        return [record for record in records if record.key in self.refused_keys]


@dataclass
class InspectorRig:
    """A real inspector with a fake runtime, and a producer that keeps the records."""

    inspector: Inspector
    producer: RecordingProducer
    sent_count: int = 0

    async def send(self, line: str, count: int = 1, picture: bytes = make_jpeg(1)) -> None:
        """Passes pictures to the inspector, without letting the event loop run anything else in between."""
        for _ in range(count):
            self.sent_count += 1
            key = f"{line}:1:{self.sent_count}".encode()
            record = ConsumedRecord(f"castings.images.{line}", 0, self.sent_count, key, picture, {})
            broker_time = datetime.fromtimestamp(1.7e9, UTC)
            await self.inspector.accept(ReceivedRecord(record, broker_time, cast(EventT[bytes], None), cast(StreamT[bytes], self)))

    async def ack(self, _: EventT[bytes]) -> None:
        """Stands in for the acknowledgement of Faust's stream."""


def make_switcher(lines: Sequence[str], runtime: RecordingRuntime) -> ModelSwitcher:
    """Returns a started switcher. The version `a` judges all `lines` with `runtime`."""
    switcher = ModelSwitcher(lines, make_version, lambda version: Ensemble(version, runtime, SoftVote.from_manifest(version.manifest)))
    switcher.start(ModelChoices("a"))
    return switcher


@asynccontextmanager
async def run_inspector(
    folder: Path,
    runtime: RecordingRuntime,
    producer: RecordProducer | None = None,
    parallel_batches: int = 1,
    **inspector_settings: Any,
) -> AsyncIterator[InspectorRig]:
    """Runs an inspector. Its records go to `producer`, or to the producer of the rig if `producer` is None."""
    settings = Settings.model_validate(
        {
            "lines": [LineSettings(name=line) for line in LINES],
            "batch": {"size": 8, "shapes": (8,)},
            "inspector": inspector_settings,
            "store": {"url": str(folder)},
        }
    )
    switcher = make_switcher(LINES, runtime)
    recorder = RecordingProducer()
    inspector = Inspector(settings, switcher, ObjectStore(str(folder)), producer or recorder, lambda *_: None, parallel_batches)
    tasks = [asyncio.create_task(run()) for run in inspector.background_tasks]
    try:
        yield InspectorRig(inspector, recorder)
    finally:
        await inspector.drain()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        switcher.stop()
