"""Heat maps of suspicious parts: whose come first, who gets none, and that no verdict is acknowledged before its finding is out."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from faust.types import EventT, StreamT
from PIL import Image
from prometheus_client import REGISTRY

from agents.localiser import localiser as localiser_module
from agents.localiser.acceptance_table import AcceptanceRule, AcceptanceTable
from agents.localiser.localiser import HeatMapQueue, HeatMapRequest, Localiser, PendingVerdict, PlantChoices, make_finding
from models.inference.defect_locator import DefectLocator
from models.inference.heat_map import DefectMap, HeatBox
from streams.errors import ModelError
from streams.live_line_settings import LiveSettingsByLine
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord, RecordProducer
from streams.records import Finding, ImageReference, LiveLineSettings, Region, RegionPoint, Verdict
from streams.settings import LineSettings, Settings
from streams.worker import ReceivedRecord
from tests.agents.inspector.inspector_rig import RecordingProducer
from tests.event_loop import wait_until
from tests.fake_inspector import make_verdict
from tests.image_topics import make_jpeg

SIDE_PX = 64
LINES = ("line-1", "uploads")
JPEG = make_jpeg(1)
CAPTURED_AT = datetime.fromtimestamp(1.7e9, UTC)


@dataclass
class FakePictures:
    """Kafka's image topics: every offset holds `picture`. While `is_away` is True, Kafka does not answer."""

    picture: bytes = JPEG
    is_away: bool = False
    headers: dict[str, bytes] = field(default_factory=dict)
    reads: int = 0

    def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        self.reads += 1
        if self.is_away:
            raise ConnectionError("no broker")
        key = f"{topic.removeprefix('castings.images.')}:1:{offset}".encode()
        return ConsumedRecord(topic, partition, offset, key, b"" if self.headers else self.picture, self.headers) if offset < 900 else None

    def close(self) -> None: ...


@dataclass
class FakeHeatMapper:
    """Sees one defect in the upper half of each picture, right of the middle, or `spots` small ones. A test can make it wait and fail."""

    may_go_on: threading.Event
    fails: bool = False
    names_kinds: bool = False
    spots: int = 0

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        assert self.may_go_on.wait(10)
        if self.fails:
            raise RuntimeError("no gradient")
        heat = np.zeros(pixels.shape, np.float32)
        heat[16:24, 32:48] = 0 if self.spots else 1
        heat[::4, ::4].flat[: self.spots] = 1
        kinds = np.stack([heat, np.zeros_like(heat)])
        return DefectMap(heat, "segmentation", 0.5, ("blow hole", "flash"), kinds, 0.6) if self.names_kinds else DefectMap(heat, "grad-cam")


@dataclass
class LocaliserRig:
    """A real localiser with fake pictures and heat mappers. It keeps the findings, the acknowledged parts and the reported problems."""

    pictures: FakePictures
    producer: RecordingProducer
    store: ObjectStore
    localiser: Localiser = field(init=False)
    may_go_on: threading.Event = field(default_factory=threading.Event)
    mappers: dict[str, FakeHeatMapper] = field(default_factory=dict)
    acknowledged: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    names_kinds: bool = False
    spots: int = 0
    progress_count: int = 0
    are_processors_free: bool = True

    def open_version(self, name: str) -> DefectLocator | None:
        if name == "missing":
            raise ModelError("There is no version missing.")
        if name == "lenet-only":
            return None
        self.mappers[name] = FakeHeatMapper(self.may_go_on, names_kinds=self.names_kinds, spots=self.spots)
        return DefectLocator(self.mappers[name], SIDE_PX)

    def record_progress(self) -> None:
        self.progress_count += 1

    async def send(self, line: str, part: int, label: Any = "defect", **given: Any) -> None:
        """Passes a verdict to the localiser. `given` replaces fields of the verdict."""
        await self.send_value(line, part, _make_verdict(line, part, label, self.pictures.picture, **given).encode())

    async def send_value(self, line: str, part: int, value: bytes, age: timedelta = timedelta()) -> None:
        record = ConsumedRecord(f"castings.verdicts.{line}", 0, part, f"{line}:1:{part}".encode(), value, {})
        event = cast(EventT[bytes], part)
        await self.localiser.accept(ReceivedRecord(record, datetime.now(UTC) - age, event, cast(StreamT[bytes], self)))

    async def ack(self, event: EventT[bytes]) -> None:
        """Stands in for the acknowledgement of Faust's stream."""
        self.acknowledged.append(cast(int, event))

    @property
    def findings(self) -> list[Finding]:
        return [Finding.decode(record.value or b"") for record in self.producer.records]

    @property
    def explained(self) -> list[int]:
        return [finding.part for finding in self.findings]


