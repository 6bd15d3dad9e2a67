"""One part as the live pages know it: its verdict, what the gate did, what was found on it. In any order, each the first that counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.urls import reverse

from station.configuration import castline
from station.live.passes import address
from streams.identity import PartId
from streams.records import Box, Finding, Sorting, Verdict

_SMALL_PX = 240

_WORDS = {
    "empty": "the picture was empty",
    "too-large": "the picture was too large",
    "too-many-pixels": "the picture had too many pixels",
    "not-an-image": "it was no picture",
    "truncated": "the picture ended too early",
    "damaged": "the picture was damaged",
    "claim-missing": "the picture was not in the store",
    "claim-damaged": "what lay in the store was not this picture",
    "inference-failed": "the networks failed on it",
    "doubt": "the networks were in doubt",
}


def reason_in_words(reason: str) -> str:
    """Why a part is for review, for a person; the word itself where there is no sentence for it."""
    return _WORDS.get(reason, reason.replace("-", " "))


@dataclass(frozen=True)
class SeenPart:
    """What is known of one part. Fits `station.live.pictures.Placed`."""

    id: PartId
    verdict: Verdict | None = None
    sorting: Sorting | None = None
    finding: Finding | None = None

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
        return self.verdict.captured_at if self.verdict else self.sorting.counted_at if self.sorting else None

    @property
    def reason(self) -> str:
        """Why it is for review, in words; empty where it is not."""
        return reason_in_words(self.verdict.reason) if self.verdict and self.verdict.reason else ""

    @property
    def boxes(self) -> tuple[Box, ...]:
        return self.finding.boxes if self.finding else ()

    @property
    def heat_map(self) -> str:
        return self.finding.heat_map if self.finding else ""

    @property
    def width_px(self) -> int:
        return self.verdict.image.width_px if self.verdict else 0

    @property
    def height_px(self) -> int:
        return self.verdict.image.height_px if self.verdict else 0

    @property
    def small_picture(self) -> str:
        """Its address for those who are shown the card; an upload's picture is for its owner, who is asked for there."""
        if self.line == castline().station.upload_line:
            return f"{reverse('part-picture', args=(self.line, self.run, self.part))}?side={_SMALL_PX}"
        return address(self, _SMALL_PX)

    @property
    def picture(self) -> str:
        """Not known of a part that is just coming: the archive keeps it later."""
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
