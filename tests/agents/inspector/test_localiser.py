"""Heat maps of suspicious pictures: made after all verdicts, uploads first, and without harm to a verdict if they fail."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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

from agents.inspector.acceptance_table import AcceptanceRule, AcceptanceTable
from agents.inspector.inspector import Inspector
from agents.inspector.line_rules import LineRules
from agents.inspector.localiser import HeatMapQueue, HeatMapRequest
from agents.inspector.model_switcher import ModelSwitcher
from models.inference.ensemble import Ensemble
from models.inference.heat_map import DefectMap, crop_to_picture, find_boxes
from models.inference.heat_mapper import HeatMapper
from models.inference.soft_vote import SoftVote
from models.registry import Version
from streams.live_line_settings import LiveSettingsByLine
from streams.model_choices import ALL_LINES, ModelChoices
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer
from streams.records import Finding, LiveLineSettings, Region, RegionPoint
from streams.settings import LineSettings, Settings
from streams.worker import ReceivedRecord
from tests.agents.inspector.test_model_switcher import make_choice, make_version
from tests.fake_inspector import make_verdict
from tests.image_topics import make_jpeg

SIDE_PX = 64
LINES = ("line-1", "uploads")


@dataclass
class RecordingRuntime:
    """A runtime that gives every picture the same defect probability. `steps` lists what the threads of the networks did, in order."""

    defect_probability: float = 0.9
    steps: list[str] = field(default_factory=list)
    name: str = "recording"
    max_batch: int = 32
    duration_s: float = 0

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(self.duration_s)
        self.steps.extend(["judged"] * len(pixels))
        return np.full((len(pixels), 1, 2), (1 - self.defect_probability, self.defect_probability), np.float32)


@dataclass
class FakeHeatMapper:
    """A heat mapper that records its calls. A test can make it wait and fail."""

    version: str
    steps: list[str]
    may_go_on: threading.Event
    was_called: threading.Event
    fails: bool = False
    names_kinds: bool = False

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        self.was_called.set()
        assert self.may_go_on.wait(10)
        self.steps.append(f"explained by {self.version}")
        if self.fails:
            raise RuntimeError("no gradient")
        heat = np.zeros(pixels.shape, np.float32)
        heat[16:24, 32:48] = 1
        kinds = np.stack([heat, np.zeros_like(heat)])
        return DefectMap(heat, "segmentation", 0.5, ("blow hole", "flash"), kinds, 0.6) if self.names_kinds else DefectMap(heat, "grad-cam")


class RecordingProducer(RecordProducer):
    """Keeps the records instead of sending them."""

    def __init__(self) -> None:
        self.records: list[ProducerRecord] = []

    async def deliver(self, records: Sequence[ProducerRecord]) -> None:
        self.records += records

    def findings(self) -> list[Finding]:
        return [Finding.decode(record.value or b"") for record in self.records if ".findings." in record.topic]


def make_kind_mapper(mapper: FakeHeatMapper) -> FakeHeatMapper:
    mapper.names_kinds = True
    return mapper


@dataclass
class InspectorRig:
    """A real inspector with a fake runtime, fake heat mappers by version, and a producer that keeps the records."""

    inspector: Inspector
    switcher: ModelSwitcher
    producer: RecordingProducer
    runtime: RecordingRuntime
    mappers: dict[str, FakeHeatMapper]
    store: ObjectStore
    may_go_on: threading.Event
    was_called: threading.Event
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


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  the inspector has no event for a test
            await asyncio.sleep(0.005)


@asynccontextmanager
async def run_inspector(
    folder: Path,
    runtime: RecordingRuntime,
    choose_mapper: Callable[[FakeHeatMapper], HeatMapper | None],
    line_rules: LineRules | None = None,
    tables: Mapping[str, AcceptanceTable] | None = None,
    **inspector_settings: Any,
) -> AsyncIterator[InspectorRig]:
    settings = Settings.model_validate(
        {
            "lines": [LineSettings(name=line) for line in LINES],
            "batch": {"size": 8, "shapes": (8,)},
            "inspector": inspector_settings,
            "store": {"url": str(folder)},
        }
    )
    switcher = ModelSwitcher(LINES, make_version, lambda version: Ensemble(version, runtime, SoftVote.from_manifest(version.manifest)))
    switcher.start(ModelChoices("a"))
    mappers: dict[str, FakeHeatMapper] = {}
    may_go_on, was_called = threading.Event(), threading.Event()
    may_go_on.set()

    def open_mapper(version: Version) -> HeatMapper | None:
        mappers[version.name] = FakeHeatMapper(version.name, runtime.steps, may_go_on, was_called)
        return choose_mapper(mappers[version.name])

    producer, store = RecordingProducer(), ObjectStore(str(folder))
    inspector = Inspector(
        settings, switcher, store, producer, open_mapper, lambda *_: None, line_rules=line_rules, acceptance_tables=tables
    )
    tasks = [asyncio.create_task(run()) for run in inspector.background_tasks]
    try:
        yield InspectorRig(inspector, switcher, producer, runtime, mappers, store, may_go_on, was_called)
    finally:
        may_go_on.set()
        await inspector.drain()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        switcher.stop()


def read_counter(suffix: str, line: str) -> float:
    return REGISTRY.get_sample_value(f"castline_findings{suffix}_total", {"line": line}) or 0.0


@pytest.mark.asyncio
async def test_maps_are_made_when_all_verdicts_are_out(tmp_path: Path) -> None:
    before = read_counter("_dropped", "line-1")
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper) as rig:
        await rig.send("line-1", 100)
        await wait_until(lambda: len(rig.producer.findings()) == 64)
        assert rig.runtime.steps == ["judged"] * 100 + ["explained by a"] * 64
        assert read_counter("_dropped", "line-1") == before + 36
        assert [finding.part for finding in rig.producer.findings()] == list(range(37, 101)), "the oldest of a belt are dropped"


def make_request(line: str, part: int) -> HeatMapRequest:
    verdict = make_verdict(line, 1, part, "defect", datetime.fromtimestamp(1.7e9, UTC))
    return HeatMapRequest(verdict, np.zeros((SIDE_PX, SIDE_PX), np.uint8), make_version("a"))


def test_the_pictures_that_people_wait_for_are_explained_first() -> None:
    queue = HeatMapQueue(["uploads"], max_ordinary=2, max_awaited=2)
    order = (("line-1", 1), ("uploads", 2), ("line-1", 3), ("uploads", 4), ("line-1", 5), ("uploads", 6))
    dropped = [queue.add(make_request(line, part)) for line, part in order]
    assert [request and request.verdict.part for request in dropped] == [None, None, None, None, 1, 6]
    assert [queue.pop().verdict.part for _ in range(len(queue))] == [2, 4, 3, 5]


@pytest.mark.asyncio
async def test_a_picture_that_comes_meanwhile_waits_for_one_map_at_most(tmp_path: Path) -> None:
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper) as rig:
        await wait_until(lambda: "a" in rig.mappers)
        rig.may_go_on.clear()
        await rig.send("line-1", 5)
        await wait_until(rig.was_called.is_set)
        await rig.send("line-1", 16)
        await asyncio.sleep(0)
        rig.may_go_on.set()
        await wait_until(lambda: len(rig.producer.findings()) == 21)
        assert rig.runtime.steps == ["judged"] * 5 + ["explained by a"] + ["judged"] * 16 + ["explained by a"] * 20


@pytest.mark.asyncio
async def test_lines_that_never_pause_keep_no_person_waiting(tmp_path: Path) -> None:
    async with run_inspector(tmp_path, RecordingRuntime(duration_s=0.02), lambda mapper: mapper) as rig:

        async def send_without_pause() -> None:
            while True:
                await rig.send("line-1", 8)
                while len(rig.producer.records) + 24 < rig.sent_count:  # noqa: ASYNC110  the inspector has no event for a test
                    await asyncio.sleep(0)

        sending = asyncio.create_task(send_without_pause())
        try:
            await rig.send("uploads", 2)
            await wait_until(lambda: len(rig.producer.findings()) == 2)
        finally:
            sending.cancel()
        assert [finding.line for finding in rig.producer.findings()] == ["uploads"] * 2
        first, second = (index for index, step in enumerate(rig.runtime.steps) if step != "judged")
        assert second - first > 100, "one upload every two seconds, and 400 pictures of the line in each second"


@pytest.mark.asyncio
async def test_a_good_part_is_explained_only_if_a_person_waits_for_it(tmp_path: Path) -> None:
    async with run_inspector(tmp_path, RecordingRuntime(defect_probability=0.1), lambda mapper: mapper) as rig:
        await rig.send("line-1", 3)
        await rig.send("uploads")
        await wait_until(lambda: len(rig.producer.findings()) == 1)
        (finding,) = rig.producer.findings()
        assert finding.line == "uploads"


@pytest.mark.asyncio
async def test_an_undecodable_picture_is_not_explained_and_a_failed_map_is_counted_and_harms_nothing(tmp_path: Path) -> None:
    before = read_counter("_failed", "uploads")
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper) as rig:
        await wait_until(lambda: "a" in rig.mappers)
        rig.mappers["a"].fails = True
        await rig.send("uploads", picture=b"no picture")
        await rig.send("uploads", 2)
        await wait_until(lambda: read_counter("_failed", "uploads") == before + 2)
        rig.mappers["a"].fails = False
        await rig.send("uploads")
        await wait_until(lambda: len(rig.producer.findings()) == 1)
        assert [record.topic for record in rig.producer.records].count("castings.verdicts.uploads") == 4


@pytest.mark.asyncio
async def test_a_new_version_explains_the_pictures_that_it_has_judged(tmp_path: Path) -> None:
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper) as rig:
        await rig.send("uploads")
        await wait_until(lambda: len(rig.producer.findings()) == 1)
        rig.switcher.follow(ModelChoices("a", {ALL_LINES: make_choice(ALL_LINES, "b")}))
        await wait_until(lambda: rig.switcher.assignments["uploads"].ensemble.version_name == "b")
        await rig.send("uploads")
        await wait_until(lambda: len(rig.producer.findings()) == 2)
        assert [finding.model for finding in rig.producer.findings()] == ["a", "b"]
        assert rig.runtime.steps[-1] == "explained by b"


@pytest.mark.asyncio
async def test_a_version_without_heat_maps_still_judges(tmp_path: Path) -> None:
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: None) as rig:
        await rig.send("uploads", 3)
        await wait_until(lambda: len(rig.producer.records) == 3 and "a" in rig.mappers)
        assert rig.producer.findings() == []


@pytest.mark.asyncio
async def test_heat_maps_can_be_switched_off(tmp_path: Path) -> None:
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper, localise=False) as rig:
        await rig.send("uploads", 3)
        await wait_until(lambda: len(rig.producer.records) == 3)
        assert rig.mappers == {}


@pytest.mark.asyncio
async def test_a_finding_names_its_verdict_and_boxes_and_its_map_covers_the_whole_picture(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((400, 200)).convert("RGB").save(file, "PNG")
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper) as rig:
        await rig.send("uploads", picture=file.getvalue())
        await wait_until(lambda: len(rig.producer.findings()) == 1)
        (finding,) = rig.producer.findings()
    assert f'"verdict_id":"{finding.verdict_id}"'.encode() in (rig.producer.records[0].value or b"")
    # The defect probability is 0.9. 64 px of the networks stand for 400 px, and the picture's 32 rows lie between 16 rows of padding each.
    (box,) = finding.boxes
    assert (box.left_px, box.top_px, box.width_px, box.height_px, box.score) == (200, 0, 100, 50, 0.9)
    heat_map = Image.open(io.BytesIO(rig.store.fetch(finding.heat_map)), formats=("PNG",))
    assert (heat_map.mode, heat_map.size) == ("L", (64, 32))
    assert heat_map.getpixel((40, 4)) == 255
    assert heat_map.getpixel((40, 20)) == 0


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, SIDE_PX - 1), st.integers(0, SIDE_PX - 1))
def test_a_box_lies_within_its_picture_whatever_the_shape_of_the_picture(width_px: int, height_px: int, row: int, column: int) -> None:
    heat = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    heat[row, column] = 0.8
    for box in find_boxes(crop_to_picture(heat, width_px, height_px), width_px, height_px):
        assert 0 <= box.left_px < box.left_px + box.width_px <= width_px
        assert 0 <= box.top_px < box.top_px + box.height_px <= height_px
        assert box.score == np.float32(0.8)


def test_the_hottest_box_comes_first_and_an_empty_map_has_no_box() -> None:
    heat = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    assert find_boxes(heat, 300, 300) == []
    heat[2:4, 2:4], heat[50:60, 40:44], heat[20, 20] = 0.7, 1.0, 0.3
    first, second = find_boxes(heat, 128, 128)
    assert (first.left_px, first.top_px, first.width_px, first.height_px, first.score) == (80, 100, 8, 20, 1.0)
    assert (second.left_px, second.top_px) == (4, 4)


@pytest.mark.asyncio
async def test_a_map_shows_nothing_outside_the_regions_of_its_line(tmp_path: Path) -> None:
    """The hot area lies in the upper half of the picture, right of the middle."""
    lower_half = Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in ((0, 0.5), (1, 0.5), (1, 1), (0, 1))))
    record = LiveLineSettings(line="uploads", inspect_regions=(lower_half,), set_by="anna", set_at=datetime.fromtimestamp(1.7e9, UTC))
    rules = LineRules()
    rules.follow(LiveSettingsByLine({"uploads": record}))
    async with run_inspector(tmp_path, RecordingRuntime(), lambda mapper: mapper, line_rules=rules) as rig:
        await rig.send("uploads")
        await rig.send("line-1")
        await wait_until(lambda: len(rig.producer.findings()) == 2)
        boxes = {finding.line: len(finding.boxes) for finding in rig.producer.findings()}
    assert boxes == {"uploads": 0, "line-1": 1}


@pytest.mark.asyncio
async def test_a_finding_names_kinds_and_measures_defects_in_the_scale_of_the_line(tmp_path: Path) -> None:
    """The hot area has 8 x 16 of the 64 x 64 px that the networks see. They stand for 400 px, so it is 50 x 100 px large."""
    rules = LineRules()
    record = LiveLineSettings(line="uploads", mm_per_px=0.5, set_by="anna", set_at=datetime.fromtimestamp(1.7e9, UTC))
    rules.follow(LiveSettingsByLine({"uploads": record}))
    rule = AcceptanceRule(name="gas porosity, C 2", kinds=("blow hole",), max_length_mm=40)
    tables = {line: AcceptanceTable(name="impeller", other_kinds="rejected", rules=(rule,)) for line in LINES}
    picture = make_jpeg(1, 400)
    async with run_inspector(tmp_path, RecordingRuntime(), make_kind_mapper, rules, tables) as rig:
        await rig.send("uploads", picture=picture)
        await rig.send("line-1", picture=picture)
        await wait_until(lambda: len(rig.producer.findings()) == 2)
        measured, unmeasured = rig.producer.findings()
    assert measured.method == "segmentation"
    (box,) = measured.boxes
    assert (box.kind, box.area_mm2) == ("blow hole", 50 * 100 / 4)
    assert box.length_mm == pytest.approx(np.hypot(25, 50), rel=0.01)
    assert measured.acceptance is not None
    assert (measured.acceptance.result, measured.acceptance.rules) == (
        "rejected",
        ("gas porosity, C 2: a defect is 55.9 mm long, at most 40 allowed.",),
    )
    assert unmeasured.boxes[0].length_mm is None
    assert unmeasured.acceptance is not None
    assert unmeasured.acceptance.result == "not-graded"
