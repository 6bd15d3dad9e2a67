"""How long a process that keeps dying waits before it is started again. Pure: lives in, a decision out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """The n-th death in a row waits `first_s` x `factor`^(n-1), at most `most_s`; who lived `quiet_s` begins anew."""

    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 30.0
    quiet_s: float = 60.0
    most_in_row: int | None = None  # None: never give up

    def in_row(self, lives_s: Sequence[float]) -> int:
        """How many deaths follow each other without a quiet time; `lives_s`: how long each start lived, latest last."""
        count = 0
        for life_s in reversed(lives_s):
            count += 1
            if life_s >= self.quiet_s:
                break
        return count

    def wait_s(self, lives_s: Sequence[float]) -> float | None:
        """Seconds from the last death to the next start; 0 without a death; None: give up."""
        count = self.in_row(lives_s)
        if count == 0:
            return 0.0
        if self.most_in_row is not None and count > self.most_in_row:
            return None
        # The exponent is bounded: 2.0 ** 2000 would overflow after some days of dying.
        return min(self.most_s, self.first_s * self.factor ** min(count - 1, 64))
