"""The station as an ASGI application: Django, behind limits on what a request may bring and on how many are in hand at once.

request -> Queued: a place is free? -> Passes: a picture of a live card? -> Bounded: not too large? -> Django
"""

from __future__ import annotations

import asyncio
import threading

from django.core.asgi import get_asgi_application

from station.configuration import FORM_BYTES, castline
from station.live.passes import Passes
from station.scopes import API, Application, Event, Receive, Scope, Send, answer

# Set when the process is asked to stop: what streams to a browser without end looks at it.
stopping = threading.Event()

# Where pictures are taken; everything else takes forms.
_UPLOADS = ("/uploads/", API)
# Django reads a form's other fields and a multipart body's frame beside the files.
_FRAME_BYTES = 2**18
# Each request in hand is a thread with a connection to the database. Streams and waiting programs hold their places, so it is not few.
_MOST_IN_HAND = 160
_QUEUE_S = 15.0
# Of requests of ten milliseconds these are done within some three seconds. Who comes while so many wait is answered at once:
# a long queue would make everybody wait as long as his patience, and help none.
_MOST_WAITING = 320
# For the next piece of a body: who announces one and sends nothing would hold a place for ever.
_PIECE_S = 30.0


def application() -> Application:
    """The application; `station.configuration.configure` comes first."""
    pages = Bounded(get_asgi_application(), FORM_BYTES + _FRAME_BYTES, castline().station.upload_bytes + _FRAME_BYTES)
    return Queued(Passes(pages))


class Queued:
    """Lets `most` requests in at once; `most_waiting` others wait for a place at most `patience_s`. The rest is told to come again."""

    def __init__(
        self, inner: Application, most: int = _MOST_IN_HAND, most_waiting: int = _MOST_WAITING, patience_s: float = _QUEUE_S
    ) -> None:
        self._inner = inner
        self._places = asyncio.Semaphore(most)
        self._most_waiting = most_waiting
        self._waiting = 0
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._place():
            await _refuse(
                scope, send, 503, "The station is busy: too many requests at once. Try again in a moment.", (b"retry-after", b"5")
            )
            return
        try:
            await self._inner(scope, receive, send)
        finally:
            self._places.release()

    async def _place(self) -> bool:
        """Whether a place was free, or became free in time."""
        if self._places.locked() and self._waiting >= self._most_waiting:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await self._places.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True


class Bounded:
    """Refuses a request whose body is too large before it is read, or, where it does not tell its size, once it is too much.

    Django itself bounds forms, but takes in all files before it asks who sends them. A body that does not go on is given up.
    """

    def __init__(self, inner: Application, form_bytes: int, upload_bytes: int, piece_s: float = _PIECE_S) -> None:
        self._inner = inner
        self._form_bytes = form_bytes
        self._upload_bytes = upload_bytes
        self._piece_s = piece_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        limit = self._upload_bytes if scope["path"].startswith(_UPLOADS) else self._form_bytes
        too_much = f"Too large: a request to this address may bring at most {limit // 1024} KiB."
        if _told(scope["headers"]) > limit:
            await _refuse(scope, send, 413, too_much)
            return
        read, whole, answered = 0, False, False
        fault: tuple[int, str] | None = None

        async def bounded_receive() -> Event:
            nonlocal read, whole, fault
            try:
                # After the body Django waits here for as long as it answers, to hear that the client has gone.
                async with asyncio.timeout(None if whole else self._piece_s):
                    event = await receive()
            except TimeoutError:
                fault = 408, f"The rest of this request did not come within {self._piece_s:.0f} s."
                return {"type": "http.disconnect"}
            if event["type"] == "http.request":
                read += len(event["body"])
                whole = not event.get("more_body", False)
                if read > limit:
                    fault = 413, too_much
                    return {"type": "http.disconnect"}
            return event

        async def watched_send(event: Event) -> None:
            nonlocal answered
            answered = True
            await send(event)

        await self._inner(scope, bounded_receive, watched_send)
        if fault and not answered:
            await _refuse(scope, send, *fault)


def _told(headers: list[tuple[bytes, bytes]]) -> int:
    told = [value for name, value in headers if name == b"content-length"]
    return int(told[0]) if told and told[0].isdigit() else 0


async def _refuse(scope: Scope, send: Send, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    await answer(scope, send, status, sentence, (b"connection", b"close"), *headers)
