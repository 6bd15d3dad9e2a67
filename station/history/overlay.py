"""Boxes over a picture, as an SVG draws them. Pure; numbers and known words only, since boxes come from records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from station.archive.models import Part
from streams.records import Box

# A picture whose size nobody told is drawn on as if it had this one.
_UNKNOWN_PX = 300


@dataclass(frozen=True)
class Drawn:
    """A rectangle with the words beside it; `whose` is `finding` or `review`."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    words: str
    whose: str

    @property
    def words_px(self) -> tuple[int, int]:
        """Where the words stand: above the box, or below its upper edge where there is no room."""
        return self.left_px, self.top_px - 3 if self.top_px > 14 else self.top_px + 12


def size_of(part: Part) -> tuple[int, int]:
    """Width and height of the picture, px."""
    return part.width_px or _UNKNOWN_PX, part.height_px or _UNKNOWN_PX


def overlay(part: Part) -> list[Drawn]:
    """All boxes known of `part`: those found, then those that a person drew."""
    return [*_drawn(part.finding_boxes, "finding"), *_drawn(part.review_boxes, "review")]


def _drawn(boxes: Iterable[Any], whose: str) -> list[Drawn]:
    found = []
    for one in boxes:
        try:
            box = Box.model_validate(one)
        except ValidationError:
            continue
        words = box.kind or (f"{box.score:.0%}" if whose == "finding" else "defect")
        found.append(Drawn(box.left_px, box.top_px, box.width_px, box.height_px, words, whose))
    return found
