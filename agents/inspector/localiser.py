"""The localiser: where a suspicious picture is suspicious, found after its verdict and in time that no other verdict needs.

    delivered verdicts -> suspects (bounded) -> heat map (the networks' thread, one at a time) -> store -> findings topic

It has no share in the way of a casting: what it cannot do in idle time is dropped and counted, and what fails is counted and
named. Pictures that a person waits for (`inspector.explain_lines`) come first and are kept longest; while the lines leave no idle
time, one of them every two seconds is explained all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from agents.inspector.judging import Judged
from models.inference.heat_map import crop_to_picture, find_boxes
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

METHOD = "grad-cam"
_MOST = 64  # suspects of ordinary lines that wait: 50 kB each
_MOST_EXPLAINED = 1024  # of lines that a person waits for
_LOOK_AGAIN_S = 0.05
_LOOK_FOR_VERSIONS_S = 1.0
# Opening a version takes seconds of processor. A worker that has just started looks idle, but pictures that waited for it come next.
_SETTLED_S = 5.0
# A person's picture goes before the lines' at most so often: a map takes the time of a few verdicts.
_PATIENCE_S = 2.0


class Mapper(Protocol):
    """What makes heat maps: models.inference.grad_cam.GradCam."""

    def compute_heat_map(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


OpenMapper = Callable[[Version], Mapper | None]  # warm; None for a version that has nothing to explain with


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture whose verdict is out, and the version that gave it."""

    verdict: Verdict
    pixels: npt.NDArray[np.uint8]
    version: Version


class Waiting:
    """Suspects in two rows, each with its first come first: of lines that a person waits for, and of all others."""

    def __init__(self, explain_lines: Iterable[str], most: int = _MOST, most_explained: int = _MOST_EXPLAINED) -> None:
        self._explain_lines = frozenset(explain_lines)
        self._explained: deque[Suspect] = deque()
        self._ordinary: deque[Suspect] = deque()
        self._most, self._most_explained = most, most_explained

    def __len__(self) -> int:
        return len(self._explained) + len(self._ordinary)

    def wants(self, verdict: Verdict) -> bool:
        """Whether the picture of `verdict` is to be explained."""
        return verdict.label != "ok" or verdict.line in self._explain_lines

    def add(self, suspect: Suspect) -> Suspect | None:
        """Takes `suspect`; returns the one that has to go where there is no room: of a belt the oldest, of uploads the one that came."""
        if suspect.verdict.line in self._explain_lines:
            if len(self._explained) >= self._most_explained:
                return suspect
            self._explained.append(suspect)
            return None
        self._ordinary.append(suspect)
        return self._ordinary.popleft() if len(self._ordinary) > self._most else None

    @property
    def for_a_person(self) -> bool:
        """Whether a person waits for the next one."""
        return bool(self._explained)

    def next(self) -> Suspect:
        """Who is next; there must be one."""
        return (self._explained or self._ordinary).popleft()

    def versions(self) -> dict[str, Version]:
        """Those that are still needed, by name."""
        return {suspect.version.name: suspect.version for suspect in (*self._explained, *self._ordinary)}


