"""A photo-eye: debounced, with the place and time of each edge as they were when it happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edge:
    """A change that held. `place` is in thousandths of a step, `at_us` in board microseconds."""

    blocked: bool
    place: int
    at_us: int


class Eye:
    """`change` takes the raw level, `settle` gives the edges that have held for the debounce time."""

    def __init__(self) -> None:
        self.blocked = False
        self.since: Edge | None = None
        self._raw = False
        self._changed: Edge | None = None
        self._settled: list[Edge] = []

    def change(self, blocked: bool, place: int, at_us: int, debounce_us: int) -> None:
        """The raw level is now `blocked`. A change back within the debounce time leaves no trace."""
        self._hold(at_us, debounce_us)
        if blocked == self._raw:
            return
        self._raw = blocked
        self._changed = Edge(blocked, place, at_us) if blocked != self.blocked else None

    def settle(self, now_us: int, debounce_us: int) -> list[Edge]:
        """Edges that have held by `now_us`, oldest first; each is given once."""
        self._hold(now_us, debounce_us)
        edges, self._settled = self._settled, []
        return edges

    def _hold(self, now_us: int, debounce_us: int) -> None:
        edge = self._changed
        if edge is not None and now_us - edge.at_us >= debounce_us:
            self.blocked, self._changed = edge.blocked, None
            self.since = edge if edge.blocked else None
            self._settled.append(edge)
