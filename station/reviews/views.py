"""The review bench: one part at a time, decided by keys, the next one fetched meanwhile."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from station.accounts.access import right_required
from station.archive.models import Part
from station.configuration import castline
from station.history.overlay import size_of
from station.history.views import found_part
from station.live.sending import KafkaAway, send
from station.reviews.boxes import WrongBoxesError, boxes_of
from station.reviews.deciding import RefusedError, answer_of, decide, undo
from station.reviews.models import Candidate, Decision
from station.reviews.offering import ask_for
from station.reviews.queue import MOST_COUNTED, claim, hold, lengths


@require_safe
@right_required("review")
def bench(request: HttpRequest) -> HttpResponse:
    """The most informative part that waits, held for this person."""
    return _bench(request)


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def one(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """One certain part before this person; posted, their decision on it."""
    found = found_part(request, line, run, part)
    now = timezone.now()
    if request.method == "POST":
        return _decided(request, found, now)
    candidate = ask_for(found, now)
    if not hold(candidate, _user(request), castline(), now):
        messages.warning(request, f"{candidate.leased_by} has this part before them.")
        return redirect("part", line, run, part)
    return _bench(request, candidate)


@require_POST
@right_required("review")
def take_back(request: HttpRequest) -> HttpResponse:
    """Takes this person's last decision back and shows its part again."""
    now = timezone.now()
    try:
        last = undo(_user(request), castline(), now, send)
    except KafkaAway as error:
        return _refused(request, str(error), 503)
    if last is None:
        return _refused(request, "You have decided nothing that could be taken back.", 409)
    candidate = ask_for(last.part, now)
    held = hold(candidate, _user(request), castline(), now)
    said = f"Taken back: {last.part} was {last.label}."
    return _answer(request, candidate if held else None, said)


def _decided(request: HttpRequest, part: Part, now: datetime) -> HttpResponse:
    settings = castline()
    try:
        boxes = boxes_of(request.POST.get("boxes", ""), part.width_px, part.height_px, settings.review.kinds)
        answer = answer_of(request.POST.get("label", ""), request.POST.getlist("kind"), boxes, settings.review.kinds)
        ask_for(part, now)
        decide(part, _user(request), answer, settings, now, send)
    except (WrongBoxesError, RefusedError) as error:
        return _refused(request, str(error), 409 if isinstance(error, RefusedError) else 400)
    except KafkaAway as error:
        return _refused(request, str(error), 503)
    return _answer(request, None, f"{part}: {answer.label}{' (' + ', '.join(answer.kinds) + ')' if answer.kinds else ''}.")


def _answer(request: HttpRequest, candidate: Candidate | None, said: str) -> HttpResponse:
    """The next part for the page's script; for a browser without it the whole page, at its own address."""
    if request.headers.get("HX-Request"):
        return _bench(request, candidate, said)
    messages.success(request, said)
    if candidate:
        return redirect("review-part", candidate.part.line, candidate.part.run, candidate.part.part)
    return redirect("reviews")


def _refused(request: HttpRequest, words: str, status: int) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return HttpResponse(words, status=status, content_type="text/plain; charset=utf-8")
    messages.error(request, words)
    return redirect("reviews")


def _bench(request: HttpRequest, candidate: Candidate | None = None, said: str = "") -> HttpResponse:
    user, settings, now = _user(request), castline(), timezone.now()
    waiting = claim(user, settings, now)
    if candidate is None and waiting:
        candidate = waiting[0]
    following = next((one for one in waiting if candidate is None or one.pk != candidate.pk), None)
    words: dict[str, Any] = {"said": said, "kinds": list(enumerate(settings.review.kinds, 1)), "candidate": candidate}
    counted = lengths(settings, now)
    words |= {"lengths": counted, "waiting": sum(counted.values()), "counted_to": MOST_COUNTED, "zone": settings.station.time_zone}
    words["mine"] = Decision.objects.filter(reviewer=user, undone_at=None, at__gte=_today()).exclude(label="skip").count()
    words["may_undo"] = Decision.objects.filter(reviewer=user, undone_at=None).exists()
    if candidate:
        part = candidate.part
        # Who knows what was said before looks for that.
        blind = candidate.audit or candidate.state in ("second", "third")
        width_px, height_px = size_of(part)
        words |= {
            "part": part,
            "blind": blind,
            "width_px": width_px,
            "height_px": height_px,
            "suggested": [] if blind else part.finding_boxes,
            "next_picture": reverse("part-picture", args=(following.part.line, following.part.run, following.part.part))
            if following
            else "",
        }
    template = "station/reviews/_bench.html" if request.headers.get("HX-Request") else "station/reviews/bench.html"
    response = render(request, template, words)
    response["Cache-Control"] = "no-store"  # shown again by the browser's Back, a decided part would look undecided
    return response


def _today() -> datetime:
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # `right_required` lets no other user through
    return request.user
