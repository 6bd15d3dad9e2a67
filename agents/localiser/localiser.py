"""The localiser: reads verdicts from Kafka and makes heat maps, which show the suspicious areas of a picture.

    accept -> queue -> picture from Kafka -> decoder -> heat map -> object store -> findings topic -> acknowledgement to Kafka

The localiser is a separate process with a low priority, so that no verdict waits for a heat map. While other programs keep all processors
of the machine busy, the localiser waits two seconds before each heat map.

- A heat map is made for each part that is not `ok`.
- In the lines of the setting `inspector.explain_lines`, a person waits for the heat maps. Every part of these lines gets a heat map,
  and these heat maps are made first.
- If too many verdicts wait, the oldest verdicts of the other lines get no heat map. They are counted and acknowledged.

A verdict is acknowledged after its finding was delivered. After a crash, unfinished heat maps are made again.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from kafka.errors import KafkaError
from PIL import Image

from agents.inspector.decoding import decode_image, read_image_record
from agents.localiser.acceptance_table import AcceptanceTable
from agents.localiser.spare_processors import SAMPLE_S
from models.inference.defect_locator import DefectLocator
from models.inference.heat_map import DefectMap, HeatBox
from models.pictures.decoder import DecodedPicture, decode_picture
from models.pictures.decoder_process import DecoderProcess
from models.pictures.regions import Regions
from streams import metrics
from streams.backoff import Backoff
from streams.errors import PictureError, RecordError
from streams.live_line_settings import LiveSettingsByLine
from streams.model_choices import ModelChoices
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord, RecordProducer, make_json_record
from streams.record_reader import check_references, read_record, skip_record
from streams.records import Box, Finding, Verdict
from streams.settings import Settings
from streams.signatures import check_signature
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "localiser"
# At most this many verdicts wait for their heat maps. Verdicts of the lines in the setting `inspector.explain_lines` are not counted.
_MAX_ORDINARY = 64
# Largest number of verdicts that are accepted but not yet acknowledged. A verdict takes about 2 kB of memory.
_MAX_PENDING = 4096
# Number of verdicts that are remembered after their findings were delivered. If such a verdict comes again, it gets no second heat map.
_MAX_DELIVERED = 4096
# The localiser looks for new model choices at this interval. It opens the defect locators of the chosen versions before they are needed.
_VERSION_CHECK_S = 1.0
# A version whose defect locator could not be opened is tried again after this time.
_OPEN_AGAIN_S = 60.0
# On a busy machine, opening a defect locator can take minutes. The watchdog waits this long before it reports a stall.
_MAX_OPEN_S = 300.0
_PROGRESS_S = 1.0
# While other programs keep all processors busy, the localiser waits at most this many seconds before each heat map. Because of this limit,
# heat maps are also made on a machine that is always busy.
_LONGEST_PAUSE_S = 2.0


# A function that finds the version with the given name, opens its defect locator and warms it up. Returns None if the version supports no
# heat maps. Raises an error if the version is missing or damaged.
OpenVersion = Callable[[str], DefectLocator | None]


class ImageRecordSource(Protocol):
    """Reads image records by their position in Kafka. `streams.image_topic_reader.ImageTopicReader` implements this protocol."""

    def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None: ...

    def close(self) -> None: ...


@dataclass(eq=False)
class PendingVerdict:
    """A verdict that the localiser has accepted and not yet acknowledged. `verdict` is None if the record is not valid."""

    received: ReceivedRecord
    verdict: Verdict | None
    is_finished: bool = False


@dataclass(frozen=True, eq=False)
class HeatMapRequest:
    """A request for a heat map of the part to which `verdict` belongs."""

    verdict: Verdict
    pending: PendingVerdict


class HeatMapQueue:
    """Holds the requests for heat maps. Requests of the lines in `explain_lines` come first, because a person waits for these heat maps."""

    def __init__(self, explain_lines: Iterable[str], max_ordinary: int = _MAX_ORDINARY) -> None:
        self._explain_lines = frozenset(explain_lines)
        self._awaited: deque[HeatMapRequest] = deque()
        self._ordinary: deque[HeatMapRequest] = deque()
        self._max_ordinary = max_ordinary

    def __len__(self) -> int:
        return len(self._awaited) + len(self._ordinary)

    def accepts(self, verdict: Verdict) -> bool:
        """Returns whether the part of `verdict` needs a heat map. A picture that could not be judged needs no heat map."""
        return bool(verdict.votes) and (verdict.label != "ok" or verdict.line in self._explain_lines)

    def add(self, request: HeatMapRequest) -> HeatMapRequest | None:
        """Adds a request. Requests of the lines in `explain_lines` are always kept.

        If too many requests of other lines wait, removes and returns the oldest one of these. Otherwise returns None.
        """
        if request.verdict.line in self._explain_lines:
            self._awaited.append(request)
            return None
        self._ordinary.append(request)
        return self._ordinary.popleft() if len(self._ordinary) > self._max_ordinary else None

    def pop(self) -> HeatMapRequest:
        """Removes and returns the next request. Raises IndexError if the queue is empty."""
        return (self._awaited or self._ordinary).popleft()

    def versions(self) -> set[str]:
        """Returns the names of the model versions that the waiting requests need."""
        return {request.verdict.model for request in (*self._awaited, *self._ordinary)}


class Localiser:
    """Makes the heat maps of the verdicts that one worker receives. It is the `RecordHandler` of the localiser's consumer group."""

    def __init__(
        self,
        settings: Settings,
        pictures: ImageRecordSource,
        store: ObjectStore,
        producer: RecordProducer,
        open_version: OpenVersion,
        report_problem: Callable[[str, str], None],
        choices: PlantChoices | None = None,
        tables: Mapping[str, AcceptanceTable] = MappingProxyType({}),
        record_progress: Callable[[], None] = lambda: None,
        are_processors_free: Callable[[], bool] = lambda: True,
    ) -> None:
        """Creates the localiser.

        - `choices`: the chosen models, regions and scales. Outside the regions, a heat map is 0 and has no boxes.
        - `tables`: the acceptance table of each line that has one.
        - `report_problem`: called with a sentence and a subject, for example "pictures", when a problem begins. Called with an empty
          sentence and the subject when the problem has ended.
        - `record_progress`: called during long waits that are no fault of the process, so that the watchdog reports no stall.
        - `are_processors_free`: returns whether other programs leave processor time for heat maps. If it returns False, the next heat map
          waits.
        """
        self._settings = settings
        self._pictures = pictures
        self._store = store
        self._producer = producer
        self._open_version = open_version
        self._report_problem = report_problem
        self._choices = choices or PlantChoices(settings.model.version)
        self._tables = tables
        self._record_progress = record_progress
        self._are_processors_free = are_processors_free
        self._names = TopicNames(settings.topics.prefix)
        self._lines = {self._names.verdicts(line.name): line for line in settings.lines}
        self._queue = HeatMapQueue(settings.inspector.explain_lines)
        # The accepted verdicts of each partition that are not acknowledged, in the order of their arrival.
        self._pending: dict[tuple[str, int], deque[PendingVerdict]] = defaultdict(deque)
        self._pending_count = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._delivered: dict[uuid.UUID, None] = {}
        self._opened: dict[str, DefectLocator | None] = {}
        # For each version that could not be opened: the monotonic time of the next try.
        self._failed_until_s: dict[str, float] = {}
        # One thread reads and decodes pictures, opens the defect locators of the model versions, and makes heat maps with them.
        self._thread = ThreadPoolExecutor(1, "localiser")
        # Uploaded pictures come from strangers, so they are decoded in a separate process, as in the inspector.
        self._upload_process = DecoderProcess(settings.pictures.upload_memory_bytes, settings.pictures.upload_time_s)
        self._woken = asyncio.Event()
        self._is_draining = False
        self._finished = asyncio.Event()

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """Maps each topic of verdicts to the name of its line."""
        return {topic: line.name for topic, line in self._lines.items()}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The coroutine functions that the worker starts. They run until the localiser is drained."""
        return (self.make_findings,)

    async def accept(self, received: ReceivedRecord) -> None:
        """Queues a verdict if its part needs a heat map. Waits while too many verdicts are not acknowledged."""
        await self._has_room.wait()
        pending = PendingVerdict(received, self._read_verdict(received))
        self._pending[_partition_of(received)].append(pending)
        self._pending_count += 1
        if self._pending_count >= _MAX_PENDING:
            self._has_room.clear()
        verdict = pending.verdict
        if verdict is None or not self._queue.accepts(verdict) or verdict.verdict_id in self._delivered:
            await self._finish(pending)
            return
        dropped = self._queue.add(HeatMapRequest(verdict, pending))
        self._woken.set()
        if dropped is not None:
            metrics.findings_dropped.labels(dropped.verdict.line).inc()
            await self._finish(dropped.pending)

    def _read_verdict(self, received: ReceivedRecord) -> Verdict | None:
        """Returns the verdict of a record, or None if the record needs no heat map because it is too old or not valid.

        The archivist makes dead letters of invalid verdicts, so they are only counted here.
        """
        record = received.record
        # Kafka deletes a picture after `image_hours`, so a verdict that is older gets no heat map. Such verdicts are not logged, because
        # thousands of them can come at once after a long pause.
        if datetime.now(UTC) - received.broker_time > timedelta(hours=self._settings.topics.image_hours):
            return None
        line = self._lines[record.topic].name
        try:
            check_signature(self._settings, record.topic, record.key, record.value, record.headers)
            verdict = read_record(Verdict, record.value, received.broker_time)
            check_references(verdict, line, self._names)
        except RecordError as error:
            skip_record(ROLE, record, error)
            return None
        return verdict

    async def _finish(self, pending: PendingVerdict) -> None:
        """Marks a verdict as finished. Then acknowledges the oldest verdicts of its partition, up to the first unfinished one."""
        pending.is_finished = True
        waiting = self._pending[_partition_of(pending.received)]
        while waiting and waiting[0].is_finished:
            first = waiting.popleft()
            self._pending_count -= 1
            await first.received.acknowledge()
        if self._pending_count < _MAX_PENDING:
            self._has_room.set()

    async def make_findings(self) -> None:
        """Makes one heat map after the other. Ends after `drain`, when no verdict waits."""
        while len(self._queue) or not self._is_draining:
            if len(self._queue):
                await self._wait_for_processors()
                request = self._queue.pop()
                if not await self._explain(request):
                    break
                await self._finish(request.pending)
            elif unopened := self._find_unopened():
                await self._open(unopened)
            else:
                self._woken.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), _VERSION_CHECK_S)
        self._thread.shutdown(wait=False)
        self._upload_process.close()
        self._pictures.close()
        self._finished.set()

    async def _wait_for_processors(self) -> None:
        """Waits while other programs, such as an inspector with a backlog, keep all processors busy. Waits at most _LONGEST_PAUSE_S."""
        end_s = time.monotonic() + _LONGEST_PAUSE_S
        while not self._is_draining and time.monotonic() < end_s and not self._are_processors_free():
            self._record_progress()
            await asyncio.sleep(SAMPLE_S)

    def _find_unopened(self) -> str | None:
        """Returns a chosen model version that is not open yet, or None."""
        return next((name for name in self._chosen_versions() if name not in self._opened and not self._has_failed(name)), None)

    def _chosen_versions(self) -> set[str]:
        return self._choices.find_versions(line.name for line in self._settings.lines)

    def _has_failed(self, name: str) -> bool:
        return time.monotonic() < self._failed_until_s.get(name, 0.0)

    async def _open(self, name: str) -> None:
        """Opens the defect locator of a version.

        Before that, closes the defect locators of versions that are no longer needed for a line or a waiting verdict.
        """
        needed = self._chosen_versions() | self._queue.versions()
        self._opened = {other: opened for other, opened in self._opened.items() if other in needed}
        self._failed_until_s = {other: until_s for other, until_s in self._failed_until_s.items() if self._has_failed(other)}
        try:
            opening = asyncio.get_running_loop().run_in_executor(self._thread, self._open_version, name)
            started_s = time.monotonic()
            while not opening.done() and time.monotonic() - started_s < _MAX_OPEN_S:
                self._record_progress()
                await asyncio.wait([opening], timeout=_PROGRESS_S)
            opened = await opening
        except Exception as error:  # noqa: BLE001  a version without a defect locator must not stop the heat maps of other versions
            self._failed_until_s[name] = time.monotonic() + _OPEN_AGAIN_S
            log.error("Version %s makes no heat maps, because its defect locator could not be opened: %r", name, error)
            return
        self._opened[name] = opened
        log.info(
            "Version %s %s.",
            name,
            "makes heat maps"
            if opened
            else "makes no heat maps, because it has no AlexNet, no segmentation head, no scorer and no detail template",
        )

    async def _explain(self, request: HeatMapRequest) -> bool:
        """Makes and delivers the finding of a verdict, if its version makes heat maps.

        Tries again while Kafka or the object store does not answer. If the localiser must stop before they answer, returns False. Kafka
        delivers the verdict again after the next start.
        """
        verdict, backoff = request.verdict, Backoff(first_s=0.2, longest_s=5.0)
        if verdict.model not in self._opened and not self._has_failed(verdict.model):
            await self._open(verdict.model)
        if verdict.model not in self._opened:
            metrics.findings_failed.labels(verdict.line).inc()
            return True
        opened = self._opened[verdict.model]
        if opened is None:
            return True
        finding: Finding | None
        while True:
            try:
                finding = await asyncio.get_running_loop().run_in_executor(self._thread, self._make_finding, verdict, opened)
                break
            except (KafkaError, OSError) as error:
                if self._is_draining:
                    return False
                wait_s = backoff.failed()
                self._record_progress()
                self._report_problem(f"Kafka or the object store at {self._settings.store.url} does not answer: {error!r}", "pictures")
                await asyncio.sleep(wait_s)
            except Exception as error:  # noqa: BLE001  a picture that cannot be explained must not stop the others
                metrics.findings_failed.labels(verdict.line).inc()
                log.warning("Part %s gets no heat map: %s", verdict.part_id, error, extra={"part": str(verdict.part_id)})
                return True
        if backoff.failures:
            self._report_problem("", "pictures")
        if finding is None:
            metrics.findings_failed.labels(verdict.line).inc()
            log.warning(
                "Part %s gets no heat map, because its picture could not be searched for small defects.",
                verdict.part_id,
                extra={"part": str(verdict.part_id)},
            )
            return True
        await self._deliver(verdict, finding)
        return True

    async def _deliver(self, verdict: Verdict, finding: Finding) -> None:
        part = verdict.part_id
        await self._producer.deliver([make_json_record(self._names.findings(part.line), part.key, finding, ROLE)])
        self._delivered[verdict.verdict_id] = None
        if len(self._delivered) > _MAX_DELIVERED:
            del self._delivered[next(iter(self._delivered))]
        metrics.findings.labels(part.line).inc()
        metrics.finding_seconds.observe((datetime.now(UTC) - verdict.decided_at).total_seconds())

    def _make_finding(self, verdict: Verdict, opened: DefectLocator) -> Finding | None:
        """Reads the picture of `verdict`, makes its heat map, stores the map and returns the finding. Runs in the localiser's thread.

        Returns None if the version can make no heat map of this picture.
        Raises PictureError if the picture is gone or is not the picture that was judged. Raises KafkaError or OSError if Kafka or the store
        does not answer.
        """
        picture = self._read_picture(verdict, opened.side_px, opened.needs_original(verdict.votes))
        found = opened.locate(picture, verdict.label, verdict.votes, partial(self._choices.find_mask, verdict.line))
        if found is None:
            return None
        address = self._store.put(encode_png(found.heat), "maps")
        finding = make_finding(verdict, found, address, datetime.now(UTC), self._choices.find_scale(verdict.line))
        table = self._tables.get(verdict.line)
        return finding if table is None else finding.model_copy(update={"acceptance": table.grade(finding.boxes, found.leaves_out_areas())})

    def _read_picture(self, verdict: Verdict, side_px: int, keep_original: bool) -> DecodedPicture:
        image, line = verdict.image, self._settings.find_line(verdict.line)
        record = self._pictures.read(image.topic, image.partition, image.offset)
        if record is None:
            raise PictureError("claim-missing", f"Kafka no longer has the picture at offset {image.offset} of {image.topic}.")
        is_upload = verdict.line == self._settings.station.upload_line
        decoder = self._upload_process.decode_picture if is_upload else decode_picture
        source = read_image_record(record, line, verdict.captured_at, verdict.received_at)
        if source.part != verdict.part_id:
            raise PictureError("claim-damaged", f"The picture at offset {image.offset} of {image.topic} shows another part, {source.part}.")
        limits = self._settings.pictures.for_uploads() if is_upload else self._settings.pictures
        decoded = decode_image(source, side_px, limits, self._store, decoder, keep_original)
        if isinstance(decoded.picture, PictureError):
            raise decoded.picture
        if decoded.sha256 != image.sha256:
            raise PictureError("claim-damaged", f"The picture at offset {image.offset} of {image.topic} is not the one that was judged.")
        return decoded.picture

    async def drain(self) -> None:
        """Accepts no more verdicts, and waits until every accepted verdict is finished."""
        self._is_draining = True
        self._woken.set()
        await self._finished.wait()


def _partition_of(received: ReceivedRecord) -> tuple[str, int]:
    return received.record.topic, received.record.partition


def make_finding(verdict: Verdict, found: DefectMap, address: str, found_at: datetime, mm_per_px: float | None = None) -> Finding:
    """Returns the finding for `verdict`. `found` is the defect map of the whole picture, whose heat map is stored at `address`.

    The score of a box is the highest heat in the box, multiplied by the defect probability of the verdict. So the boxes of a part that is
    probably good have low scores. In two cases, the score is the highest heat, without the multiplication:

    - The box shows a small defect. The networks, which give the defect probability, do not see small defects.
    - The verdict has no defect probability.

    If `mm_per_px` is given, each box has the area and the length of its defect in millimetres.
    """
    probability = 1.0 if verdict.defect_probability is None else verdict.defect_probability

    def weigh(box: HeatBox) -> float:
        return round(box.score if box.is_small else box.score * probability, 4)

    boxes = found.find_boxes(verdict.image.width_px, verdict.image.height_px)
    return Finding(
        line=verdict.line,
        run=verdict.run,
        part=verdict.part,
        verdict_id=verdict.verdict_id,
        method=found.method,
        model=verdict.model,
        boxes=tuple(
            Box(
                left_px=box.left_px,
                top_px=box.top_px,
                width_px=box.width_px,
                height_px=box.height_px,
                score=weigh(box),
                kind=box.kind,
                area_mm2=None if mm_per_px is None else round(box.area_px * mm_per_px**2, 3),
                length_mm=None if mm_per_px is None else round(box.length_px * mm_per_px, 3),
            )
            for box in sorted(boxes, key=weigh, reverse=True)
        ),
        heat_map=address,
        found_at=found_at,
    )


def encode_png(heat: npt.NDArray[np.float32]) -> bytes:
    """Returns a heat map (values 0..1) as the bytes of a PNG file with the grey levels 0..255."""
    file = io.BytesIO()
    Image.fromarray((heat * 255 + 0.5).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


class PlantChoices:
    """The newest records of the topics `castings.models` and `castings.lines`. A thread can read them while another thread replaces them.

    `default_version` is the model version of lines for which nobody has chosen a version.
    """

    def __init__(self, default_version: str) -> None:
        self._models = ModelChoices(default_version)
        self._lines = LiveSettingsByLine()
        self._followed: set[str] = set()

    @property
    def are_known(self) -> bool:
        """True if the topics `castings.models` and `castings.lines` have been read to their ends."""
        return self._followed == {"models", "lines"}

    def follow_models(self, choices: ModelChoices) -> None:
        """Takes the model versions that people have now chosen for the lines."""
        self._models = choices
        self._followed.add("models")

    def follow_lines(self, settings: LiveSettingsByLine) -> None:
        """Takes new settings of the lines: the regions to inspect, and the scale in millimetres per pixel."""
        self._lines = settings
        self._followed.add("lines")

    def find_versions(self, lines: Iterable[str]) -> set[str]:
        """Returns the names of the model versions that are chosen for `lines`."""
        return {self._models.find(line).version for line in lines}

    def find_mask(self, line: str, rows: int, columns: int) -> npt.NDArray[np.bool_] | None:
        """Returns the mask of the pixels that are inspected on `line`, shape (rows, columns), or None if people drew no regions."""
        regions = Regions.from_settings(self._lines.find(line))
        return None if regions is None else regions.make_mask(rows, columns)

    def find_scale(self, line: str) -> float | None:
        """Returns the scale of the pictures of `line`, in millimetres per pixel. Returns None if the scale is not set."""
        live = self._lines.find(line)
        return None if live is None else live.mm_per_px
