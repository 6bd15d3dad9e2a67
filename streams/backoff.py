"""The waits between the attempts of an operation that keeps failing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubles the wait after each failure, up to a bound, and starts again after a success.

    `first_s` is the wait after the first failure and `longest_s` the upper bound of all waits, both in seconds. The class only computes
    the waits. The caller sleeps, so that threads, coroutines and tests can all use the class.

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
        # The exponent is bounded, because 2.0 ** 2000 would overflow after some days of failures.
        wait_s = min(self.longest_s, self.first_s * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return wait_s

    def succeeded(self) -> None:
        """Resets the count of failures, so that the next failure waits `first_s` again."""
        self.failures = 0
