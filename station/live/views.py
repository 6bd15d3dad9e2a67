"""The live pages: the wall of all lines, the page of one line, and the server-sent events that update them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe

from station.accounts.access import get_rights, may_see_line, right_required
from station.accounts.log_in import has_session_ended
from station.live.event_stream import Viewer, get_card_renderer, open_streams, stream_events
from station.middleware import stopping


@require_safe
@right_required("look")
def wall(request: HttpRequest) -> HttpResponse:
    """Shows the wall, which is the page with a card for each line."""
    renderer = get_card_renderer()
    consumer = renderer.consumer
    cards = [(name, renderer.render_card(name, for_page=False).html) for name in consumer.wall_lines]
    return render(request, "station/live/wall.html", {"cards": cards, "trouble": consumer.connection_fault})


@require_safe
@right_required("look")
def line(request: HttpRequest, line: str) -> HttpResponse:
    """Shows the page of one line: its newest pictures, the trend of the last hour, and the last faulty parts."""
    renderer = get_card_renderer()
    if line not in renderer.consumer.lines or not may_see_line(request.user, line):
        raise Http404
    content = renderer.render_card(line, for_page=True).html
    return render(request, "station/live/line.html", {"name": line, "page": content, "trouble": renderer.consumer.connection_fault})


@require_safe
@right_required("look")
async def live_events(request: HttpRequest) -> HttpResponseBase:
    """Sends the server-sent events that update the page of all lines. With `?line=line-1`, they update the page of line-1."""
    renderer = await sync_to_async(get_card_renderer)()
    line = request.GET.get("line") or None
    if line is not None and (line not in renderer.consumer.lines or not await sync_to_async(may_see_line)(request.user, line)):
        raise Http404
    viewer = Viewer(request.user.pk or 0, request.session.session_key or "")
    if refusal := open_streams.find_refusal(viewer):
        return HttpResponse(refusal, status=503, content_type="text/plain")

    async def is_permitted() -> bool:
        return await sync_to_async(_is_still_permitted)(request, line)

    events: AsyncIterator[bytes] = stream_events(renderer, line, viewer, stopping.is_set, is_permitted)
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


def _is_still_permitted(request: HttpRequest, line: str | None = None) -> bool:
    # Read the session from the database again, because the person may have logged out since the stream began.
    session = SessionStore(request.session.session_key)
    user = User.objects.filter(pk=request.user.pk).first() if request.user.is_authenticated else None
    if user is None or not _is_session_of(session, user) or has_session_ended(session):
        return False
    return "look" in get_rights(user) and (line is None or may_see_line(user, line))


def _is_session_of(session: SessionStore, user: User) -> bool:
    """Returns whether `user` is logged in in `session` with the present password. Returns False if the session has expired."""
    return constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())
