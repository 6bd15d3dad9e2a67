"""Pictures of live cards: their addresses carry a pass, which nobody else can write and which does not hold for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.signing import Signer
from django.test import override_settings

from models.pictures.display import EncodedPicture
from station.live.passes import PREFIX, Pass, Passes, address, read
from station.live.seen import SeenPart
from station.live.sending import KafkaAway
from streams.errors import PictureError
from streams.identity import PartId
from tests.station.live.test_wall import verdict

NOW_S = 1_795_000_000.0
PART = SeenPart(PartId("line-1", 7, 3), verdict(3))


def token(now_s: float) -> str:
    return address(PART, 240, now_s).removeprefix(PREFIX)


def shown(found: Pass) -> EncodedPicture | None:
    assert (found.line, found.image_topic, found.image_offset, found.side_px) == ("line-1", "castings.images.line-1", 3, 240)
    return EncodedPicture(b"a small picture", "image/jpeg")


def asked(path: str, show: Callable[[Pass], EncodedPicture | None] = shown, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer."""
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> dict[str, Any]:
        raise AssertionError("a picture's request has no body")

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"the pages"})

    asyncio.run(Passes(inner, show)({"type": "http", "path": path, "method": method}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


def test_a_pass_gives_the_picture_and_says_that_it_may_be_kept() -> None:
    status, headers, body = asked(address(PART, 240))
    assert (status, body) == (200, b"a small picture")
    assert headers["content-type"] == "image/jpeg"
    assert headers["cache-control"] == "private, max-age=3600, immutable"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_an_address_stays_the_same_for_an_hour_and_is_good_for_one_more() -> None:
    hour = NOW_S // 3600 * 3600
    assert token(hour) == token(hour + 3599) != token(hour + 3600)
    assert read(token(hour), hour + 7199) is not None
    assert read(token(hour), hour + 7200) is None
    assert read(token(hour), hour - 1) is None, "of a time that is still to come"


@pytest.mark.parametrize(
    "other", ["", "x", "../../etc/passwd", "%2e%2e", token(time.time())[:-1], "e30:" + token(time.time()).partition(":")[2]]
)
def test_what_this_station_did_not_write_is_no_pass(other: str) -> None:
    status, _, body = asked(PREFIX + other)
    assert status == 404
    assert b"no picture at this address" in body


def test_another_key_or_another_use_of_the_key_writes_no_pass() -> None:
    with override_settings(SECRET_KEY="of another station, long enough to be one"):
        foreign = token(time.time())
    of_other_use = Signer(salt="something else").sign_object(read(token(NOW_S), NOW_S))
    assert [asked(PREFIX + one)[0] for one in (foreign, of_other_use)] == [404, 404]


def test_a_pass_of_another_release_with_other_fields_is_none() -> None:
    assert asked(PREFIX + Signer(salt="pictures of live cards").sign_object([1, 240, "line-1"]))[0] == 404


def test_a_picture_is_only_fetched() -> None:
    status, headers, _ = asked(address(PART, 240), method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    status, headers, body = asked(address(PART, 240), method="HEAD")
    assert (status, headers["content-length"], body) == (200, "15", b"")


@pytest.mark.parametrize(
    ("fault", "status"),
    [(KafkaAway("Kafka does not answer."), 503), (PictureError("damaged", "The picture is damaged."), 415), (None, 404)],
)
def test_a_picture_that_cannot_be_had_is_told_in_words(fault: Exception | None, status: int) -> None:
    def show(found: Pass) -> EncodedPicture | None:
        if fault is not None:
            raise fault
        return None

    found, _, body = asked(address(PART, 240), show)
    assert found == status
    assert (str(fault) if fault else "no picture of this part any more") in body.decode()


def test_all_else_goes_to_the_pages() -> None:
    assert asked("/live/events")[0] == 418


def test_an_uploads_picture_has_no_pass() -> None:
    """Not everybody who sees a card may see what others have uploaded."""
    part = PartId("uploads", 7, 3)
    assert SeenPart(part, verdict(3)).small_picture == "/parts/uploads/7/3/picture?side=240"
