"""The history: found by filters, page by page, exported; and one part's story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from station.accounts.access import get_rights, right_required
from station.archive.models import Part
from station.configuration import castline
from station.history import exporting
from station.history.filters import ACTIONS, LABELS, Filters, read_filters
from station.history.overlay import overlay, size_of
from station.history.paging import LOOK, MOST_COUNTED, Key, count, page
from station.history.story import story
from station.history.streaming import streamed
from station.reviews.models import Decision
from station.uploads.models import may_see_part

_LARGEST = 2**63 - 1


@require_safe
@right_required("look")
def history(request: HttpRequest) -> HttpResponse:
    """One page of parts. `before` and `after` are places in the history; all else in the address are filters."""
    filters = _filters(request)
    before, after, misplaced = _places(request)
    found = page(filters, before, after)
    many, more = count(filters) if before is None and after is None else (None, False)
    words = {
        "filters": filters,
        "texts": {name: filters.text(name) or request.GET.get(name, "")[:150] for name in _NAMES},
        "wrong": [*filters.wrong.items(), *misplaced],
        "page": found,
        "count": many,
        "more": more,
        "counted_to": MOST_COUNTED,
        "older": _address(filters, before=found.older),
        "newer": _address(filters, after=found.newer),
        "newest": _address(filters) if before or after else "",
        "look": LOOK,
        "lines": [line.name for line in castline().lines if line.name != filters.hidden],
        "labels": LABELS,
        "actions": ACTIONS,
        "kinds": castline().review.kinds,
        "zone": castline().station.time_zone,
    }
    return render(request, "station/history/history.html", words)


_NAMES = ("line", "since", "to", "label", "kind", "least", "most", "model", "reviewer", "action", "part")


def _filters(request: HttpRequest) -> Filters:
    """The filters of the address. Uploaded pictures are found by their owners, among the uploads; here by administrators alone."""
    hidden = "" if "administer" in get_rights(request.user) else castline().station.upload_line
    return replace(read_filters(request.GET.dict()), hidden=hidden)


def _places(request: HttpRequest) -> tuple[Key | None, Key | None, list[tuple[str, str]]]:
    found: dict[str, Key] = {}
    wrong = []
    for name in ("before", "after"):
        if text := request.GET.get(name, ""):
            try:
                found[name] = Key.parse(text)
            except ValueError as error:
                wrong.append((name, str(error)))
    before = found.get("before")
    return before, None if before else found.get("after"), wrong


def _address(filters: Filters, **places: Key | None) -> str:
    """The history's address with `filters` at a place; empty where the place is None."""
    query = [filters.query] if filters.query else []
    for name, key in places.items():
        if key is None:
            return ""
        query.append(f"{name}={str(key).replace('+', '%2B')}")
    return reverse("history") + ("?" + "&".join(query) if query else "")


@require_safe
@right_required("look")
def export_csv(request: HttpRequest) -> HttpResponseBase:
    """All parts that the filters leave, as CSV."""
    return _exported(request, exporting.as_csv, "text/csv; charset=utf-8", "csv")


@require_safe
@right_required("look")
def export_parquet(request: HttpRequest) -> HttpResponseBase:
    """All parts that the filters leave, as Parquet."""
    return _exported(request, exporting.as_parquet, "application/vnd.apache.parquet", "parquet")


def _exported(request: HttpRequest, pieces: Callable[[Filters], Iterator[bytes]], content_type: str, suffix: str) -> HttpResponseBase:
    filters = _filters(request)
    # Left out silently, a filter would make a file of other parts than were meant.
    if filters.wrong:
        return HttpResponse(
            "\n".join(f"{name}: {words}" for name, words in filters.wrong.items()), status=400, content_type="text/plain; charset=utf-8"
        )
    stamp = timezone.localtime().strftime("%Y-%m-%d-%H%M%S")
    return streamed(request, pieces(filters), content_type, f"castline-history-{stamp}.{suffix}")


@require_safe
@right_required("look")
def part(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """One part's whole story."""
    found = found_part(request, line, run, part)
    gated = any(one.name == line and one.gate is not None for one in castline().lines)
    width_px, height_px = size_of(found)
    words = {
        "part": found,
        "story": story(found, gated),
        "boxes": overlay(found),
        # Not looked up by the template: a vote called "items" would be found in the method's place.
        "votes": list(found.votes.items()),
        "width_px": width_px,
        "height_px": height_px,
        "decisions": Decision.objects.filter(part=found).select_related("reviewer").order_by("at", "pk"),
        "zone": castline().station.time_zone,
    }
    return render(request, "station/history/part.html", words)


def found_part(request: HttpRequest, line: str, run: int, part: int) -> Part:
    """The archive's row. Raises Http404: when there is none, or none for this person."""
    # The address allows numbers that no database does.
    if max(run, part) > _LARGEST or not may_see_part(request.user, line, run, part):
        raise Http404
    found = Part.objects.filter(line=line, run=run, part=part).first()
    if found is None:
        raise Http404
    return found
