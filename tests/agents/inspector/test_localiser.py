"""Heat maps of suspicious pictures: after all verdicts, the uploads first, and nothing that goes wrong harms a verdict."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from faust.types import EventT, StreamT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prometheus_client import REGISTRY

from agents.inspector.inspector import Inspector
from agents.inspector.localiser import Mapper
from agents.inspector.model_switcher import Serving
from models.inference.ensemble import Ensemble
from models.inference.heat_map import crop_to_picture, find_boxes
from models.inference.soft_vote import SoftVote
from models.registry import Version
from streams.model_choices import ALL_LINES, ModelChoices
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer
from streams.records import Finding, ModelChoice
from streams.settings import LineSettings, Settings
from streams.worker import ReceivedRecord
from tests.agents.inspector.test_model_switcher import choice, version
from tests.image_topics import make_jpeg

SIDE = 64
LINES = ("line-1", "uploads")


@dataclass
class Networks:
    """Calls every picture a defect with `sure`; `order` is what the networks' thread did, judging and explaining alike."""

    sure: float = 0.9
    order: list[str] = field(default_factory=list)
    name: str = "written down"
    max_batch: int = 32
    takes_s: float = 0

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(self.takes_s)
        self.order.extend(["judged"] * len(pixels))
        return np.full((len(pixels), 1, 2), (1 - self.sure, self.sure), np.float32)


@dataclass
class Explainer:
    """A mapper that notes when it was asked; it can be held, and breaks on purpose."""

    of: str
    order: list[str]
    may_go_on: threading.Event
    begun: threading.Event
    breaks: bool = False

    def compute_heat_map(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.begun.set()
        assert self.may_go_on.wait(10)
        self.order.append(f"explained by {self.of}")
        if self.breaks:
            raise RuntimeError("no gradient")
        heat = np.zeros(pixels.shape, np.float32)
        heat[16:24, 32:48] = 1
        return heat


class Topics(RecordProducer):
    """What was sent, by topic."""

    def __init__(self) -> None:
        self.sent: list[ProducerRecord] = []

    async def deliver(self, records: Sequence[ProducerRecord]) -> None:
        self.sent += records

    def findings(self) -> list[Finding]:
        return [Finding.decode(one.value or b"") for one in self.sent if ".findings." in one.topic]


@dataclass
class Plant:
    """A real inspector with its real batcher, decoder and delivery; its networks write down what they do."""

    inspector: Inspector
    serving: Serving
    topics: Topics
    networks: Networks
    mappers: dict[str, Explainer]
    store: ObjectStore
    may_go_on: threading.Event
    begun: threading.Event
    sent: int = 0

    async def take(self, line: str, count: int = 1, picture: bytes = make_jpeg(1)) -> None:
        """So many pictures arrive without the event loop coming to anything else meanwhile."""
        for _ in range(count):
            self.sent += 1
            record = ConsumedRecord(f"castings.images.{line}", 0, self.sent, f"{line}:1:{self.sent}".encode(), picture, {})
            broker_time = datetime.fromtimestamp(1.7e9, UTC)
            await self.inspector.accept(ReceivedRecord(record, broker_time, cast(EventT[bytes], None), cast(StreamT[bytes], self)))

    async def ack(self, _: EventT[bytes]) -> None:
        """Stands in for Faust's stream."""


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110  the inspector has no event for a test
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    folder: Path, networks: Networks, open_mapper: Callable[[Explainer], Mapper | None], **inspector: Any
) -> AsyncIterator[Plant]:
    settings = Settings.model_validate(
        {
            "lines": [LineSettings(name=line) for line in LINES],
            "batch": {"size": 8, "shapes": (8,)},
            "inspector": inspector,
            "store": {"url": str(folder)},
        }
    )
    serving = Serving(LINES, version, lambda found: Ensemble(found, networks, SoftVote.from_manifest(found.manifest)))
    serving.begin(ModelChoices("a"))
    mappers: dict[str, Explainer] = {}
    may_go_on, begun = threading.Event(), threading.Event()
    may_go_on.set()

    def opened(found: Version) -> Mapper | None:
        mappers[found.name] = Explainer(found.name, networks.order, may_go_on, begun)
        return open_mapper(mappers[found.name])

    topics, store = Topics(), ObjectStore(str(folder))
    inspector_ = Inspector(settings, serving, store, topics, opened, lambda *_: None)
    ways = (inspector_.judge_batches, inspector_.deliver_batches, inspector_.localiser.run)
    tasks = [asyncio.create_task(way()) for way in ways]
    try:
        yield Plant(inspector_, serving, topics, networks, mappers, store, may_go_on, begun)
    finally:
        may_go_on.set()
        await inspector_.drain()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        serving.stop()