def _make_verdict(line: str, part: int, label: Any, picture: bytes = JPEG, **given: Any) -> Verdict:
    with Image.open(io.BytesIO(picture)) as image:
        width_px, height_px = image.size
    reference = ImageReference(
        topic=f"castings.images.{line}",
        partition=0,
        offset=part,
        sha256=hashlib.sha256(picture).hexdigest(),
        width_px=width_px,
        height_px=height_px,
    )
    values = {"image": reference, "votes": {"alexnet": 0.9}, "model": "a"} | given
    return make_verdict(line, 1, part, label, CAPTURED_AT).model_copy(update=values)


@asynccontextmanager
async def run_localiser(
    folder: Path,
    choices: PlantChoices | None = None,
    picture: bytes = JPEG,
    tables: Mapping[str, AcceptanceTable] = MappingProxyType({}),
    names_kinds: bool = False,
    spots: int = 0,
    producer: RecordProducer | None = None,
) -> AsyncIterator[LocaliserRig]:
    settings = Settings.model_validate({"lines": [LineSettings(name=line) for line in LINES], "store": {"url": str(folder)}})
    rig = LocaliserRig(FakePictures(picture), RecordingProducer(), ObjectStore(str(folder)))
    rig.localiser = Localiser(
        settings,
        rig.pictures,
        rig.store,
        producer or rig.producer,
        rig.open_version,
        lambda text, _: rig.problems.append(text),
        choices or PlantChoices("a"),
        tables,
        rig.record_progress,
        lambda: rig.are_processors_free,
    )
    rig.names_kinds, rig.spots = names_kinds, spots
    rig.may_go_on.set()
    tasks = [asyncio.create_task(run()) for run in rig.localiser.background_tasks]
    try:
        yield rig
    finally:
        rig.may_go_on.set()
        await asyncio.wait_for(rig.localiser.drain(), 10)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)


def read_counter(suffix: str, line: str) -> float:
    return REGISTRY.get_sample_value(f"castline_findings{suffix}_total", {"line": line}) or 0.0


def make_request(line: str, part: int) -> HeatMapRequest:
    verdict = _make_verdict(line, part, "defect")
    return HeatMapRequest(verdict, PendingVerdict(cast(ReceivedRecord, None), verdict))


def test_the_parts_that_people_wait_for_are_explained_first() -> None:
    queue = HeatMapQueue(["uploads"], max_ordinary=2)
    order = (("line-1", 1), ("uploads", 2), ("line-1", 3), ("uploads", 4), ("line-1", 5), ("uploads", 6))
    dropped = [queue.add(make_request(line, part)) for line, part in order]
    assert [request and request.verdict.part for request in dropped] == [None, None, None, None, 1, None]
    assert [queue.pop().verdict.part for _ in range(len(queue))] == [2, 4, 6, 3, 5]


@pytest.mark.asyncio
async def test_at_saturation_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    before = read_counter("_dropped", "line-1")
    async with run_localiser(tmp_path) as rig:
        rig.may_go_on.clear()
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.pictures.reads == 1)
        for part in range(2, 101):
            await rig.send("line-1", part)
        assert rig.acknowledged == [], "no verdict may be acknowledged before an older one"
        rig.may_go_on.set()
        await wait_until(lambda: len(rig.acknowledged) == 100)
    assert rig.explained == [1, *range(37, 101)]
    assert rig.acknowledged == list(range(1, 101))
    assert read_counter("_dropped", "line-1") == before + 35


@pytest.mark.asyncio
async def test_while_other_programs_use_all_processors_heat_maps_wait(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        rig.are_processors_free = False
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.progress_count >= 2)
        assert rig.pictures.reads == 0
        rig.are_processors_free = True
        await wait_until(lambda: rig.explained == [1])


@pytest.mark.asyncio
async def test_other_programs_cannot_stop_the_heat_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localiser_module, "_LONGEST_PAUSE_S", 0.3)
    async with run_localiser(tmp_path) as rig:
        rig.are_processors_free = False
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.explained == [1])


