"""The review pages: a person decides about parts, sees how often people and the model agree, and makes data sets."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from station.account_limits import download
from station.accounts.access import right_required
from station.accounts.models import AuditEntry
from station.archive.models import Part
from station.configuration import current_settings
from station.history.export import stream_file
from station.history.filters import read_filters
from station.history.part_page import explain_verdict, picture_size_px
from station.history.views import get_visible_part
from station.kafka_producer import KafkaUnavailableError, send_record
from station.manifests import describe_training_pictures, find_manifest
from station.pictures.part_picture_reader import get_picture_reader
from station.reviews.agreement import compute_agreement
from station.reviews.candidates import get_or_add_candidate
from station.reviews.data_sets import make_data_set, parse_selection, stream_zip
from station.reviews.decisions import (
    SKIP,
    DecisionRefusedError,
    InvalidBoxesError,
    decide,
    make_annotation,
    parse_boxes,
    undo_last_decision,
)
from station.reviews.models import Candidate, DataSet, Decision
from station.reviews.queue import (
    MAX_COUNTED,
    claim_candidate,
    claim_candidates,
    count_waiting,
    find_claimed,
    has_free_candidates,
    is_claimed,
)

_AGREEMENT_DAYS = 30
_AGREEMENT_FIELD_LABELS = {"line": "Line", "since": "Decided from", "to": "To"}
_MAX_DATA_SETS = 200
_DATA_SET_NAME = r"reviews-\d{4,}-\d{4}-\d\d-\d\d"


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def next_part(request: HttpRequest) -> HttpResponse:
    """Shows the part that is reserved for the person. A POST request first reserves the waiting part with the highest priority.

    If no part is reserved, a GET request shows a button that reserves one. The GET request itself must not change anything.
    """
    if request.method == "POST":
        return _show_next(request, None, "")
    return _render_review(request, reserve=False)


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def review_part(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """Shows the part in the URL if this part is reserved for the person. Otherwise shows a button that reserves the part.

    A POST request with the field `reserve` reserves the part. Any other POST request stores the person's decision about the part and shows
    the next part.
    """
    found = get_visible_part(request, line, run, part)
    user, now = _get_user(request), timezone.now()
    if request.method == "POST" and "reserve" not in request.POST:
        return _decide(request, found, now)
    if request.method != "POST":
        reserved = Candidate.objects.filter(part=found).first()
        if reserved and is_claimed(reserved, user, now):
            return _render_review(request, reserved, reserve=False)
        return render(request, "station/reviews/open.html", {"part": found})
    candidate = get_or_add_candidate(found, now)
    if not claim_candidate(candidate, user, current_settings(), now):
        messages.warning(request, f"{candidate.leased_by} is reviewing this part.")
        return redirect("part", line, run, part)
    claim_candidates(user, current_settings(), now)
    return redirect("review-part", line, run, part)


@require_POST
@right_required("review")
def undo(request: HttpRequest) -> HttpResponse:
    """Undoes the person's last decision, and shows the part of this decision again."""
    now = timezone.now()
    user, settings = _get_user(request), current_settings()
    try:
        decision = undo_last_decision(user, settings, now, send_record)
    except KafkaUnavailableError as error:
        return _refuse(request, str(error), 503)
    if decision is None:
        return _refuse(request, "There is no decision of yours that could be undone.", 409)
    AuditEntry.record(user, "review undone", str(decision.part), label=decision.label)
    candidate = get_or_add_candidate(decision.part, now)
    is_reserved = claim_candidate(candidate, user, settings, now)
    text = f"The decision about {decision.part} is undone. It was {decision.label}."
    return _show_next(request, candidate if is_reserved else None, text)


def _decide(request: HttpRequest, part: Part, now: datetime) -> HttpResponse:
    settings = current_settings()
    known_kinds = settings.review.kinds
    try:
        boxes = parse_boxes(request.POST.get("boxes", ""), part.width_px, part.height_px, known_kinds)
        annotation = make_annotation(request.POST.get("label", ""), request.POST.getlist("kind"), boxes, known_kinds)
        get_or_add_candidate(part, now)
        decide(part, _get_user(request), annotation, settings, now, send_record)
    except InvalidBoxesError as error:
        return _refuse(request, str(error), 400)
    except DecisionRefusedError as error:
        return _refuse(request, str(error), 409)
    except KafkaUnavailableError as error:
        return _refuse(request, str(error), 503)
    AuditEntry.record(request.user, "reviewed", str(part), label=annotation.label, kinds=list(annotation.kinds))
    kinds = f" ({', '.join(annotation.kinds)})" if annotation.kinds else ""
    return _show_next(request, None, f"{part}: {annotation.label}{kinds}.")


def _show_next(request: HttpRequest, candidate: Candidate | None, announcement: str) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return _render_review(request, candidate, announcement)
    claim_candidates(_get_user(request), current_settings(), timezone.now())
    if announcement:
        messages.success(request, announcement)
    if candidate:
        return redirect("review-part", candidate.part.line, candidate.part.run, candidate.part.part)
    return redirect("reviews")


def _refuse(request: HttpRequest, reason: str, status: int) -> HttpResponse:
    if request.headers.get("HX-Request"):
        return HttpResponse(reason, status=status, content_type="text/plain; charset=utf-8")
    messages.error(request, reason)
    return redirect("reviews")


