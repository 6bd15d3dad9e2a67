"""The present state of one line, which the station builds from the line's records. Old records are forgotten, to save memory.

Functions that need the present time get it as the parameter `now`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile

from django.urls import reverse

from station.configuration import current_settings
from station.pictures.signed_urls import make_signed_url
from streams.identity import PartId, RecentPartIds
from streams.records import Box, Finding, Label, Sorting, Verdict
from streams.settings import LineSettings

LABELS: tuple[Label, ...] = ("ok", "defect", "review")
RECENT_PARTS = 60
MAX_NEW_PER_UPDATE = 2
_THUMBNAIL_PX = 240
_REMEMBERED_PART_IDS = 4096
_REMEMBERED_LATENCIES = 6000
_REMEMBERED_EVENTS = 1000
_REMEMBERED_FAULTY_PARTS = 24
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_MISSED_VERDICT_WINDOW = timedelta(minutes=10)
_MAX_TREND_MINUTES = 90

_REASONS_IN_WORDS = {
    "empty": "the picture was empty",
    "too-large": "the picture was too large",
    "too-many-pixels": "the picture had too many pixels",
    "not-an-image": "the file was not a picture",
    "truncated": "the picture ended too early",
    "damaged": "the picture was damaged",
    "depth": "the depth of its grey levels is not set or does not fit",
    "blank": "the picture was blank",
    "partly-blank": "a part of the picture was blank",
    "decoder-limits": "decoding the picture took too much memory or time",
    "claim-missing": "the picture was not in the store",
    "claim-damaged": "the store held another picture in its place",
    "wrong-header": "a header of the picture's record was wrong",
    "inference-failed": "the networks failed on the picture",
    "handling-failed": "the inspector failed on the picture",
    "anomaly": "the part looks different from good parts",
    "no-part": "the picture showed no part",
    "partly-in-view": "the part was not wholly in view",
    "unknown-part": "the picture showed something other than the part",
    "doubt": "the networks were in doubt",
}


def describe_reason(reason: str) -> str:
    """Returns a phrase for the `reason` of a verdict. For example, `blank` gives "the picture was blank"."""
    return _REASONS_IN_WORDS.get(reason, reason.replace("-", " "))


@dataclass(frozen=True)
class LivePart:
    """The records that the station has received about one part. PartPictureReader can read the picture of the part."""

    id: PartId
    verdict: Verdict | None = None
    sorting: Sorting | None = None
    finding: Finding | None = None

    @property
    def part_key(self) -> str:
        return str(self.id)

    @property
    def line(self) -> str:
        return self.id.line

    @property
    def run(self) -> int:
        return self.id.run

    @property
    def part(self) -> int:
        return self.id.part

    @property
    def label(self) -> str:
        return self.verdict.label if self.verdict else ""

    @property
    def seen_at(self) -> datetime | None:
        """The time of the picture, which the verdict contains. Until the verdict arrives, it is the time at photo-eye 1, or None."""
        return self.verdict.captured_at if self.verdict else self.sorting.counted_at if self.sorting else None

    @property
    def reason(self) -> str:
        """The reason why the part is for review, as a phrase, or "" if the verdict gives no reason."""
        return describe_reason(self.verdict.reason) if self.verdict and self.verdict.reason else ""

    @property
    def boxes(self) -> tuple[Box, ...]:
        return self.finding.boxes if self.finding else ()

    @property
    def heat_map(self) -> str:
        """Address of the heat map in the object store, or "" if there is no heat map yet."""
        return self.finding.heat_map if self.finding else ""

    @property
    def width_px(self) -> int:
        return self.verdict.image.width_px if self.verdict else 0

    @property
    def height_px(self) -> int:
        return self.verdict.image.height_px if self.verdict else 0

    @property
    def thumbnail_url(self) -> str:
        """URL of the small picture. The URL of a casting is signed. If the part is an upload, the station checks who opens the URL."""
        if self.line == current_settings().station.upload_line:
            return f"{reverse('part-picture', args=(self.line, self.run, self.part))}?side={_THUMBNAIL_PX}"
        return make_signed_url(self, _THUMBNAIL_PX)

    @property
    def picture(self) -> str:
        """The address in the object store: always "", because the picture of a new part is read from Kafka."""
        return ""

    @property
    def image_topic(self) -> str:
        return self.verdict.image.topic if self.verdict else ""

    @property
    def image_partition(self) -> int | None:
        return self.verdict.image.partition if self.verdict else None

    @property
    def image_offset(self) -> int | None:
        return self.verdict.image.offset if self.verdict else None

    @property
    def sha256(self) -> str:
        return self.verdict.image.sha256 if self.verdict else ""


@dataclass(frozen=True)
class VerdictLatency:
    """The seconds from picture to verdict in the last minute: median and 99th percentile. None if no verdict arrived in this minute."""

    p50_s: float | None
    p99_s: float | None


class LineState:
    """The state of one line after all records so far. Not thread-safe, so acquire `LiveConsumer.lock` before each use.

    `version` increases with every change. `counts` holds the number of parts of this shift for each label.
    """

    def __init__(self, settings: LineSettings, recent_parts: int = RECENT_PARTS) -> None:
        self.settings = settings
        self.name = settings.name
        self.version = 0
        self.shift_since: datetime | None = None
        self.counts: Counter[str] = Counter()
        self.diverted = 0
        self.last_sorting: Sorting | None = None
        self.last_verdict: Verdict | None = None
        self.faulty_parts: deque[LivePart] = deque(maxlen=_REMEMBERED_FAULTY_PARTS)
        self._recent_parts = recent_parts
        self._parts: OrderedDict[PartId, LivePart] = OrderedDict()
        self._counted = RecentPartIds(_REMEMBERED_PART_IDS)
        self._sorted = RecentPartIds(_REMEMBERED_PART_IDS)
        self._trend: dict[datetime, Counter[str]] = {}
        self._latencies: deque[tuple[datetime, float]] = deque(maxlen=_REMEMBERED_LATENCIES)
        self._dead_letters: deque[tuple[datetime, str]] = deque(maxlen=_REMEMBERED_EVENTS)
        self._missed_verdicts: deque[tuple[datetime, str]] = deque(maxlen=_REMEMBERED_EVENTS)

    def start_shift(self, since: datetime, counts: Counter[str], minutes: dict[datetime, Counter[str]] | None = None) -> None:
        """Replaces the counts of the previous shift by the counts of a new shift, which began at `since`.

        - `counts`: for each label, the number of parts of the new shift that are already in the archive.
        - `minutes`: for each minute of the last hour, the number of parts by label. If None, the trend stays as it is.
        """
        self.shift_since, self.counts, self.diverted = since, Counter(counts), 0
        if minutes is not None:
            self._trend = dict(minutes)
        self.version += 1

    def add_verdict(self, verdict: Verdict, arrived_at: datetime, count_from: datetime) -> None:
        """Adds a verdict that reached the broker at `arrived_at`.

        Does not count a part whose picture was taken before `count_from`, because the archive has counted this part already.
        """
        part = verdict.part_id
        known = self._parts.get(part)
        # If a part has several verdicts, keep the earliest one, because the gate acted on it.
        if known is not None and known.verdict is not None and known.verdict.decided_at <= verdict.decided_at:
            return
        self._store_part(replace(known or LivePart(part), verdict=verdict))
        self.version += 1
        if not self._counted.add(part):
            return
        if self.last_verdict is None or self.last_verdict.decided_at < verdict.decided_at:
            self.last_verdict = verdict
        if verdict.captured_at >= count_from:
            minute = verdict.captured_at.replace(second=0, microsecond=0)
            self._trend.setdefault(minute, Counter())[verdict.label] += 1
            if self.shift_since is None or verdict.captured_at >= self.shift_since:
                self.counts[verdict.label] += 1
        latency_s = (max(arrived_at, verdict.decided_at) - verdict.captured_at).total_seconds()
        self._latencies.append((arrived_at, max(0.0, latency_s)))
        if len(self._trend) > _MAX_TREND_MINUTES:
            # Delete the counts that are more than an hour older than the new picture. If the clock of the camera is fast, the time of the
            # picture may lie in the future, and all counts would be deleted. So use `arrived_at` if it is earlier.
            newest = min(verdict.captured_at, arrived_at)
            self._trend = {minute: counts for minute, counts in self._trend.items() if newest - minute <= _HOUR}

    def add_sorting(self, sorting: Sorting) -> None:
        """Adds a sorting, which is the record of what the gate did with a part."""
        part = sorting.part_id
        if not self._sorted.add(part):
            return
        known = self._parts.get(part)
        if known is not None:
            self._store_part(replace(known, sorting=sorting))
        self.last_sorting = sorting
        if self.shift_since is None or sorting.sorted_at >= self.shift_since:
            self.diverted += sorting.action == "diverted"
        if sorting.has_missed_verdict:
            is_late = sorting.late or sorting.reason == "late-verdict"
            self._missed_verdicts.append((sorting.sorted_at, "late" if is_late else "none"))
        self.version += 1

    def add_finding(self, finding: Finding) -> None:
        """Adds a finding, which holds the boxes and the heat map of a suspicious part.

        Ignores a finding whose part is unknown. Also ignores a finding that belongs to another verdict than the part has now.
        """
        part = finding.part_id
        known = self._parts.get(part)
        if known is None or (known.verdict is not None and known.verdict.verdict_id != finding.verdict_id):
            return
        self._store_part(replace(known, finding=finding))
        self.version += 1

    def add_dead_letter(self, at: datetime, reason: str) -> None:
        """Adds a dead letter, which is a record of this line that could not be processed. `at` is the time of the dead letter."""
        self._dead_letters.append((at, reason))
        self.version += 1

    def find_part(self, part: PartId) -> LivePart | None:
        """Returns what is known about `part`, or None if it is not among the recent parts of the line."""
        return self._parts.get(part)

    def last_parts(self, count: int) -> list[LivePart]:
        """Returns up to `count` parts that have a verdict, newest first."""
        with_verdict = (part for part in reversed(self._parts.values()) if part.verdict is not None)
        return [part for part, _ in zip(with_verdict, range(count), strict=False)]

    def update_selection(self, shown: Sequence[LivePart], count: int) -> list[LivePart]:
        """Returns the `count` parts that a card shows next, newest first. `shown` holds the parts that the card shows now.

        On a fast line, people could not follow all new parts. So at most two parts are new at each update.
        """
        if len(shown) < count:
            return self.last_parts(count)
        shown_ids = {part.id for part in shown}
        new_parts = list(takewhile(lambda part: part.id not in shown_ids, self.last_parts(self._recent_parts)))
        by_priority = sorted(new_parts, key=lambda part: (part is not new_parts[0], part.label == "ok"))
        chosen = {part.id for part in by_priority[:MAX_NEW_PER_UPDATE]}
        remaining = [self._parts.get(part.id, part) for part in shown]
        return [*(part for part in new_parts if part.id in chosen), *remaining][:count]

    def latency(self, now: datetime) -> VerdictLatency:
        """Returns the latency of the verdicts that arrived in the minute before `now`."""
        latencies = sorted(latency_s for at, latency_s in self._latencies if now - at <= _MINUTE)
        if not latencies:
            return VerdictLatency(None, None)
        return VerdictLatency(latencies[len(latencies) // 2], latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))])

    def trend(self, now: datetime) -> list[tuple[datetime, Counter[str]]]:
        """Returns the number of parts by label for each of the last 60 minutes, oldest first. Includes minutes without parts."""
        last = now.replace(second=0, microsecond=0)
        minutes = [last - _HOUR + (step + 1) * _MINUTE for step in range(60)]
        return [(minute, self._trend.get(minute, Counter())) for minute in minutes]

    def count_dead_letters(self, now: datetime) -> Counter[str]:
        """Returns the number of dead letters in the hour before `now`, for each reason.

        A dead letter is a record that an agent could not process.
        """
        return Counter(reason for at, reason in self._dead_letters if now - at <= _HOUR)

    def count_missed_verdicts(self, now: datetime) -> Counter[str]:
        """Returns how many parts of the last ten minutes the gate sorted without a verdict.

        The keys are `late` (the verdict came too late) and `none` (no verdict came).
        """
        return Counter(kind for at, kind in self._missed_verdicts if now - at <= _MISSED_VERDICT_WINDOW)

    def _store_part(self, part: LivePart) -> None:
        self._parts[part.id] = part
        while len(self._parts) > self._recent_parts:
            self._parts.popitem(last=False)
        if part.label in ("defect", "review"):
            for index, faulty_part in enumerate(self.faulty_parts):
                if faulty_part.id == part.id:
                    self.faulty_parts[index] = part
                    return
            self.faulty_parts.append(part)
