"""Signed picture addresses: only this station can make one, and an address expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.signing import Signer
from django.test import override_settings

from models.pictures.display import EncodedPicture
from station.kafka_producer import KafkaUnavailableError
from station.live.line_state import LivePart
from station.pictures.signed_urls import PREFIX, SignedUrl, SignedUrlMiddleware, make_signed_url, read_signed_url
from streams.errors import DecoderProcessError, PictureError
from streams.identity import PartId
from tests.station.live.records import make_verdict

NOW_S = 1_795_000_000.0
PART = LivePart(PartId("line-1", 7, 3), make_verdict(3))


def token(now_s: float) -> str:
    return make_signed_url(PART, 240, now_s).removeprefix(PREFIX)


def read_picture(url: SignedUrl) -> EncodedPicture | None:
    assert (url.line, url.image_topic, url.image_offset, url.side_px) == ("line-1", "castings.images.line-1", 3, 240)
    return EncodedPicture(b"a small picture", "image/jpeg")


def request_picture(
    path: str, read: Callable[[SignedUrl], EncodedPicture | None] = read_picture, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Returns status, headers and body of the response."""
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> dict[str, Any]:
        raise AssertionError("the request of a picture has no body")

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"the pages"})

    asyncio.run(SignedUrlMiddleware(inner, read)({"type": "http", "path": path, "method": method}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


def test_a_signed_address_returns_the_picture_with_caching_headers() -> None:
    status, headers, body = request_picture(make_signed_url(PART, 240))
    assert (status, body) == (200, b"a small picture")
    assert headers["content-type"] == "image/jpeg"
    assert headers["cache-control"] == "private, max-age=3600, immutable"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"


def test_an_address_stays_the_same_for_an_hour_and_expires_one_hour_later() -> None:
    hour = NOW_S // 3600 * 3600
    assert token(hour) == token(hour + 3599) != token(hour + 3600)
    assert read_signed_url(token(hour), hour + 7199) is not None
    assert read_signed_url(token(hour), hour + 7200) is None
    assert read_signed_url(token(hour), hour - 1) is None, "an address from the future is invalid"


@pytest.mark.parametrize(
    "other", ["", "x", "../../etc/passwd", "%2e%2e", token(time.time())[:-1], "e30:" + token(time.time()).partition(":")[2]]
)
def test_an_address_that_this_station_did_not_sign_is_refused(other: str) -> None:
    status, _, body = request_picture(PREFIX + other)
    assert status == 404
    assert b"no picture at this address" in body


def test_another_key_or_another_salt_gives_no_valid_address() -> None:
    with override_settings(SECRET_KEY="of another station, long enough to be one"):
        foreign = token(time.time())
    of_other_use = Signer(salt="something else").sign_object(read_signed_url(token(NOW_S), NOW_S))
    assert [request_picture(PREFIX + one)[0] for one in (foreign, of_other_use)] == [404, 404]


def test_an_address_of_another_release_with_other_fields_is_refused() -> None:
    assert request_picture(PREFIX + Signer(salt="pictures of live cards").sign_object([1, 240, "line-1"]))[0] == 404


def test_only_get_and_head_are_answered() -> None:
    status, headers, _ = request_picture(make_signed_url(PART, 240), method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    status, headers, body = request_picture(make_signed_url(PART, 240), method="HEAD")
    assert (status, headers["content-length"], body) == (200, "15", b"")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (KafkaUnavailableError("Kafka does not answer."), 503),
        (DecoderProcessError("decoder-limits", "The process of the decoder could not start."), 503),
        (PictureError("damaged", "The picture is damaged."), 415),
        (None, 404),
    ],
)
def test_a_missing_picture_is_explained(fault: Exception | None, status: int) -> None:
    def fail_or_none(url: SignedUrl) -> EncodedPicture | None:
        if fault is not None:
            raise fault
        return None

    found, headers, body = request_picture(make_signed_url(PART, 240), fail_or_none)
    assert found == status
    assert headers.get("retry-after") == ("5" if status == 503 else None)
    assert (str(fault) if fault else "no picture of this part any more") in body.decode()


def test_other_addresses_are_passed_on_to_django() -> None:
    assert request_picture("/live/events")[0] == 418


def test_the_picture_of_an_upload_has_no_signed_address() -> None:
    """A person who sees a card may not see the uploads of other people."""
    part = PartId("uploads", 7, 3)
    assert LivePart(part, make_verdict(3)).thumbnail_url == "/parts/uploads/7/3/picture?side=240"