def _render_review(
    request: HttpRequest, candidate: Candidate | None = None, announcement: str = "", *, reserve: bool = True
) -> HttpResponse:
    user, settings, now = _get_user(request), current_settings(), timezone.now()
    claimed = (claim_candidates if reserve else find_claimed)(user, settings, now)
    if candidate is None and claimed:
        candidate = claimed[0]
    following = next((other for other in claimed if candidate is None or other.pk != candidate.pk), None)
    waiting = count_waiting(settings, now)
    own_decisions = Decision.objects.filter(reviewer=user, undone_at=None)
    content: dict[str, Any] = {
        "announcement": announcement,
        "candidate": candidate,
        "can_begin": candidate is None and has_free_candidates(user, settings, now),
        "kinds": list(enumerate(settings.review.kinds, 1)),
        "waiting": waiting,
        "waiting_total": sum(waiting.values()),
        "max_counted": MAX_COUNTED,
        "zone": settings.station.time_zone,
        "decided_today": own_decisions.filter(at__gte=_start_of_day()).exclude(label=SKIP).count(),
        "can_undo": own_decisions.exists(),
    }
    if candidate:
        content |= _describe_candidate(candidate, following)
    template = "station/reviews/_review.html" if request.headers.get("HX-Request") else "station/reviews/review.html"
    response = render(request, template, content)
    # Without the header Cache-Control, the browser's Back button would show the page as it was before the person decided.
    response["Cache-Control"] = "no-store"
    return response


def _describe_candidate(candidate: Candidate, following: Candidate | None) -> dict[str, Any]:
    part = candidate.part
    # People tend to agree with a verdict that they see. So the page hides the verdict if the part was picked at random for a review, or if
    # another person has already reviewed the part.
    is_blind = candidate.audit or candidate.state in ("second", "third")
    width_px, height_px = picture_size_px(part)
    return {
        "part": part,
        "is_blind": is_blind,
        "training_note": "" if is_blind else describe_training_pictures(part.model),
        "explanation": [] if is_blind else explain_verdict(part, find_manifest(part.model)),
        "width_px": width_px,
        "height_px": height_px,
        "suggested": [] if is_blind else part.finding_boxes,
        "next_picture": reverse("part-picture", args=(following.part.line, following.part.run, following.part.part)) if following else "",
    }


def _start_of_day() -> datetime:
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)


def _get_user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@require_safe
@right_required("look")
def agreement(request: HttpRequest) -> HttpResponse:
    """Shows how often people agreed with the model and with each other in a period."""
    filters = read_filters({name: request.GET.get(name, "") for name in ("line", "since", "to")})
    now = timezone.now()
    to = filters.to or now + timedelta(seconds=1)
    since = filters.since or now - timedelta(days=_AGREEMENT_DAYS)
    settings = current_settings()
    upload_line = settings.station.upload_line
    content = {
        "report": compute_agreement(since, to, "" if filters.line == upload_line else filters.line, upload_line),
        "since": since,
        "to": to,
        "texts": {name: filters.format_value(name) for name in ("line", "since", "to")},
        "problems": filters.describe_errors(_AGREEMENT_FIELD_LABELS),
        "lines": [line.name for line in settings.lines if line.name != upload_line],
        "zone": settings.station.time_zone,
    }
    return render(request, "station/reviews/agreement.html", content)


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def data_sets(request: HttpRequest) -> HttpResponse:
    """Lists the data sets, newest first. A POST request makes a new data set."""
    settings = current_settings()
    if request.method == "POST":
        try:
            selection = parse_selection(request.POST)
            made = make_data_set(selection, settings, request.user.get_username(), timezone.now(), get_picture_reader().read_original)
        except ValueError as error:
            messages.error(request, str(error))
        except OSError as error:
            messages.error(request, f"The folder of the data sets cannot be written: {error.strerror}. Ask an administrator.")
        else:
            AuditEntry.record(request.user, "made a data set", made.name, **made.counts)
            counts = ", ".join(f"{count} {class_name}" for class_name, count in made.counts.items())
            messages.success(request, f"The data set {made.name} is made: {counts}.")
        return redirect("data-sets")
    content = {
        "data_sets": DataSet.objects.all()[:_MAX_DATA_SETS],
        "folder": settings.review.data_sets,
        "lines": [line.name for line in settings.lines if line.name != settings.station.upload_line],
        "zone": settings.station.time_zone,
    }
    return render(request, "station/reviews/data_sets.html", content)


@download
@require_safe
@right_required("review")
def data_set(request: HttpRequest, name: str) -> HttpResponseBase:
    """Sends a data set as a zip file."""
    # Accept only the name of a known data set, because the name becomes part of a file path.
    if not re.fullmatch(_DATA_SET_NAME, name) or not DataSet.objects.filter(name=name).exists():
        raise Http404
    folder = current_settings().review.data_sets / name
    if not folder.is_dir():
        raise Http404
    if request.method != "HEAD":
        AuditEntry.record(request.user, "exported a data set", name)
    return stream_file(request, stream_zip(folder), "application/zip", f"{name}.zip")
