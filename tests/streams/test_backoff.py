"""The back-off: waits double up to their bound, and start again after a success."""

from __future__ import annotations

from streams.backoff import Backoff


def test_waits_double_up_to_the_bound() -> None:
    backoff = Backoff(first_s=0.5, longest_s=5.0)
    assert [backoff.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 5.0]


def test_a_success_starts_the_waits_again() -> None:
    backoff = Backoff(first_s=0.5, longest_s=5.0)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failed() == 0.5


def test_days_of_failures_do_not_overflow() -> None:
    backoff = Backoff(first_s=0.5, longest_s=30.0)
    assert {backoff.failed() for _ in range(5000)} >= {30.0}
    assert backoff.failed() == 30.0