@pytest.mark.asyncio
async def test_a_good_part_is_explained_only_if_a_person_waits_for_it_and_an_unjudged_one_never(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        await rig.send("line-1", 1, "ok")
        await rig.send("uploads", 2, "ok")
        await rig.send("uploads", 3, "review", votes={}, defect_probability=None)
        await rig.send("line-1", 4, "review", defect_probability=None, votes={"golden-template": 0.8})
        await wait_until(lambda: len(rig.acknowledged) == 4)
    assert sorted(rig.explained) == [2, 4]


@pytest.mark.asyncio
async def test_a_verdict_is_acknowledged_after_its_finding_and_a_repeat_makes_no_second_one(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        rig.may_go_on.clear()
        await rig.send("line-1", 1)
        await rig.send("line-1", 2, "ok")
        await wait_until(lambda: rig.pictures.reads == 1)
        assert rig.acknowledged == []
        rig.may_go_on.set()
        await wait_until(lambda: rig.acknowledged == [1, 2])
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.acknowledged == [1, 2, 1])
    assert rig.explained == [1]


@pytest.mark.asyncio
async def test_while_kafka_is_away_the_part_waits_and_the_problem_is_reported(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        rig.pictures.is_away = True
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.pictures.reads >= 2)
        assert rig.acknowledged == []
        assert "does not answer" in rig.problems[0]
        assert rig.progress_count >= 2, "a restart would not bring Kafka back"
        rig.pictures.is_away = False
        await wait_until(lambda: rig.acknowledged == [1])
        assert rig.problems[-1] == ""
    assert rig.explained == [1]


@pytest.mark.asyncio
async def test_a_localiser_that_stops_during_an_outage_leaves_the_part_for_the_next_start(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        rig.pictures.is_away = True
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.pictures.reads >= 1)
    assert rig.acknowledged == []


@pytest.mark.asyncio
async def test_what_cannot_be_explained_is_counted_and_does_not_stop_the_others(tmp_path: Path) -> None:
    before = read_counter("_failed", "line-1")
    async with run_localiser(tmp_path) as rig:
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.acknowledged == [1])
        rig.mappers["a"].fails = True
        await rig.send("line-1", 2)
        await wait_until(lambda: len(rig.acknowledged) == 2)
        rig.mappers["a"].fails = False
        await rig.send("line-1", 901)  # Kafka has deleted this picture.
        await rig.send("line-1", 3, model="missing")
        other = _make_verdict("line-1", 4, "defect", make_jpeg(2)).image
        await rig.send("line-1", 4, image=other)
        await rig.send("line-1", 5, model="lenet-only")
        await rig.send("line-1", 6)
        await wait_until(lambda: len(rig.acknowledged) == 7)
    assert rig.explained == [1, 6]
    assert read_counter("_failed", "line-1") == before + 4


@pytest.mark.asyncio
async def test_records_that_are_old_or_no_verdicts_of_their_line_are_skipped(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        value = _make_verdict("line-1", 1, "defect").encode()
        await rig.send_value("line-1", 1, value, age=timedelta(days=8))
        await rig.send_value("line-1", 2, b"{")
        await rig.send_value("uploads", 3, value)
        foreign = _make_verdict("line-1", 4, "defect").image.model_copy(update={"topic": "castings.images.uploads"})
        await rig.send("line-1", 4, image=foreign)
        await wait_until(lambda: len(rig.acknowledged) == 4)
    assert rig.findings == []


@pytest.mark.asyncio
async def test_too_many_unfinished_verdicts_make_the_next_one_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localiser_module, "_MAX_PENDING", 3)
    async with run_localiser(tmp_path) as rig:
        rig.may_go_on.clear()
        for part in (1, 2, 3):
            await rig.send("uploads", part)
        fourth = asyncio.create_task(rig.send("uploads", 4))
        await asyncio.sleep(0.05)
        assert not fourth.done()
        rig.may_go_on.set()
        await fourth
    assert rig.explained == [1, 2, 3, 4]


@pytest.mark.asyncio
async def test_a_claim_check_is_fetched_from_the_object_store(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        claim = rig.store.put(JPEG)
        rig.pictures.headers = {"claim": claim.encode(), "sha256": hashlib.sha256(JPEG).hexdigest().encode()}
        await rig.send("line-1", 1)
        await wait_until(lambda: rig.acknowledged == [1])
    assert rig.explained == [1]


@pytest.mark.asyncio
async def test_a_verdict_is_explained_by_the_version_that_gave_it(tmp_path: Path) -> None:
    async with run_localiser(tmp_path) as rig:
        for part, model in enumerate(("a", "b", "a"), 1):
            await rig.send("uploads", part, model=model)
        await wait_until(lambda: len(rig.acknowledged) == 3)
    assert [finding.model for finding in rig.findings] == ["a", "b", "a"]


@pytest.mark.asyncio
async def test_a_finding_names_its_verdict_and_boxes_and_its_map_covers_the_whole_picture(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((400, 200)).convert("RGB").save(file, "PNG")
    async with run_localiser(tmp_path, picture=file.getvalue()) as rig:
        await rig.send("uploads", 7)
        await wait_until(lambda: rig.acknowledged == [7])
        (finding,) = rig.findings
    assert finding.verdict_id == _make_verdict("uploads", 7, "defect").verdict_id
    # The defect probability is 0.9. 64 px of the networks stand for 400 px, and the picture's 32 rows lie between 16 rows of padding each.
    (box,) = finding.boxes
    assert (box.left_px, box.top_px, box.width_px, box.height_px, box.score) == (200, 0, 100, 50, 0.9)
    heat_map = Image.open(io.BytesIO(rig.store.fetch(finding.heat_map, "maps")), formats=("PNG",))
    assert (heat_map.mode, heat_map.size) == ("L", (64, 32))
    assert heat_map.getpixel((40, 4)) == 255
    assert heat_map.getpixel((40, 20)) == 0


@pytest.mark.asyncio
async def test_a_map_shows_nothing_outside_the_regions_of_its_line(tmp_path: Path) -> None:
    lower_half = Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in ((0, 0.5), (1, 0.5), (1, 1), (0, 1))))
    record = LiveLineSettings(line="uploads", inspect_regions=(lower_half,), mm_per_px=0.5, set_by="anna", set_at=CAPTURED_AT)
    choices = PlantChoices("a")
    choices.follow_lines(LiveSettingsByLine({"uploads": record}))
    async with run_localiser(tmp_path, choices) as rig:
        await rig.send("uploads", 1)
        await rig.send("line-1", 2)
        await wait_until(lambda: len(rig.acknowledged) == 2)
    assert {finding.line: len(finding.boxes) for finding in rig.findings} == {"uploads": 0, "line-1": 1}


