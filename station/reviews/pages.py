"""What comes of the reviews: figures of agreement, and data sets for the next training."""

from __future__ import annotations

import re
from datetime import timedelta

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from station.accounts.access import right_required
from station.accounts.models import AuditEntry
from station.configuration import castline
from station.history.filters import read_filters
from station.history.streaming import streamed
from station.live.pictures import pictures
from station.reviews.data_sets import make, zipped
from station.reviews.figures import figures
from station.reviews.models import DataSet
from station.reviews.selection import read_selection

_DAYS = 30


@require_safe
@right_required("look")
def agreement(request: HttpRequest) -> HttpResponse:
    """How often people, and people and model, say the same."""
    filters = read_filters({name: request.GET.get(name, "") for name in ("line", "since", "to")})
    now = timezone.now()
    to = filters.to or now + timedelta(seconds=1)
    since = filters.since or now - timedelta(days=_DAYS)
    hidden = castline().station.upload_line
    words = {
        "figures": figures(since, to, "" if filters.line == hidden else filters.line, hidden),
        "since": since,
        "to": to,
        "filters": filters,
        "texts": {name: filters.text(name) for name in ("line", "since", "to")},
        "wrong": filters.wrong.items(),
        "lines": [line.name for line in castline().lines if line.name != hidden],
        "zone": castline().station.time_zone,
    }
    return render(request, "station/reviews/agreement.html", words)


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("review")
def data_sets(request: HttpRequest) -> HttpResponse:
    """The data sets made, newest first; posted, the next one."""
    settings = castline()
    if request.method == "POST":
        try:
            made = make(read_selection(request.POST), settings, request.user.get_username(), timezone.now(), pictures().original)
        except ValueError as error:
            messages.error(request, str(error))
        except OSError as error:
            messages.error(request, f"The folder of data sets cannot be written: {error.strerror}.")
        else:
            AuditEntry.record(request.user, "made a data set", made.name, **made.counts)
            messages.success(request, f"{made.name} is made: {_counted(made.counts)}.")
        return redirect("data-sets")
    words = {
        "data_sets": DataSet.objects.all()[:200],
        "folder": settings.review.data_sets,
        "lines": [line.name for line in settings.lines if line.name != settings.station.upload_line],
        "zone": settings.station.time_zone,
    }
    return render(request, "station/reviews/data_sets.html", words)


@require_safe
@right_required("review")
def data_set(request: HttpRequest, name: str) -> HttpResponseBase:
    """One data set as a zip file."""
    # The name becomes a path: only one that is in the table, and looks like one of ours.
    if not re.fullmatch(r"reviews-\d{4,}-\d{4}-\d\d-\d\d", name) or not DataSet.objects.filter(name=name).exists():
        raise Http404
    folder = castline().review.data_sets / name
    if not folder.is_dir():
        raise Http404
    return streamed(request, zipped(folder), "application/zip", f"{name}.zip")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{many} {name}" for name, many in counts.items())
