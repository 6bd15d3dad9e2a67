"""Tests of the limits of uploads: pictures of an account per minute, and uploads in progress at once."""

from __future__ import annotations

import pytest

from station.uploads.submission import ConcurrencyLimiter, RateLimiter


def test_the_tokens_of_an_account_are_refilled_evenly() -> None:
    now = 0.0
    limiter = RateLimiter(60, lambda: now)
    assert [limiter.acquire(1) for _ in range(60)] == [0.0] * 60
    assert limiter.acquire(1) == pytest.approx(1.0)
    assert limiter.acquire(2) == 0.0, "every account has tokens of its own"
    now = 2.0
    assert [limiter.acquire(1), limiter.acquire(1)] == [0.0, 0.0]
    assert limiter.acquire(1) > 0


def test_a_slot_is_free_again_when_its_block_ends() -> None:
    limiter = ConcurrencyLimiter(1)
    with limiter.slot() as first, limiter.slot() as second:
        assert (first, second) == (True, False)
    with limiter.slot() as third:
        assert third
