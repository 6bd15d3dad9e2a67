"""The pages of the history: the filtered list, its exports, the page of one part, and the part's picture and heat map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from models.pictures.display import EncodedPicture
from station.account_limits import download
from station.accounts.access import get_rights, right_required
from station.accounts.models import AuditEntry
from station.archive.models import Part
from station.configuration import PICTURE_POLICY, current_settings
from station.history.export import export_csv, export_parquet, stream_file
from station.history.filters import ACTIONS, FIELD_LABELS, LABELS, PartFilters, read_filters
from station.history.nearest_pictures import find_nearest_pictures
from station.history.pagination import COUNT_LIMIT, SEARCH_LIMIT, HistoryKey, count_parts, load_page
from station.history.part_page import explain_verdict, make_overlay, make_records, make_remarks, make_timeline, picture_size_px
from station.kafka_producer import KafkaUnavailableError
from station.live.line_state import LivePart
from station.live.live_consumer import get_live_consumer
from station.manifests import describe_training_pictures, find_manifest, find_training_index
from station.pictures.part_picture_reader import describe_refusal, get_picture_reader
from station.uploads.models import Upload, may_see_part
from streams.errors import ModelError, PictureError
from streams.identity import PartId

_MAX_INTEGER = 2**63 - 1
_CACHE_S = 3600
_MAX_AUDITED_FILTERS = 1000
_THUMBNAIL_SIDES_PX = (160, 240, 480)


@require_safe
@right_required("look")
def history(request: HttpRequest) -> HttpResponse:
    """Shows one page of parts. The query of the URL contains the filters.

    The parameter `before` is the key of a part, and asks for older parts. The parameter `after` asks for newer parts. Without them, the
    page shows the newest parts.
    """
    filters = _read_filters(request)
    before, after, key_errors = _read_keys(request)
    page = load_page(filters, before, after)
    count, has_more = count_parts(filters) if before is None and after is None else (None, False)
    context = {
        "filters": filters,
        "texts": {name: filters.format_value(name) or request.GET.get(name, "")[:150] for name in FIELD_LABELS},
        "errors": [*filters.describe_errors(), *key_errors],
        "page": page,
        "count": count,
        "has_more": has_more,
        "count_limit": COUNT_LIMIT,
        "older": _make_url(filters, before=page.older),
        "newer": _make_url(filters, after=page.newer),
        "newest": _make_url(filters) if before or after else "",
        "search_limit": SEARCH_LIMIT,
        "lines": [line.name for line in current_settings().lines if line.name != filters.excluded_line],
        "labels": LABELS,
        "actions": ACTIONS,
        "kinds": current_settings().review.kinds,
        "zone": current_settings().station.time_zone,
    }
    return render(request, "station/history/history.html", context)


def _read_filters(request: HttpRequest) -> PartFilters:
    """Returns the filters in the URL's query. Adds a filter that hides uploaded pictures, unless the person is an administrator."""
    is_administrator = "administer" in get_rights(request.user)
    return replace(read_filters(request.GET.dict()), excluded_line="" if is_administrator else current_settings().station.upload_line)


def _read_keys(request: HttpRequest) -> tuple[HistoryKey | None, HistoryKey | None, list[str]]:
    """Returns the keys `before` and `after` in the URL's query, and a sentence for each invalid key. If both are set, ignores `after`."""
    keys: dict[str, HistoryKey] = {}
    errors = []
    for name in ("before", "after"):
        if text := request.GET.get(name, ""):
            try:
                keys[name] = HistoryKey.parse(text)
            except ValueError:
                errors.append("This page of the history does not exist, so the newest parts are shown.")
    before = keys.get("before")
    return before, None if before else keys.get("after"), errors


def _make_url(filters: PartFilters, **keys: HistoryKey | None) -> str:
    query = [filters.query] if filters.query else []
    for name, key in keys.items():
        if key is None:
            return ""
        query.append(f"{name}={str(key).replace('+', '%2B')}")
    return reverse("history") + ("?" + "&".join(query) if query else "")


@download
@require_safe
@right_required("look")
def download_csv(request: HttpRequest) -> HttpResponseBase:
    """Returns a CSV file of all parts that match the filters in the URL."""
    return _download(request, export_csv, "text/csv; charset=utf-8", "csv")


@download
@require_safe
@right_required("look")
def download_parquet(request: HttpRequest) -> HttpResponseBase:
    """Returns a Parquet file of all parts that match the filters in the URL."""
    return _download(request, export_parquet, "application/vnd.apache.parquet", "parquet")


def _download(request: HttpRequest, export: Callable[[PartFilters], Iterator[bytes]], content_type: str, suffix: str) -> HttpResponseBase:
    filters = _read_filters(request)
    if filters.errors:
        return HttpResponse("\n".join(filters.describe_errors()), status=400, content_type="text/plain; charset=utf-8")
    name = f"castline-history-{timezone.localtime():%Y-%m-%d-%H%M%S}.{suffix}"
    if request.method != "HEAD":
        AuditEntry.record(request.user, "exported the history", name, filters=request.GET.urlencode()[:_MAX_AUDITED_FILTERS])
    return stream_file(request, export(filters), content_type, name)


