"""Small pictures on live cards without a look into sessions, accounts and archive: their addresses carry a pass.

A card goes only to people who may look, and everybody's card is the same. So the address of each picture on it is signed, says itself
where the picture lies, and holds for an hour or two. A wall of three lines asks for pictures day and night; through sessions and
accounts each of them cost ten times as much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from django.core.signing import BadSignature, Signer

from models.pictures.display import EncodedPicture
from station.live.pictures import Placed, pictures
from station.live.sending import KafkaAway
from station.scopes import Application, Event, Receive, Scope, Send, answer
from streams.errors import PictureError

PREFIX = "/live/pictures/"
# An address stays the same for so long, so that browsers keep the picture; it is good until the end of the slot after its own.
_SLOT_S = 3600
_HEADERS = [
    (b"cache-control", b"private, max-age=3600, immutable"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"referrer-policy", b"same-origin"),
]


class Pass(NamedTuple):
    """What an address says. Fits `station.live.pictures.Placed`."""

    slot: int
    side_px: int
    line: str
    image_topic: str
    image_partition: int | None
    image_offset: int | None
    sha256: str
    picture: str


def address(part: Placed, side_px: int, now_s: float | None = None) -> str:
    """Where a browser gets the picture of `part`, at most `side_px` wide and high."""
    slot = int(time.time() if now_s is None else now_s) // _SLOT_S
    written = Pass(slot, side_px, part.line, part.image_topic, part.image_partition, part.image_offset, part.sha256, part.picture)
    return PREFIX + _signer().sign_object(written)


def read(token: str, now_s: float) -> Pass | None:
    """What `address` wrote; None where it was not written by this station, or too long ago."""
    try:
        found = Pass(*_signer().unsign_object(token))
    except (BadSignature, ValueError, TypeError):  # the last: of a station before or after this one, with other fields
        return None
    return found if 0 <= int(now_s) // _SLOT_S - found.slot <= 1 else None


def _signer() -> Signer:
    return Signer(salt="pictures of live cards")


class Passes:
    """The pictures of `address`; all else goes to `inner`."""

    def __init__(self, inner: Application, show: Callable[[Pass], EncodedPicture | None] | None = None) -> None:
        self._inner = inner
        self._show = show or (lambda found: pictures().shown(found, found.side_px))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._inner(scope, receive, send)
            return
        found = read(scope["path"].removeprefix(PREFIX), time.time())
        if scope["method"] not in ("GET", "HEAD"):
            await answer(scope, send, 405, "Pictures are only fetched.", (b"allow", b"GET, HEAD"))
        elif found is None:
            await answer(scope, send, 404, "There is no picture at this address, or it was good for an hour: reload the page.")
        else:
            await self._send(scope, send, found)

    async def _send(self, scope: Scope, send: Send, found: Pass) -> None:
        try:
            picture = await asyncio.to_thread(self._show, found)
        except KafkaAway as error:
            await answer(scope, send, 503, str(error))
            return
        except PictureError as error:
            await answer(scope, send, 415, str(error))
            return
        if picture is None:
            await answer(scope, send, 404, "There is no picture of this part any more.")
            return
        told = [(b"content-type", picture.content_type.encode()), (b"content-length", str(len(picture.value)).encode())]
        begin: Event = {"type": "http.response.start", "status": 200, "headers": told + _HEADERS}
        await send(begin)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else picture.value})
