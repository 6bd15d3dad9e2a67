"""Finds which castings passed the two photo-eyes of a lane, from the times of their signals. `castline board teach` uses the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_U32, _COUNTS = 2**32, 2**16


@dataclass(frozen=True)
class EyeEdges:
    """The contents of the status page `edge1` or `edge2`, which describes the objects at one photo-eye.

    - `count`: how many leading edges the photo-eye has seen.
    - `at_ms`, `steps`: the time of the last leading edge, and the encoder count at this time.
    - `length_ms`, `length_steps`: the length of the object with this edge. They are 0 while the object blocks the photo-eye.
    """

    count: int
    at_ms: int
    steps: int
    length_ms: int
    length_steps: int

    @classmethod
    def from_page(cls, page: Mapping[str, int | str]) -> Self:
        """Returns the values from the status page `edge1` or `edge2`. Each page describes the last casting at one photo-eye."""
        return cls(*(int(page[name]) for name in ("edges", "edge_ms", "edge_steps", "length_ms", "length_steps")))

    @property
    def end(self) -> tuple[int, int]:
        """The time of the trailing edge in ms, and the encoder count at this time."""
        return self.at_ms + self.length_ms, self.steps + self.length_steps


@dataclass(frozen=True)
class PassedCasting:
    """A casting that passed both photo-eyes.

    - `travel_ms`, `travel_steps`: the travel from photo-eye 1 to photo-eye 2, in milliseconds and in encoder edges.
    - `length_ms`, `length_steps`: the length of the casting in the same units. Both are 0 if photo-eye 1 did not see the trailing edge
      before the casting reached photo-eye 2.
    """

    travel_ms: int
    travel_steps: int
    length_ms: int
    length_steps: int


def signed(later: int, earlier: int, wrap: int = _U32) -> int:
    """Returns by how much a counter has grown from `earlier` to `later`. The counter starts again from 0 at `wrap`.

    The result is from -wrap / 2 to wrap / 2. Example: with a `wrap` of 100, the counter grows by 4 from 98 to 2.
    """
    return (later - earlier + wrap // 2) % wrap - wrap // 2


class PassedCastings:
    """Collects castings that pass both photo-eyes one at a time. Call `add` at least every 0.1 s with the newest values of both photo-eyes.

    A casting must reach photo-eye 2 before the next casting reaches photo-eye 1. So the casting at photo-eye 2 is always the last casting
    that passed photo-eye 1, and the distance between the photo-eyes need not be known.

    If a photo-eye is free for less than `part_min_ms` and then blocked again, it still sees the same casting.

    `problem` says why the castings cannot be measured, or is empty.
    """

    def __init__(self, edge1: EyeEdges, edge2: EyeEdges, part_min_ms: float, has_encoder: bool) -> None:
        self.castings: list[PassedCasting] = []
        self.problem = ""
        # For each photo-eye, the number of leading edges that were counted.
        self.seen = {1: 0, 2: 0}
        self._part_min_ms = part_min_ms
        self._has_encoder = has_encoder
        self._last = {1: edge1, 2: edge2}
        # What photo-eye 1 has seen of the casting that is now between the photo-eyes. None if no casting is there.
        self._leading: EyeEdges | None = None
        # True if a photo-eye has seen several objects between two calls of `add`, so that only the last object is known. Then the casting
        # between the photo-eyes is not measured.
        self._is_spoiled = False

    def add(self, edge1: EyeEdges, edge2: EyeEdges) -> None:
        """Adds the newest values of photo-eye 1 and photo-eye 2. They come from the status pages `edge1` and `edge2` of the board."""
        pages = {1: edge1, 2: edge2}
        eyes = [eye for eye in (1, 2) if pages[eye].count != self._last[eye].count]
        # What photo-eye 1 has seen of the casting that is now at photo-eye 2.
        own_edge1 = edge1
        if len(eyes) == 2 and signed(edge1.at_ms, edge2.at_ms) > 0:
            eyes.reverse()
            if not self._is_same_object(edge1, self._last[1]):
                # The newest values of photo-eye 1 already belong to the next casting. For the casting at photo-eye 2, the values of the
                # previous call are used.
                own_edge1 = self._last[1]
        for eye in eyes:
            edge, before = pages[eye], self._last[eye]
            new = (edge.count - before.count) % _COUNTS
            self.seen[eye] += new
            self._is_spoiled |= new > 1
            if not self._is_same_object(edge, before) and not self.problem:
                self._begin(edge, before) if eye == 1 else self._finish(edge, own_edge1)
        self._last = pages

    def _is_same_object(self, edge: EyeEdges, before: EyeEdges) -> bool:
        is_first = before.count == 0 and before.at_ms == 0
        return not is_first and signed(edge.at_ms, before.end[0]) < self._part_min_ms

    def _begin(self, edge: EyeEdges, before: EyeEdges) -> None:
        is_noise = 0 < before.length_ms < self._part_min_ms
        if self._leading is not None and not is_noise and not self._is_spoiled:
            self.problem = (
                "The castings are too close together: a second casting was at photo-eye 1 before the first one reached photo-eye 2. Let "
                "the belt run empty, and put the castings on the belt one at a time."
            )
        self._leading = edge

    def _finish(self, edge: EyeEdges, edge1: EyeEdges) -> None:
        leading, self._leading = self._leading, None
        is_spoiled, self._is_spoiled = self._is_spoiled, False
        if is_spoiled:
            return
        if leading is None:
            self.problem = (
                "A casting was at photo-eye 2 first. Either a casting still lay between the photo-eyes, or the belt runs backwards, or the "
                "wires of the photo-eyes are exchanged. Empty the belt between the photo-eyes, and check its direction and the wires."
            )
            return
        travel_steps = signed(edge.steps, leading.steps)
        if self._has_encoder and travel_steps <= 0:
            self.problem = (
                f"The encoder counted {travel_steps} edges while a casting went from photo-eye 1 to photo-eye 2. If the number is 0, check "
                "the wires of the encoder. If it is negative, the belt runs backwards, or the phases A and B are exchanged."
            )
            return
        end_ms, end_steps = edge1.end if edge1.length_ms else (leading.at_ms, leading.steps)
        length = signed(end_ms, leading.at_ms), signed(end_steps, leading.steps)
        self.castings.append(PassedCasting(signed(edge.at_ms, leading.at_ms), travel_steps, *length))
