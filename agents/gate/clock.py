"""Turns the board's time into the host's: offset and drift from the exchanges of SYNC. Pure; seconds are monotonic."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WRAP_MS = 2**32
_KEPT = 16
# A shorter base gives a drift that is mostly the exchanges' own error.
_DRIFT_BASE_S = 20.0


@dataclass(frozen=True)
class Exchange:
    """One SYNC: when the host sent and received, and the board's time in between. Seconds."""

    sent_s: float
    received_s: float
    board_s: float

    @property
    def round_trip_s(self) -> float:
        return self.received_s - self.sent_s

    @property
    def middle_s(self) -> float:
        return (self.sent_s + self.received_s) / 2

    @property
    def offset_s(self) -> float:
        """Host's monotonic time less board time, wrong by at most half the round trip."""
        return self.middle_s - self.board_s


class BoardClock:
    """Of the last 16 exchanges the quickest gives the offset; the quickest early and late ones give the drift."""

    def __init__(self) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=_KEPT)

    @property
    def known(self) -> bool:
        return bool(self._exchanges)

    @property
    def error_s(self) -> float:
        """Half the shortest round trip: the offset is no worse than this, drift aside."""
        return min((each.round_trip_s for each in self._exchanges), default=0.0) / 2

    def forget(self) -> None:
        """The board was reset: its time began anew."""
        self._exchanges.clear()

    def add(self, sent_s: float, received_s: float, board_ms: int, board_us: int) -> None:
        """One answered SYNC, `board_ms` and `board_us` as on the wire."""
        ms = board_ms if not self._exchanges else self._unwrapped(board_ms, received_s)
        self._exchanges.append(Exchange(sent_s, received_s, ms / 1000 + board_us / 1e6))

    def host_s(self, at_ms: int, near_s: float) -> float:
        """The host's monotonic time of `at_ms` (32 bits, as on the wire), an event not more than 24 days from `near_s`.

        Raises ValueError: before the first exchange.
        """
        if not self._exchanges:
            raise ValueError("expected an exchange of SYNC before board time is asked for, found none")
        board_s = self._unwrapped(at_ms, near_s) / 1000
        best = min(self._exchanges, key=lambda each: each.round_trip_s)
        return best.middle_s + (board_s - best.board_s) * self._rate()

    def _unwrapped(self, ms: int, near_s: float) -> int:
        """`ms` with the wraps that bring it nearest to the board's time at host time `near_s`."""
        last = self._exchanges[-1]
        near_ms = round((last.board_s + near_s - last.middle_s) * 1000)
        return near_ms + (ms - near_ms + _WRAP_MS // 2) % _WRAP_MS - _WRAP_MS // 2

    def _rate(self) -> float:
        """Host seconds in a board second."""
        half = len(self._exchanges) // 2
        if half == 0:
            return 1.0
        exchanges = list(self._exchanges)
        early = min(exchanges[:half], key=lambda each: each.round_trip_s)
        late = min(exchanges[half:], key=lambda each: each.round_trip_s)
        if late.middle_s - early.middle_s < _DRIFT_BASE_S:
            return 1.0
        return (late.middle_s - early.middle_s) / (late.board_s - early.board_s)
