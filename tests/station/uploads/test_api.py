"""Tests of the API that need no plant: the limit of pictures per minute, and refusals before the picture is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from station.accounts.models import ApiToken
from station.configuration import current_settings
from station.uploads.submission import UploadRefusedError, check_rate, get_byte_limiters, get_rate_limiter
from tests.encoded_pictures import make_large_png
from tests.station.conftest import MakeAccount


@pytest.fixture(autouse=True)
def fresh_rate_limiter() -> Iterator[None]:
    """Removes the rate limiter after a test, because the next test gives the same number to another account."""
    yield
    get_rate_limiter.cache_clear()
    get_byte_limiters.cache_clear()


def test_a_program_that_reached_its_limit_gets_429_and_the_time_to_wait(account: MakeAccount, visitor: Client) -> None:
    anna = account("anna", "reviewer")
    _, text = ApiToken.issue(anna, "tests")
    headers = {"Authorization": f"Bearer {text}"}
    # The limit is refilled by ten pictures a second while this test runs.
    with contextlib.suppress(UploadRefusedError):
        while True:
            check_rate(anna)
    responses = (visitor.post("/api/inspections", b"poem", content_type="image/jpeg", headers=headers) for _ in range(500))
    refused = next(response for response in responses if response.status_code == 429)
    assert int(refused["Retry-After"]) >= 1
    assert "at most 600 a minute" in refused.json()["error"]


def test_a_program_cannot_send_more_megabytes_than_its_limit(account: MakeAccount, visitor: Client) -> None:
    _, text = ApiToken.issue(account("anna", "reviewer"), "tests")
    _, other = ApiToken.issue(account("berta", "reviewer"), "tests")
    large = b"poem" * 2_000_000

    def send(token: str) -> Any:
        return visitor.post("/api/inspections", large, content_type="image/png", headers={"Authorization": f"Bearer {token}"})

    # The limit of 240 megabytes a minute is refilled by four megabytes a second while this test runs.
    refused = next(response for response in (send(text) for _ in range(60)) if response.status_code != 415)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) >= 1
    assert "at most 240 megabytes a minute" in refused.json()["error"]
    assert send(other).status_code == 415


def test_a_refused_picture_counts_for_the_limits_of_a_minute_and_not_for_that_of_a_day(account: MakeAccount, visitor: Client) -> None:
    anna = account("anna", "reviewer")
    _, text = ApiToken.issue(anna, "tests")
    settings = current_settings().station
    for picture in (b"poem" * 1_000_000, make_large_png(7050)):
        headers = {"Authorization": f"Bearer {text}"}
        response = visitor.post("/api/inspections", picture, content_type="image/png", headers=headers)
        assert response.status_code in (413, 415)
    (per_minute, _), (per_day, _) = get_byte_limiters()
    assert per_minute.acquire(anna.pk, settings.upload_megabytes_per_minute * 1_000_000) > 0
    assert per_day.acquire(anna.pk, settings.upload_megabytes_per_day * 1_000_000) == 0
    assert get_rate_limiter().acquire(anna.pk, settings.uploads_per_minute) > 0, "the tries are counted"


def test_an_account_without_the_right_is_refused_and_not_counted(account: MakeAccount, visitor: Client) -> None:
    _, text = ApiToken.issue(account("anna", "operator"), "tests")
    response = visitor.post("/api/inspections", b"poem", content_type="image/jpeg", headers={"Authorization": f"Bearer {text}"})
    assert response.status_code == 403
    assert "not allowed to upload" in response.json()["error"]