class Localiser:
    """Explains what `watch` is given while `idle` says that no picture waits for its verdict, on the executor of the networks."""

    def __init__(
        self,
        networks: Executor,
        idle: Callable[[], bool],
        in_force: Callable[[], Iterable[Version]],
        settings: InspectorSettings,
        names: TopicNames,
        store: ObjectStore,
        courier: RecordProducer,
        open_mapper: OpenMapper,
    ) -> None:
        self._networks = networks
        self._idle = idle
        self._in_force = in_force
        self._on = settings.localise
        self._names = names
        self._store = store
        self._courier = courier
        self._open_mapper = open_mapper
        self._waiting = Waiting(settings.explain_lines)
        self._mappers: dict[str, Mapper | None] = {}  # by name of the version
        self._aside = ThreadPoolExecutor(1, "localiser")  # opens versions and writes maps: neither is to hold the networks up
        self._come = asyncio.Event()
        self._closed = False
        self._begun_s = self._explained_s = time.monotonic()

    def watch(self, judged: Judged, verdict: Verdict, version: Version) -> None:
        """Takes a judged picture that is suspicious or of a line to be explained, as far as there is room; counts the others."""
        picture = judged.decoded.picture
        if not self._on or not self._waiting.wants(verdict):
            return
        if not isinstance(picture, DecodedPicture) or not isinstance(judged.opinion, Prediction):
            return  # nothing was seen on it
        if version.name in self._mappers and self._mappers[version.name] is None:
            return  # said when it was opened
        dropped = self._waiting.add(Suspect(verdict, picture.pixels, version))
        if dropped is not None:
            metrics.findings_dropped.labels(dropped.verdict.line).inc()
        self._come.set()

    def close(self) -> None:
        """What still waits is let go."""
        self._closed = True
        self._come.set()

    async def run(self) -> None:
        """Explains until closed."""
        while self._on and not self._closed:
            if len(self._waiting) and not self._turn():
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            missing = [version for name, version in self._needed().items() if name not in self._mappers]
            if not missing and not len(self._waiting):
                self._come.clear()
                with contextlib.suppress(TimeoutError):
                    # A version that comes into force is opened before its first picture wants it.
                    await asyncio.wait_for(self._come.wait(), _LOOK_FOR_VERSIONS_S)
            elif not self._turn() or (missing and not self._settled()):
                await asyncio.sleep(_LOOK_AGAIN_S)
            elif missing:
                await self._open(missing[0])
            else:
                await self._explain(self._waiting.next())
        self._aside.shutdown(wait=False)

    def _turn(self) -> bool:
        """Whether the networks' thread may be asked now."""
        return self._idle() or (self._waiting.for_a_person and time.monotonic() - self._explained_s >= _PATIENCE_S)

    def _settled(self) -> bool:
        """Whether a version may be opened: no longer just started, or a person waits for it."""
        return self._waiting.for_a_person or time.monotonic() - self._begun_s >= _SETTLED_S

    def _needed(self) -> dict[str, Version]:
        return {version.name: version for version in self._in_force()} | self._waiting.versions()

    async def _open(self, version: Version) -> None:
        needed = self._needed()
        self._mappers = {name: mapper for name, mapper in self._mappers.items() if name in needed}
        try:
            mapper = await asyncio.get_running_loop().run_in_executor(self._aside, self._open_mapper, version)
        except Exception as error:  # noqa: BLE001  whatever a version breaks here, its verdicts stand
            log.error("version %s judges, but makes no heat maps: %r", version.name, error)
            mapper = None
        else:
            log.info("version %s %s", version.name, "makes heat maps" if mapper else "has no AlexNet: it makes no heat maps")
        self._mappers[version.name] = mapper

    async def _explain(self, suspect: Suspect) -> None:
        part, loop = suspect.verdict.part_id, asyncio.get_running_loop()
        self._explained_s = time.monotonic()
        mapper = self._mappers[suspect.version.name]
        if mapper is None:
            return
        try:
            heat = await loop.run_in_executor(self._networks, mapper.compute_heat_map, suspect.pixels)
            found = await loop.run_in_executor(self._aside, self._kept, suspect.verdict, heat)
            await self._courier.deliver([make_json_record(self._names.findings(part.line), part.key, found, "inspector")])
        except Exception as error:  # noqa: BLE001  a picture that cannot be explained has its verdict all the same
            metrics.findings_failed.labels(part.line).inc()
            log.warning("part %s has no heat map: %r", part, error, extra={"part": str(part)})
            return
        metrics.findings.labels(part.line).inc()
        metrics.finding_seconds.observe((datetime.now(UTC) - suspect.verdict.decided_at).total_seconds())

    def _kept(self, verdict: Verdict, heat: npt.NDArray[np.float32]) -> Finding:
        shown = crop_to_picture(heat, verdict.image.width_px, verdict.image.height_px)
        address = self._store.put(as_png(shown), "maps")
        return finding(verdict, shown, address, datetime.now(UTC))


def finding(verdict: Verdict, heat: npt.NDArray[np.float32], address: str, found_at: datetime) -> Finding:
    """The record on a `heat` map within the picture of `verdict` that lies at `address`.

    A map is as hot on a good part: the boxes' scores are their heat times the verdict's defect probability.
    """
    sure = verdict.defect_probability or 0.0
    areas = find_boxes(heat, verdict.image.width_px, verdict.image.height_px)
    return Finding(
        line=verdict.line,
        run=verdict.run,
        part=verdict.part,
        verdict_id=verdict.verdict_id,
        method=METHOD,
        model=verdict.model,
        boxes=tuple(
            Box(
                left_px=area.left_px,
                top_px=area.top_px,
                width_px=area.width_px,
                height_px=area.height_px,
                score=round(area.score * sure, 4),
            )
            for area in areas
        ),
        heat_map=address,
        found_at=found_at,
    )


def as_png(heat: npt.NDArray[np.float32]) -> bytes:
    """Heat 0..1 as grey 0..255, 8 bit."""
    file = io.BytesIO()
    Image.fromarray((heat * 255 + 0.5).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
