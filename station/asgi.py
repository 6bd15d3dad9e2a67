"""The station as an ASGI application: Django, behind a limit on what a request may bring."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.core.asgi import get_asgi_application

from station.configuration import FORM_BYTES, castline

Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

# Set when the process is asked to stop: what streams to a browser without end looks at it.
stopping = threading.Event()

# Where pictures are taken; everything else takes forms.
_UPLOADS = ("/uploads/", "/api/")
# Django reads a form's other fields and a multipart body's frame beside the files.
_FRAME_BYTES = 2**18


def application() -> Application:
    """The application; `station.configuration.configure` comes first."""
    return Bounded(get_asgi_application(), FORM_BYTES + _FRAME_BYTES, castline().station.upload_bytes + _FRAME_BYTES)


class Bounded:
    """Refuses a request whose body is too large before it is read, or, where it does not tell its size, once it is too much.

    Django itself bounds forms, but takes in all files before it asks who sends them.
    """

    def __init__(self, inner: Application, form_bytes: int, upload_bytes: int) -> None:
        self._inner = inner
        self._form_bytes = form_bytes
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        limit = self._upload_bytes if scope["path"].startswith(_UPLOADS) else self._form_bytes
        if _told(scope["headers"]) > limit:
            await _refuse(send, limit)
            return
        read, answered, too_much = 0, False, False

        async def bounded_receive() -> Event:
            nonlocal read, too_much
            event = await receive()
            if event["type"] == "http.request":
                read += len(event["body"])
                if read > limit:
                    too_much = True
                    return {"type": "http.disconnect"}
            return event

        async def watched_send(event: Event) -> None:
            nonlocal answered
            answered = True
            await send(event)

        await self._inner(scope, bounded_receive, watched_send)
        if too_much and not answered:
            await _refuse(send, limit)


def _told(headers: list[tuple[bytes, bytes]]) -> int:
    told = [value for name, value in headers if name == b"content-length"]
    return int(told[0]) if told and told[0].isdigit() else 0


async def _refuse(send: Send, limit: int) -> None:
    text = f"Too large: a request to this address may bring at most {limit // 1024} KiB.\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text})