def counted(name: str, line: str) -> float:
    return REGISTRY.get_sample_value(f"castline_findings{name}_total", {"line": line}) or 0.0


@pytest.mark.asyncio
async def test_maps_are_made_when_all_verdicts_are_out_the_uploads_first(tmp_path: Path) -> None:
    before = counted("_dropped", "line-1")
    async with running(tmp_path, Networks(), lambda made: made) as plant:
        await plant.take("line-1", 100)
        await plant.take("uploads", 4)
        await until(lambda: len(plant.topics.findings()) == 64 + 4)
        assert plant.networks.order == ["judged"] * 104 + ["explained by a"] * 68
        assert [found.line for found in plant.topics.findings()] == ["uploads"] * 4 + ["line-1"] * 64
        assert counted("_dropped", "line-1") == before + 36
        assert [found.part for found in plant.topics.findings()][4:] == list(range(37, 101)), "of a belt the oldest had to go"


@pytest.mark.asyncio
async def test_a_picture_that_comes_meanwhile_waits_for_one_map_at_most(tmp_path: Path) -> None:
    async with running(tmp_path, Networks(), lambda made: made) as plant:
        await until(lambda: "a" in plant.mappers)
        plant.may_go_on.clear()
        await plant.take("line-1", 5)
        await until(plant.begun.is_set)
        await plant.take("line-1", 16)
        await asyncio.sleep(0)
        plant.may_go_on.set()
        await until(lambda: len(plant.topics.findings()) == 21)
        assert plant.networks.order == ["judged"] * 5 + ["explained by a"] + ["judged"] * 16 + ["explained by a"] * 20


@pytest.mark.asyncio
async def test_lines_that_never_pause_keep_no_person_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, Networks(takes_s=0.02), lambda made: made) as plant:

        async def come_without_end() -> None:
            while True:
                await plant.take("line-1", 8)
                while len(plant.topics.sent) + 24 < plant.sent:  # noqa: ASYNC110  the inspector has no event for a test
                    await asyncio.sleep(0)

        line = asyncio.create_task(come_without_end())
        try:
            await plant.take("uploads", 2)
            await until(lambda: len(plant.topics.findings()) == 2)
        finally:
            line.cancel()
        assert [found.line for found in plant.topics.findings()] == ["uploads"] * 2
        first, second = (at for at, what in enumerate(plant.networks.order) if what != "judged")
        assert second - first > 100, "one of them every two seconds, of the lines 400 a second"


@pytest.mark.asyncio
async def test_a_good_part_is_explained_only_where_a_person_waits_for_it(tmp_path: Path) -> None:
    async with running(tmp_path, Networks(sure=0.1), lambda made: made) as plant:
        await plant.take("line-1", 3)
        await plant.take("uploads")
        await until(lambda: len(plant.topics.findings()) == 1)
        (found,) = plant.topics.findings()
        assert found.line == "uploads"


