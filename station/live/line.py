"""One line as the wall shows it: its last parts, the counts of the shift, ages, trend, gate and alarms. Pure: time is passed in.

Bounded: a line that runs for a year holds no more than one that ran for an hour.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile

from station.live.seen import SeenPart
from streams.identity import PartId
from streams.records import Finding, Label, Sorting, Verdict
from streams.settings import LineSettings

RECENT = 60
NEW_ON_A_CARD = 2
_COUNTED = 4096  # a repeat comes soon after its first
_TREND = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
LATELY = timedelta(minutes=10)
_MOST_AGES = 6000


@dataclass(frozen=True)
class Ages:
    """From picture to verdict over the last minute, seconds; None without a verdict."""

    p50_s: float | None
    p99_s: float | None


class LineState:
    """What the records of one line have come to so far. Not thread-safe: its owner locks."""

    def __init__(self, settings: LineSettings, recent: int = RECENT) -> None:
        self.settings = settings
        self.name = settings.name
        self.version = 0  # counts up with every change
        self.shift_since: datetime | None = None
        self.counts: Counter[str] = Counter()
        self.diverted = 0
        self.last_sorting: Sorting | None = None
        self.last_verdict: Verdict | None = None
        self.faulty: deque[SeenPart] = deque(maxlen=24)
        self._recent = recent
        self._parts: OrderedDict[PartId, SeenPart] = OrderedDict()
        self._judged: OrderedDict[PartId, None] = OrderedDict()
        self._sorted: OrderedDict[PartId, None] = OrderedDict()
        self._trend: dict[datetime, Counter[str]] = {}
        self._ages: deque[tuple[datetime, float]] = deque(maxlen=_MOST_AGES)
        self._letters: deque[tuple[datetime, str]] = deque(maxlen=1000)
        self._missed: deque[tuple[datetime, str]] = deque(maxlen=1000)

    def begin_shift(self, since: datetime, counts: Counter[str], minutes: dict[datetime, Counter[str]] | None = None) -> None:
        """Counts anew from `since`, with what the archive has counted already."""
        self.shift_since, self.counts, self.diverted = since, Counter(counts), 0
        if minutes is not None:
            self._trend = dict(minutes)
        self.version += 1

    def verdict(self, found: Verdict, out_at: datetime, counted_from: datetime) -> None:
        """A verdict that the broker had at `out_at`; parts photographed before `counted_from` are counted already."""
        part = found.part_id
        known = self._parts.get(part)
        if known is not None and known.verdict is not None and known.verdict.decided_at <= found.decided_at:
            return  # a repeat: the first stands
        self._keep(replace(known or SeenPart(part), verdict=found))
        self.version += 1
        if not _first(self._judged, part):
            return
        if self.last_verdict is None or self.last_verdict.decided_at < found.decided_at:
            self.last_verdict = found
        if found.captured_at >= counted_from:
            minute = found.captured_at.replace(second=0, microsecond=0)
            self._trend.setdefault(minute, Counter())[found.label] += 1
            if self.shift_since is None or found.captured_at >= self.shift_since:
                self.counts[found.label] += 1
        self._ages.append((out_at, max(0.0, (max(out_at, found.decided_at) - found.captured_at).total_seconds())))
        if len(self._trend) > 90:
            self._forget(found.captured_at)

    def sorting(self, event: Sorting) -> None:
        """What the gate did."""
        part = event.part_id
        if not _first(self._sorted, part):
            return
        known = self._parts.get(part)
        if known is not None:
            self._keep(replace(known, sorting=event))
        self.last_sorting = event
        if self.shift_since is None or event.sorted_at >= self.shift_since:
            self.diverted += event.action == "diverted"
        if event.late or event.reason in ("late-verdict", "no-verdict"):
            self._missed.append((event.sorted_at, "late" if event.late or event.reason == "late-verdict" else "none"))
        self.version += 1

    def finding(self, found: Finding) -> None:
        """Where a part is suspicious."""
        part = found.part_id
        known = self._parts.get(part)
        if known is None or (known.verdict is not None and known.verdict.verdict_id != found.verdict_id):
            return
        self._keep(replace(known, finding=found))
        self.version += 1

    def dead_letter(self, at: datetime, reason: str) -> None:
        """A record of this line was parked."""
        self._letters.append((at, reason))
        self.version += 1

    def part(self, part: PartId) -> SeenPart | None:
        """What is held of `part`."""
        return self._parts.get(part)

    def last_parts(self, count: int) -> list[SeenPart]:
        """The newest parts with a verdict, newest first."""
        judged = (part for part in reversed(self._parts.values()) if part.verdict is not None)
        return [part for part, _ in zip(judged, range(count), strict=False)]

    def renewed(self, shown: Sequence[SeenPart], count: int) -> list[SeenPart]:
        """What a card of `count` parts that shows `shown` shows next, newest first: some of the parts judged since come in.

        At most NEW_ON_A_CARD of them, the newest and the newest faulty one, so that a card's pictures change as slowly on a fast line as
        on a slow one. A card that is not full shows the newest.
        """
        if len(shown) < count:
            return self.last_parts(count)
        known = {part.id for part in shown}
        fresh = list(takewhile(lambda part: part.id not in known, self.last_parts(self._recent)))
        wanted = sorted(fresh, key=lambda part: (part is not fresh[0], part.label == "ok"))  # keeps the order of those that are alike
        chosen = {part.id for part in wanted[:NEW_ON_A_CARD]}
        kept = [self._parts.get(part.id, part) for part in shown]
        return [*(part for part in fresh if part.id in chosen), *kept][:count]

    def ages(self, now: datetime) -> Ages:
        """Over the last minute before `now`."""
        ages = sorted(age_s for at, age_s in self._ages if now - at <= _MINUTE)
        if not ages:
            return Ages(None, None)
        return Ages(ages[len(ages) // 2], ages[min(len(ages) - 1, int(len(ages) * 0.99))])

    def trend(self, now: datetime) -> list[tuple[datetime, Counter[str]]]:
        """The last 60 minutes, oldest first, empty ones too."""
        last = now.replace(second=0, microsecond=0)
        minutes = [last - _TREND + (step + 1) * _MINUTE for step in range(60)]
        return [(minute, self._trend.get(minute, Counter())) for minute in minutes]

    def letters(self, now: datetime) -> Counter[str]:
        """Dead letters of the last hour by reason."""
        return Counter(reason for at, reason in self._letters if now - at <= _TREND)

    def missed(self, now: datetime) -> Counter[str]:
        """Parts of the last ten minutes whose verdict was `late`, or for which there was `none`."""
        return Counter(what for at, what in self._missed if now - at <= LATELY)

    def _keep(self, part: SeenPart) -> None:
        self._parts[part.id] = part
        while len(self._parts) > self._recent:
            self._parts.popitem(last=False)
        if part.label in ("defect", "review"):
            for place, other in enumerate(self.faulty):
                if other.id == part.id:
                    self.faulty[place] = part
                    return
            self.faulty.append(part)

    def _forget(self, now: datetime) -> None:
        self._trend = {minute: counts for minute, counts in self._trend.items() if now - minute <= _TREND}


def _first(known: OrderedDict[PartId, None], part: PartId) -> bool:
    """Whether `part` comes for the first time; remembers it."""
    if part in known:
        return False
    known[part] = None
    if len(known) > _COUNTED:
        known.popitem(last=False)
    return True


LABELS: tuple[Label, ...] = ("ok", "defect", "review")