@require_safe
@right_required("look")
def part(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """Shows everything that the archive knows about one part."""
    row = get_visible_part(request, line, run, part)
    has_gate = any(settings.name == line and settings.gate is not None for settings in current_settings().lines)
    width_px, height_px = picture_size_px(row)
    boxes = make_overlay(row)
    context = {
        "part": row,
        "timeline": make_timeline(row),
        "remarks": make_remarks(row, has_gate),
        "records": make_records(row),
        "boxes": boxes,
        "has_sizes": any(box.size for box in boxes),
        # The template needs a list of pairs. In a template, `votes.items` of a dict would be the vote of a network with the name "items".
        "votes": list(row.votes.items()),
        "width_px": width_px,
        "height_px": height_px,
        "is_of_plant": line != current_settings().station.upload_line and line in {one.name for one in current_settings().lines},
        "training_note": describe_training_pictures(row.model),
        "explanation": explain_verdict(row, find_manifest(row.model)),
        "decisions": row.decisions.select_related("reviewer").order_by("at", "pk"),
        "zone": current_settings().station.time_zone,
    }
    return render(request, "station/history/part.html", context)


@require_safe
@right_required("look")
def show_nearest_pictures(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """Shows the training pictures that look most like the part. The answer is a piece of HTML for the pages of parts and of reviews."""
    row = get_visible_part(request, line, run, part)
    nearest = find_nearest_pictures(row, find_manifest(row.model), request.user.pk)
    return render(request, "station/history/_nearest.html", {"part": row, "nearest": nearest})


@require_safe
@right_required("look")
def training_picture(request: HttpRequest, version: str, number: int) -> HttpResponse:
    """Sends the small copy of a training picture. `number` is the place of the picture in the version's training index, from 0."""
    manifest = find_manifest(version)
    try:
        pictures = find_training_index(manifest).pictures if manifest else ()
    except ModelError as error:
        raise Http404(str(error)) from error
    if number >= len(pictures):
        raise Http404
    return _send_picture(EncodedPicture(pictures[number].thumbnail, "image/jpeg"))


def get_visible_part(request: HttpRequest, line: str, run: int, part: int) -> Part:
    """Returns the part's row in the archive. Raises Http404 if the part does not exist or the person is not allowed to see it."""
    if max(run, part) > _MAX_INTEGER or not may_see_part(request.user, line, run, part):
        raise Http404
    row = Part.objects.filter(line=line, run=run, part=part).first()
    if row is None:
        raise Http404
    return row


@require_safe
@right_required("look")
def part_picture(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """Sends the picture of a part. With `?side=` 160, 240 or 480, the picture is at most that many pixels wide and high."""
    location = _locate_picture(request, line, run, part)
    side = request.GET.get("side", "")
    side_px = next((allowed_px for allowed_px in _THUMBNAIL_SIDES_PX if str(allowed_px) == side), None)
    try:
        picture = get_picture_reader().read_for_browser(location, side_px, request.user.pk)
    except (PictureError, KafkaUnavailableError) as error:
        return _refuse_picture(error)
    return _no_picture() if picture is None else _send_picture(picture)


@require_safe
@right_required("look")
def part_heat_map(request: HttpRequest, line: str, run: int, part: int) -> HttpResponse:
    """Sends the heat map of a part, an overlay that shows where the model found the part suspicious."""
    location = _locate_picture(request, line, run, part)
    if not location.heat_map:
        return _no_picture()
    try:
        return _send_picture(get_picture_reader().read_heat_map(location.heat_map, request.user.pk))
    except (PictureError, KafkaUnavailableError) as error:
        return _refuse_picture(error)


def _locate_picture(request: HttpRequest, line: str, run: int, part: int) -> Part | LivePart | Upload:
    if not may_see_part(request.user, line, run, part):
        raise Http404
    try:
        archived = Part.objects.filter(line=line, run=run, part=part).first()
    except OverflowError:
        # The URL contains a number that is too large for the database, so there is no such part.
        raise Http404 from None
    live = get_live_consumer().find_part(PartId(line, run, part))
    # If the archivist has not stored all records of a new part yet, use what the live consumer has read from Kafka.
    is_archive_complete = (
        archived is not None and (archived.image_topic or archived.picture) and (archived.heat_map or not (live and live.heat_map))
    )
    location: Part | LivePart | Upload | None = archived if is_archive_complete else (live or archived)
    if (location is None or not (location.image_topic or location.picture)) and line == current_settings().station.upload_line:
        location = Upload.objects.filter(pk=part, run=run).first()
    if location is None:
        raise Http404
    return location


def _send_picture(picture: EncodedPicture) -> HttpResponse:
    response = HttpResponse(picture.value, content_type=picture.content_type)
    response["Cache-Control"] = f"private, max-age={_CACHE_S}, immutable"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = PICTURE_POLICY
    return response


def _refuse_picture(error: PictureError | KafkaUnavailableError) -> HttpResponse:
    status, headers = describe_refusal(error)
    return HttpResponse(str(error), status=status, headers=headers, content_type="text/plain; charset=utf-8")


def _no_picture() -> HttpResponse:
    return HttpResponse("There is no picture of this part any more.", status=404, content_type="text/plain; charset=utf-8")
