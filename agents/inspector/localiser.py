"""Makes heat maps, which show the suspicious areas of a picture. The localiser works after the verdict, while the networks are idle.

    delivered verdicts -> queue (bounded) -> heat map (a thread of the networks, one at a time) -> object store -> findings topic

To explain a picture means to make its heat map. The localiser begins a heat map only while no picture waits for its verdict. If there is
too little idle time, heat maps are left out and counted. Failures are counted and logged.

For lines in the setting `inspector.explain_lines`, a person waits for each heat map. So their pictures are explained first. Even if the
networks are never idle, one of these pictures is explained every two seconds.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image

from agents.inspector.acceptance_table import AcceptanceTable
from agents.inspector.background_loop import BackgroundLoop
from agents.inspector.judging import JudgedImage
from models.inference.heat_map import DefectMap
from models.inference.heat_mapper import HeatMapper
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.registry import Version
from streams import metrics
from streams.object_store import ObjectStore
from streams.record_producer import RecordProducer, make_json_record
from streams.records import Box, Finding, Verdict
from streams.settings import InspectorSettings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

# Largest number of pictures that may wait for their heat maps: of ordinary lines, and of lines on which a person waits for each heat map.
# A picture takes about 50 kB of memory.
_MAX_ORDINARY = 64
_MAX_AWAITED = 1024
_BUSY_WAIT_S = 0.05
# The localiser looks for new model versions at this interval and opens their heat mappers, so that these are usually ready before the first
# suspicious picture arrives.
_VERSION_CHECK_S = 1.0
# A worker opens no heat mapper in its first seconds, because opening keeps a processor busy for several seconds. At that time
# many pictures may already be waiting in Kafka, although the worker has not received them yet.
_START_DELAY_S = 5.0
# If a person waits for a heat map and none was made for this long, the next one is made even if other pictures wait for their verdicts.
_MAX_PERSON_WAIT_S = 2.0


# A function that opens the heat mapper of a version and warms it up. It returns None if no network of the version supports heat maps.
OpenHeatMapper = Callable[[Version], HeatMapper | None]
# A function that takes a line and the numbers of rows and columns of a heat map. It returns the mask of the pixels that are inspected on
# the line, or None if people drew no regions for the line.
FindMask = Callable[[str, int, int], npt.NDArray[np.bool_] | None]
# A function that takes a line and returns the millimetres on the part for each pixel of the line's pictures, or None if nobody has set
# them.
FindScale = Callable[[str], float | None]


@dataclass(frozen=True, slots=True)
class HeatMapRequest:
    """A picture that needs a heat map, with its delivered verdict and the version that gave the verdict."""

    verdict: Verdict
    pixels: npt.NDArray[np.uint8]
    version: Version


class HeatMapQueue:
    """Holds the requests for heat maps. Requests of the lines in `explain_lines` come first, because a person waits for these heat maps."""

    def __init__(self, explain_lines: Iterable[str], max_ordinary: int = _MAX_ORDINARY, max_awaited: int = _MAX_AWAITED) -> None:
        self._explain_lines = frozenset(explain_lines)
        self._awaited: deque[HeatMapRequest] = deque()
        self._ordinary: deque[HeatMapRequest] = deque()
        self._max_ordinary, self._max_awaited = max_ordinary, max_awaited

    def __len__(self) -> int:
        return len(self._awaited) + len(self._ordinary)

    def accepts(self, verdict: Verdict) -> bool:
        """Returns whether the picture of `verdict` needs a heat map."""
        return verdict.label != "ok" or verdict.line in self._explain_lines

    def add(self, request: HeatMapRequest) -> HeatMapRequest | None:
        """Adds a request. If the queue is full, drops a request and returns it. Otherwise returns None.

        If the line is in `explain_lines`, the new request is dropped. For any other line, the oldest request is dropped.
        """
        if request.verdict.line in self._explain_lines:
            if len(self._awaited) >= self._max_awaited:
                return request
            self._awaited.append(request)
            return None
        self._ordinary.append(request)
        return self._ordinary.popleft() if len(self._ordinary) > self._max_ordinary else None

    @property
    def is_person_waiting(self) -> bool:
        """True if a person waits for the heat map of the next request."""
        return bool(self._awaited)

    def pop(self) -> HeatMapRequest:
        """Removes and returns the next request. Raises IndexError if the queue is empty."""
        return (self._awaited or self._ordinary).popleft()

    def versions(self) -> dict[str, Version]:
        """Returns the model versions that the queued requests need, by name."""
        return {request.version.name: request.version for request in (*self._awaited, *self._ordinary)}


class Localiser:
    """Makes heat maps of suspicious pictures in `executor` (the threads that compute networks), while `is_idle` returns True.

    `current_versions` returns the model versions that judge now. The Localiser opens their heat mappers early, so that the first suspicious
    picture need not wait. Outside the mask that `find_mask` returns, a heat map is 0 and has no boxes. `find_scale` gives the scale in
    which defects are measured. `tables` holds the acceptance tables of lines that have one.
    """

    def __init__(
        self,
        executor: Executor,
        is_idle: Callable[[], bool],
        current_versions: Callable[[], Iterable[Version]],
        settings: InspectorSettings,
        names: TopicNames,
        store: ObjectStore,
        producer: RecordProducer,
        open_mapper: OpenHeatMapper,
        find_mask: FindMask = lambda line, rows, columns: None,
        find_scale: FindScale = lambda line: None,
        tables: Mapping[str, AcceptanceTable] = MappingProxyType({}),
    ) -> None:
        self._find_mask = find_mask
        self._find_scale = find_scale
        self._tables = tables
        self._executor = executor
        self._is_idle = is_idle
        self._current_versions = current_versions
        self._is_enabled = settings.localise
        self._names = names
        self._store = store
        self._producer = producer
        self._open_mapper = open_mapper
        self._queue = HeatMapQueue(settings.explain_lines)
        self._mappers: dict[str, HeatMapper | None] = {}
        # A separate thread opens heat mappers and writes files, because this work would delay the threads that compute networks.
        self._side_executor = ThreadPoolExecutor(1, "localiser")
        self._loop = BackgroundLoop()
        self._started_s = self._explained_s = time.monotonic()

    def add(self, judged: JudgedImage, verdict: Verdict, version: Version) -> None:
        """Queues a judged image if it needs a heat map. If the queue is full, it drops a request, which is counted in a metric."""
        picture = judged.decoded.picture
        if not self._is_enabled or not self._queue.accepts(verdict):
            return
        if not isinstance(picture, DecodedPicture) or not isinstance(judged.prediction, Prediction):
            return
        if version.name in self._mappers and self._mappers[version.name] is None:
            return
        dropped = self._queue.add(HeatMapRequest(verdict, picture.pixels, version))
        if dropped is not None:
            metrics.findings_dropped.labels(dropped.verdict.line).inc()
        self._loop.wake()

    def close(self) -> None:
        """Ends the loop of `run`. Requests that are still queued are dropped."""
        self._loop.close()

    async def run(self) -> None:
        """Makes heat maps of queued pictures until `close` is called."""
        while self._is_enabled and not self._loop.is_closed:
            await self._take_step()
        self._side_executor.shutdown(wait=False)

    async def _take_step(self) -> None:
        """Does one of three things: opens the heat mapper of a version, makes one heat map, or waits for work or for idle networks."""
        if len(self._queue) and not self._may_use_networks():
            await self._loop.wait(_BUSY_WAIT_S)
            return
        unopened = [version for name, version in self._needed_versions().items() if name not in self._mappers]
        if unopened and self._may_use_networks() and self._may_open_version():
            await self._open(unopened[0])
        elif unopened:
            await self._loop.wait(_BUSY_WAIT_S)
        elif len(self._queue):
            await self._explain(self._queue.pop())
        else:
            await self._loop.wait(_VERSION_CHECK_S)

    def _may_use_networks(self) -> bool:
        is_overdue = self._queue.is_person_waiting and time.monotonic() - self._explained_s >= _MAX_PERSON_WAIT_S
        return self._is_idle() or is_overdue

    def _may_open_version(self) -> bool:
        return self._queue.is_person_waiting or time.monotonic() - self._started_s >= _START_DELAY_S

    def _needed_versions(self) -> dict[str, Version]:
        return {version.name: version for version in self._current_versions()} | self._queue.versions()

    async def _open(self, version: Version) -> None:
        needed = self._needed_versions()
        self._mappers = {name: mapper for name, mapper in self._mappers.items() if name in needed}
        try:
            mapper = await asyncio.get_running_loop().run_in_executor(self._side_executor, self._open_mapper, version)
        except Exception as error:  # noqa: BLE001  without a heat mapper the version still gives verdicts
            log.error("Version %s judges, but makes no heat maps, because its heat mapper could not be opened: %r", version.name, error)
            mapper = None
        else:
            log.info(
                "Version %s %s.",
                version.name,
                "makes heat maps" if mapper else "makes no heat maps, because it has no AlexNet, no segmentation head and no scorer",
            )
        self._mappers[version.name] = mapper

    async def _explain(self, request: HeatMapRequest) -> None:
        part, loop = request.verdict.part_id, asyncio.get_running_loop()
        self._explained_s = time.monotonic()
        mapper = self._mappers[request.version.name]
        if mapper is None:
            return
        try:
            found = await loop.run_in_executor(self._executor, mapper.compute_defect_map, request.pixels)
            finding = await loop.run_in_executor(self._side_executor, self._store_heat_map, request.verdict, found)
            await self._producer.deliver([make_json_record(self._names.findings(part.line), part.key, finding, "inspector")])
        except Exception as error:  # noqa: BLE001  a picture that cannot be explained keeps its verdict
            metrics.findings_failed.labels(part.line).inc()
            log.warning("Part %s gets no heat map: %r", part, error, extra={"part": str(part)})
            return
        metrics.findings.labels(part.line).inc()
        metrics.finding_seconds.observe((datetime.now(UTC) - request.verdict.decided_at).total_seconds())

    def _store_heat_map(self, verdict: Verdict, found: DefectMap) -> Finding:
        cropped = found.crop(verdict.image.width_px, verdict.image.height_px)
        mask = self._find_mask(verdict.line, *cropped.heat.shape)
        if mask is not None:
            cropped = cropped.limit_to(mask)
        address = self._store.put(encode_png(cropped.heat), "maps")
        finding = make_finding(verdict, cropped, address, datetime.now(UTC), self._find_scale(verdict.line))
        table = self._tables.get(verdict.line)
        return finding if table is None else finding.model_copy(update={"acceptance": table.grade(finding.boxes)})


def make_finding(verdict: Verdict, found: DefectMap, address: str, found_at: datetime, mm_per_px: float | None = None) -> Finding:
    """Returns the finding of a defect map that covers the whole picture of `verdict`. Its heat map is stored at `address`.

    Even the heat map of a good part has hot areas. Therefore the score of a box is the highest heat in the box times the defect probability
    of the verdict. If `mm_per_px` is given, each box has the area and the length of its defect in millimetres.
    """
    probability = verdict.defect_probability or 0.0
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
                score=round(box.score * probability, 4),
                kind=box.kind,
                area_mm2=None if mm_per_px is None else round(box.area_px * mm_per_px**2, 3),
                length_mm=None if mm_per_px is None else round(box.length_px * mm_per_px, 3),
            )
            for box in found.find_boxes(verdict.image.width_px, verdict.image.height_px)
        ),
        heat_map=address,
        found_at=found_at,
    )


def encode_png(heat: npt.NDArray[np.float32]) -> bytes:
    """Returns a heat map (values 0..1) as the bytes of a PNG file with the grey levels 0..255."""
    file = io.BytesIO()
    Image.fromarray((heat * 255 + 0.5).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
