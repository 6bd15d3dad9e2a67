"""The wall of all lines, a line's own page, their stream, and the pictures of parts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from models.pictures.display import EncodedPicture
from station import asgi
from station.accounts.access import get_rights, right_required
from station.archive.models import Part
from station.configuration import castline
from station.live.pictures import pictures
from station.live.seen import SeenPart
from station.live.sending import KafkaAway
from station.live.stream import Cards, events, streams
from station.live.watching import Watch, watch
from station.uploads.models import Upload, may_see_part
from streams.errors import PictureError
from streams.identity import PartId

_KEPT_BY_BROWSERS_S = 3600  # a part's picture never changes
_SIDES_PX = (160, 240, 480)

Shown = Part | SeenPart | Upload

_cards: dict[Watch, Cards] = {}


def cards() -> Cards:
    """The cards of the process's watch."""
    now = watch()
    if now not in _cards:
        _cards.clear()
        _cards[now] = Cards(now)
    return _cards[now]


@require_safe
@right_required("look")
def wall(request: HttpRequest) -> HttpResponse:
    """All lines at a glance."""
    found = cards()
    lines = [(name, found.card(name, page=False).html) for name in found.watch.on_wall]
    return render(request, "station/live/wall.html", {"lines": lines, "trouble": found.watch.trouble})


@require_safe
@right_required("look")
def line(request: HttpRequest, line: str) -> HttpResponse:
    """One line: more pictures, the last hour, the last faulty parts."""
    found = cards()
    if line not in found.watch.lines:
        raise Http404
    return render(
        request, "station/live/line.html", {"name": line, "page": found.card(line, page=True).html, "trouble": found.watch.trouble}
    )


@require_safe
@right_required("look")
async def live_events(request: HttpRequest) -> HttpResponseBase:
    """Server-sent events of the wall, or with `?line=` of one line's page."""
    found = await sync_to_async(cards)()
    wanted = request.GET.get("line") or None
    if wanted is not None and wanted not in found.watch.lines:
        raise Http404
    if streams.full():
        return HttpResponse("Too many live pages are open at this station; close one, then reload.", status=503, content_type="text/plain")

    async def allowed() -> bool:
        return await sync_to_async(_still_allowed)(request)

    stream: AsyncIterator[bytes] = events(found, wanted, asgi.stopping.is_set, allowed)
    response = StreamingHttpResponse(stream, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"  # a proxy that gathers events would stop the clock
    return response


def _still_allowed(request: HttpRequest) -> bool:
    """Whether the session that the stream began with is still of someone who may look."""
    key = request.session.session_key
    if key is None or not request.session.exists(key):
        return False
    user = User.objects.filter(pk=request.user.pk).first() if request.user.is_authenticated else None
    return user is not None and "look" in get_rights(user)


@require_safe
@right_required("look")
def part_picture(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """A part's picture; `?side=240` a small one."""
    placed = _placed(request, line, run, part)
    side = request.GET.get("side", "")
    side_px = int(side) if side.isdecimal() and int(side) in _SIDES_PX else None
    try:
        picture = pictures().shown(placed, side_px)
    except (PictureError, KafkaAway) as error:
        return _none(error)
    if picture is None:
        return _none(None)
    return _sent(picture)


@require_safe
@right_required("look")
def part_heat_map(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """Where the model looked."""
    placed = _placed(request, line, run, part)
    if not placed.heat_map:
        return _none(None)
    try:
        return _sent(pictures().heat_map(placed.heat_map))
    except (PictureError, KafkaAway) as error:
        return _none(error)


def _placed(request: HttpRequest, line: str, run: int, part: int) -> Shown:
    """The part as the archive has it, else as the wall does, else as it was uploaded. Raises Http404."""
    if not may_see_part(request.user, line, run, part):
        raise Http404
    try:
        archived = Part.objects.filter(line=line, run=run, part=part).first()
    except OverflowError:  # a number that no database holds
        raise Http404 from None
    seen = watch().part(PartId(line, run, part))
    # The archive is a moment behind: of a part that is just coming the wall knows more.
    known = archived is not None and (archived.image_topic or archived.picture) and (archived.heat_map or not (seen and seen.heat_map))
    found: Shown | None = archived if known else (seen or archived)
    if found is None or not (found.image_topic or found.picture):
        found = Upload.objects.filter(pk=part, run=run).first() if line == castline().station.upload_line else found
    if found is None:
        raise Http404
    return found


def _sent(picture: EncodedPicture) -> HttpResponse:
    response = HttpResponse(picture.value, content_type=picture.content_type)
    response["Cache-Control"] = f"private, max-age={_KEPT_BY_BROWSERS_S}, immutable"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _none(error: PictureError | KafkaAway | None) -> HttpResponse:
    """No picture, in words, for who opens its address; the pages show a placeholder."""
    if isinstance(error, KafkaAway):
        return HttpResponse(str(error), status=503, content_type="text/plain; charset=utf-8")
    if error is not None:
        return HttpResponse(str(error), status=415, content_type="text/plain; charset=utf-8")
    return HttpResponse("There is no picture of this part any more.", status=404, content_type="text/plain; charset=utf-8")