@pytest.mark.asyncio
async def test_what_cannot_be_read_is_not_explained_and_what_breaks_is_counted_and_harms_nothing(tmp_path: Path) -> None:
    before = counted("_failed", "uploads")
    async with running(tmp_path, Networks(), lambda made: made) as plant:
        await until(lambda: "a" in plant.mappers)
        plant.mappers["a"].breaks = True
        await plant.take("uploads", picture=b"no picture")
        await plant.take("uploads", 2)
        await until(lambda: counted("_failed", "uploads") == before + 2)
        plant.mappers["a"].breaks = False
        await plant.take("uploads")
        await until(lambda: len(plant.topics.findings()) == 1)
        assert [one.topic for one in plant.topics.sent].count("castings.verdicts.uploads") == 4


@pytest.mark.asyncio
async def test_a_switched_version_explains_what_it_judges(tmp_path: Path) -> None:
    async with running(tmp_path, Networks(), lambda made: made) as plant:
        await plant.take("uploads")
        await until(lambda: len(plant.topics.findings()) == 1)
        chosen: ModelChoice = choice(ALL_LINES, "b")
        plant.serving.follow(ModelChoices("a", {ALL_LINES: chosen}))
        await until(lambda: plant.serving.duties["uploads"].judge.version_name == "b")
        await plant.take("uploads")
        await until(lambda: len(plant.topics.findings()) == 2)
        assert [found.model for found in plant.topics.findings()] == ["a", "b"]
        assert plant.networks.order[-1] == "explained by b"


@pytest.mark.asyncio
async def test_a_version_without_maps_leaves_verdicts_alone(tmp_path: Path) -> None:
    async with running(tmp_path, Networks(), lambda made: None) as plant:
        await plant.take("uploads", 3)
        await until(lambda: len(plant.topics.sent) == 3 and "a" in plant.mappers)
        assert plant.topics.findings() == []


@pytest.mark.asyncio
async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    async with running(tmp_path, Networks(), lambda made: made, localise=False) as plant:
        await plant.take("uploads", 3)
        await until(lambda: len(plant.topics.sent) == 3)
        assert plant.mappers == {}


@pytest.mark.asyncio
async def test_a_finding_names_its_verdict_its_boxes_and_a_map_of_the_whole_picture(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (400, 200), "grey").save(file, "PNG")
    async with running(tmp_path, Networks(), lambda made: made) as plant:
        await plant.take("uploads", picture=file.getvalue())
        await until(lambda: len(plant.topics.findings()) == 1)
        (found,) = plant.topics.findings()
    assert f'"verdict_id":"{found.verdict_id}"'.encode() in (plant.topics.sent[0].value or b"")
    # The networks are sure to 0.9. 64 px stand for 400: the picture's 32 rows lie between two times 16 that were filled up.
    (box,) = found.boxes
    assert (box.left_px, box.top_px, box.width_px, box.height_px, box.score) == (200, 0, 100, 50, 0.9)
    shown = Image.open(io.BytesIO(plant.store.fetch(found.heat_map)), formats=("PNG",))
    assert (shown.mode, shown.size) == ("L", (64, 32))
    assert shown.getpixel((40, 4)) == 255
    assert shown.getpixel((40, 20)) == 0


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))
def test_a_box_lies_within_its_picture_whatever_its_shape(width_px: int, height_px: int, row: int, column: int) -> None:
    heat = np.zeros((SIDE, SIDE), np.float32)
    heat[row, column] = 0.8
    for area in find_boxes(crop_to_picture(heat, width_px, height_px), width_px, height_px):
        assert 0 <= area.left_px < area.left_px + area.width_px <= width_px
        assert 0 <= area.top_px < area.top_px + area.height_px <= height_px
        assert area.score == np.float32(0.8)


def test_the_hottest_box_comes_first_and_an_empty_map_has_none() -> None:
    heat = np.zeros((SIDE, SIDE), np.float32)
    assert find_boxes(heat, 300, 300) == []
    heat[2:4, 2:4], heat[50:60, 40:44], heat[20, 20] = 0.7, 1.0, 0.3
    first, second = find_boxes(heat, 128, 128)
    assert (first.left_px, first.top_px, first.width_px, first.height_px, first.score) == (80, 100, 8, 20, 1.0)
    assert (second.left_px, second.top_px) == (4, 4)
