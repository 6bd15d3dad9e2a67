"""Upload pages: send pictures, see each one's answer come, and find it again under a permanent address."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from station.accounts.access import right_required
from station.configuration import castline
from station.uploads.answers import Answer, answer
from station.uploads.models import Upload
from station.uploads.ownership import own
from station.uploads.taking import Refused, doors, let_in, take, too_large

_SHOWN = 50


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("upload")
def uploads(request: HttpRequest) -> HttpResponse:
    """The drop zone and the last uploads; takes pictures from a form, or one at a time from the page's script."""
    if request.method != "POST":
        settings = castline()
        return render(
            request,
            "station/uploads/uploads.html",
            {
                "answers": [answer(upload) for upload in own(request.user).filter(owner_id=request.user.pk).order_by("-id")[:_SHOWN]],
                "max_bytes": settings.pictures.max_bytes,
                "max_files": settings.station.upload_files,
            },
        )
    files = request.FILES.getlist("picture")
    one = request.headers.get("X-Requested-With") == "castline"
    if not files:
        return _row_refused(request, "", Refused(422, "No picture was sent.")) if one else _nothing(request)
    if one:
        try:
            return render(request, "station/uploads/_row.html", {"answer": answer(_take(request, files[0]))}, status=201)
        except Refused as refused:
            return _row_refused(request, files[0].name or "", refused)
    for file in files:
        try:
            _take(request, file)
        except Refused as refused:
            messages.error(request, f"{file.name}: {refused}")
    return redirect("uploads")


@require_safe
@right_required("upload")
def rows(request: HttpRequest) -> HttpResponse:
    """The rows of `?open=12.waiting,13.judged` that have changed since."""
    changed = []
    known = dict(_number_and_state(one) for one in request.GET.get("open", "").split(",")[: 2 * _SHOWN])
    for upload in own(request.user).filter(pk__in=[number for number in known if number]):
        now = answer(upload)
        # A row that waits is renewed while it waits long, so that it says so.
        if now.state != known[upload.pk] or now.slow or not now.open:
            changed.append(now)
    return render(request, "station/uploads/_rows.html", {"answers": changed})


@require_safe
@right_required("upload")
def upload(request: HttpRequest, number: int) -> HttpResponse:
    """The permanent page of one upload; with `HX-Request` only what may change on it."""
    found = _answer(request, number)
    template = "station/uploads/_result.html" if request.headers.get("HX-Request") else "station/uploads/upload.html"
    return render(request, template, {"answer": found})


def _answer(request: HttpRequest, number: int) -> Answer:
    try:
        found = own(request.user).filter(pk=number).first()
    except OverflowError:  # a number that no database holds
        found = None
    if found is None:
        raise Http404
    return answer(found)


def _take(request: HttpRequest, file: UploadedFile[bytes]) -> Upload:
    assert isinstance(request.user, User)
    if (file.size or 0) > castline().pictures.max_bytes:
        raise too_large(file.size or 0)  # without reading it
    let_in(request.user)
    with doors.enter() as room:
        if not room:
            raise Refused(503, "The station is busy with other pictures. Try again in a moment.", 1)
        return take(request.user, file.name or "", file.read())


def _row_refused(request: HttpRequest, name: str, refused: Refused) -> HttpResponse:
    response = render(request, "station/uploads/_refused.html", {"name": name, "why": str(refused)}, status=refused.status)
    if refused.again_s:
        response["Retry-After"] = str(round(refused.again_s))
    return response


def _nothing(request: HttpRequest) -> HttpResponse:
    messages.error(request, "Choose at least one picture.")
    return redirect("uploads")


def _number_and_state(text: str) -> tuple[int, str]:
    number, _, state = text.partition(".")
    return (int(number) if number.isdecimal() and len(number) < 19 else 0), state
