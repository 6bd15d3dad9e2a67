"""Tests of the limits of uploads: pictures of an account per minute, and uploads in progress at once."""

from __future__ import annotations

import pytest

from station.account_limits import AccountCounter
from station.uploads.submission import RateLimiter


def test_the_tokens_of_an_account_are_refilled_evenly() -> None:
    now = 0.0
    limiter = RateLimiter(60, lambda: now)
    assert [limiter.acquire(1) for _ in range(60)] == [0.0] * 60
    assert limiter.acquire(1) == pytest.approx(1.0)
    assert limiter.acquire(2) == 0.0, "every account has tokens of its own"
    now = 2.0
    assert [limiter.acquire(1), limiter.acquire(1)] == [0.0, 0.0]
    assert limiter.acquire(1) > 0


def test_a_limit_a_day_is_refilled_within_a_day() -> None:
    now = 0.0
    limiter = RateLimiter(1000, lambda: now, period_s=86_400)
    assert limiter.acquire(1, 1000) == 0.0
    now = 60.0
    assert limiter.acquire(1, 500) == pytest.approx(43_140)
    now = 43_200.0
    assert limiter.acquire(1, 500) == 0.0


def test_what_is_given_back_can_be_acquired_again_and_is_never_more_than_the_limit() -> None:
    limiter = RateLimiter(1000, lambda: 0.0)
    assert limiter.acquire(1, 900) == 0.0
    assert limiter.acquire(1, 900) > 0
    limiter.give_back(1, 800)
    assert limiter.acquire(1, 900) == 0.0
    limiter.give_back(1, 5000)
    assert limiter.acquire(1, 1000) == 0.0
    assert limiter.acquire(1, 1) > 0
    limiter.give_back(2, 5000)
    assert limiter.acquire(2, 1000) == 0.0
    assert limiter.acquire(2, 1) > 0, "an account that has sent nothing has no more than the limit"


def test_an_upload_of_an_account_ends_with_its_block_and_stops_no_other_account() -> None:
    uploads = AccountCounter()
    with uploads.counted(1, 1) as first, uploads.counted(1, 1) as second, uploads.counted(2, 1) as other:
        assert (first, second, other) == (True, False, True)
    with uploads.counted(1, 1) as third:
        assert third
