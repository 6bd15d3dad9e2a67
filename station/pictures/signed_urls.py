"""Makes signed addresses for the small pictures on live cards, and answers requests for these pictures without Django.

With Django, each request would check the account and take ten times as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from django.core.signing import BadSignature, Signer

from models.pictures.display import EncodedPicture
from station.configuration import PICTURE_POLICY
from station.kafka_producer import KafkaUnavailableError
from station.middleware import AsgiApplication, AsgiEvent, AsgiReceive, AsgiScope, AsgiSend, send_text_response
from station.pictures.part_picture_reader import PictureLocation, describe_refusal, get_picture_reader
from streams.errors import PictureError

PREFIX = "/live/pictures/"
# A picture has the same address for an hour, so that browsers can cache it.
_SLOT_S = 3600
_HEADERS = [
    (b"cache-control", b"private, max-age=3600, immutable"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", PICTURE_POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
]


class SignedUrl(NamedTuple):
    """The content of a signed address: the hour in which the address was made (`slot`), and where the picture is stored."""

    slot: int
    side_px: int
    line: str
    part_key: str
    image_topic: str
    image_partition: int | None
    image_offset: int | None
    sha256: str
    picture: str


def make_signed_url(part: PictureLocation, side_px: int, now_s: float | None = None) -> str:
    """Returns a signed address for the picture of `part`. The picture is scaled to at most `side_px` pixels in width and height.

    `now_s` is a Unix time. The default is the current time.
    """
    slot = int(time.time() if now_s is None else now_s) // _SLOT_S
    place = (part.image_topic, part.image_partition, part.image_offset, part.sha256, part.picture)
    content = SignedUrl(slot, side_px, part.line, part.part_key, *place)
    return PREFIX + _signer().sign_object(content)


def read_signed_url(token: str, now_s: float) -> SignedUrl | None:
    """Returns the content of a signed picture address, or None if the signature is wrong or the address has expired.

    `token` is the text after PREFIX in the address. `now_s` is the current Unix time.
    """
    try:
        content = SignedUrl(*_signer().unsign_object(token))
    except (BadSignature, ValueError, TypeError):
        # Another release of the station may put other fields into an address. For such an address, SignedUrl raises TypeError.
        return None
    return content if 0 <= int(now_s) // _SLOT_S - content.slot <= 1 else None


def _signer() -> Signer:
    return Signer(salt="pictures of live cards")


class SignedUrlMiddleware:
    """Answers requests for signed picture addresses and passes all other requests to `inner`.

    `read_picture` gets the content of an address, and returns the picture. It returns None if the picture was deleted.
    """

    def __init__(self, inner: AsgiApplication, read_picture: Callable[[SignedUrl], EncodedPicture | None] | None = None) -> None:
        self._inner = inner
        self._read_picture = read_picture or (lambda url: get_picture_reader().read_for_browser(url, url.side_px))

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._inner(scope, receive, send)
            return
        url = read_signed_url(scope["path"].removeprefix(PREFIX), time.time())
        if scope["method"] not in ("GET", "HEAD"):
            await send_text_response(scope, send, 405, "This address only answers GET and HEAD.", (b"allow", b"GET, HEAD"))
        elif url is None:
            await send_text_response(
                scope,
                send,
                404,
                "There is no picture at this address, or the address has expired. Reload the page that showed the picture.",
            )
        else:
            await self._send_picture(scope, send, url)

    async def _send_picture(self, scope: AsgiScope, send: AsgiSend, url: SignedUrl) -> None:
        try:
            picture = await asyncio.to_thread(self._read_picture, url)
        except (PictureError, KafkaUnavailableError) as error:
            status, headers = describe_refusal(error)
            encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send_text_response(scope, send, status, str(error), *encoded)
            return
        if picture is None:
            await send_text_response(scope, send, 404, "There is no picture of this part any more.")
            return
        content = [(b"content-type", picture.content_type.encode()), (b"content-length", str(len(picture.value)).encode())]
        start: AsgiEvent = {"type": "http.response.start", "status": 200, "headers": content + _HEADERS}
        await send(start)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else picture.value})
