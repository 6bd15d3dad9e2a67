"""Computes how long to wait before an operation that has failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Computes the wait after a failure: `first_s` seconds at first, then twice as long each time, up to `longest_s` seconds.

    The methods do not wait themselves. The caller must wait.

    >>> backoff = Backoff(first_s=0.5, longest_s=5.0)
    >>> [backoff.failed() for _ in range(5)]
    [0.5, 1.0, 2.0, 4.0, 5.0]
    >>> backoff.succeeded()
    >>> backoff.failed()
    0.5
    """

    first_s: float
    longest_s: float
    failures: int = field(default=0, init=False)

    def failed(self) -> float:
        """Counts one more failure and returns how many seconds to wait before the next attempt."""
        # The exponent is bounded, because 2.0 ** 1024 would raise OverflowError after many failures.
        wait_s = min(self.longest_s, self.first_s * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return wait_s

    def succeeded(self) -> None:
        """Resets the count of failures to 0. So the wait after the next failure is `first_s`."""
        self.failures = 0