@pytest.mark.asyncio
async def test_a_finding_names_kinds_and_measures_defects_in_the_scale_of_the_line(tmp_path: Path) -> None:
    """The hot area has 8 x 16 of the 64 x 64 px that the networks see. They stand for 400 px, so it is 50 x 100 px large."""
    choices = PlantChoices("a")
    record = LiveLineSettings(line="uploads", mm_per_px=0.5, set_by="anna", set_at=CAPTURED_AT)
    choices.follow_lines(LiveSettingsByLine({"uploads": record}))
    rule = AcceptanceRule(name="gas porosity, C 2", kinds=("blow hole",), max_length_mm=40)
    tables = {line: AcceptanceTable(name="impeller", other_kinds="rejected", rules=(rule,)) for line in LINES}
    async with run_localiser(tmp_path, choices, make_jpeg(1, 400), tables, names_kinds=True) as rig:
        await rig.send("uploads", 1)
        await rig.send("line-1", 2)
        await wait_until(lambda: len(rig.acknowledged) == 2)
    measured, unmeasured = rig.findings
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


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("names_kinds", "spots", "result"),
    [
        (True, 20, "accepted"),
        (True, 21, "rejected"),
        (True, 30, "rejected"),
        (False, 5, "accepted"),
        (False, 6, "not-graded"),
    ],
)
async def test_a_part_with_too_many_defects_is_never_accepted(tmp_path: Path, names_kinds: bool, spots: int, result: str) -> None:
    rule = AcceptanceRule(name="gas porosity, C 2", kinds=("blow hole", "unknown"), max_number=20)
    tables = {line: AcceptanceTable(name="impeller", other_kinds="rejected", rules=(rule,)) for line in LINES}
    async with run_localiser(tmp_path, tables=tables, names_kinds=names_kinds, spots=spots) as rig:
        await rig.send("line-1", 1)
        await wait_until(lambda: len(rig.acknowledged) == 1)
    (finding,) = rig.findings
    assert finding.acceptance is not None
    assert finding.acceptance.result == result


def test_the_finding_of_a_small_defect_has_its_own_score() -> None:
    """The networks see no small defect, so their defect probability says nothing about its box."""
    boxes = (HeatBox(400, 300, 40, 40, 0.9), HeatBox(10, 20, 6, 6, 0.7, is_small=True))
    found = DefectMap(np.zeros((8, 8), np.float32), "residual+detail-template", boxes=boxes)
    verdict = make_verdict("line-1", 1, 1, "review", CAPTURED_AT)
    for probability, scores in ((0.1, [0.7, 0.09]), (None, [0.9, 0.7])):
        finding = make_finding(verdict.model_copy(update={"defect_probability": probability}), found, "maps/1", CAPTURED_AT)
        assert [box.score for box in finding.boxes] == scores, "the most suspicious box comes first"
        assert finding.method == "residual+detail-template"


def test_regions_limit_the_mask_of_their_line_only() -> None:
    left_half = Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in ((0, 0), (0.5, 0), (0.5, 1), (0, 1))))
    choices = PlantChoices("a")
    records = [LiveLineSettings(line="line-1", inspect_regions=(left_half,), set_by="anna", set_at=CAPTURED_AT)]
    records += [LiveLineSettings(line="line-2", mm_per_px=0.25, set_by="anna", set_at=CAPTURED_AT)]
    choices.follow_lines(LiveSettingsByLine({record.line: record for record in records}))
    mask = choices.find_mask("line-1", 4, 8)
    assert mask is not None
    assert mask.tolist() == [[True] * 4 + [False] * 4] * 4
    assert choices.find_mask("line-2", 4, 8) is None
    assert choices.find_mask("line-3", 4, 8) is None
    assert (choices.find_scale("line-1"), choices.find_scale("line-2")) == (None, 0.25)
