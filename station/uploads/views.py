"""The upload pages. People send pictures here and see the verdicts.

This module also makes the page about the API, from the OpenAPI description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from station.accounts.access import right_required
from station.configuration import current_settings
from station.uploads.api import api
from station.uploads.models import Upload, uploads_visible_to
from station.uploads.submission import UploadRefusedError, check_rate, check_size, submit, upload_slot
from station.uploads.upload_status import UploadStatus, read_status

_SHOWN_UPLOADS = 50
_MAX_POLLED_UPLOADS = 2 * _SHOWN_UPLOADS


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("upload")
def uploads(request: HttpRequest) -> HttpResponse:
    """Shows the upload form and the latest uploads, and accepts pictures.

    The page's script sends one picture at a time, and gets a new row for the page's table. Without scripts, the form sends all pictures at
    once.
    """
    if request.method != "POST":
        return _render_uploads(request)
    files = request.FILES.getlist("picture")
    if request.headers.get("X-Requested-With") == "castline":
        return _accept_from_script(request, files[0] if files else None)
    if not files:
        messages.error(request, "Choose at least one picture.")
    for file in files:
        try:
            _submit_file(request, file)
        except UploadRefusedError as error:
            messages.error(request, f"{file.name}: {error}")
    return redirect("uploads")


def _render_uploads(request: HttpRequest) -> HttpResponse:
    settings = current_settings()
    latest = uploads_visible_to(request.user).filter(owner_id=request.user.pk).order_by("-id")[:_SHOWN_UPLOADS]
    content = {
        "statuses": [read_status(upload) for upload in latest],
        "max_bytes": settings.pictures.max_bytes,
        "max_files": settings.station.upload_files,
    }
    return render(request, "station/uploads/uploads.html", content)


def _accept_from_script(request: HttpRequest, file: UploadedFile[bytes] | None) -> HttpResponse:
    try:
        if file is None:
            raise UploadRefusedError(422, "No picture was sent. Choose a picture and send it again.")
        return render(request, "station/uploads/_row.html", {"status": read_status(_submit_file(request, file))}, status=201)
    except UploadRefusedError as error:
        content = {"name": (file.name if file else None) or "", "error": error}
        response = render(request, "station/uploads/_refused.html", content, status=error.status)
        if error.retry_after_s:
            response["Retry-After"] = str(round(error.retry_after_s))
        return response


def _submit_file(request: HttpRequest, file: UploadedFile[bytes]) -> Upload:
    assert isinstance(request.user, User)
    check_size(file.size or 0)
    check_rate(request.user)
    with upload_slot(request.user):
        return submit(request.user, file.name or "", file.read())


@require_safe
@right_required("upload")
def rows(request: HttpRequest) -> HttpResponse:
    """Returns the table rows of uploads whose state has changed.

    The URL lists each upload and the state that the page shows for this upload, for example `?open=12.waiting,13.judged`.
    """
    states = dict(_parse_number_and_state(text) for text in request.GET.get("open", "").split(",")[:_MAX_POLLED_UPLOADS])
    changed = []
    for upload in uploads_visible_to(request.user).filter(pk__in=[number for number in states if number]):
        status = read_status(upload)
        # Only changed rows are sent. The row of a slow upload always changes, because it shows the waiting time.
        if status.state != states[upload.pk] or status.is_slow or not status.is_pending:
            changed.append(status)
    return render(request, "station/uploads/_rows.html", {"statuses": changed})


def _parse_number_and_state(text: str) -> tuple[int, str]:
    number, _, state = text.partition(".")
    return (int(number) if number.isdecimal() and len(number) < 19 else 0), state


@require_safe
@right_required("upload")
def upload(request: HttpRequest, number: int) -> HttpResponse:
    """Shows the page of one upload. A request of the page's script gets only the section that can change."""
    template = "station/uploads/_result.html" if request.headers.get("HX-Request") else "station/uploads/upload.html"
    return render(request, template, {"status": _find_status(request, number)})


def _find_status(request: HttpRequest, number: int) -> UploadStatus:
    try:
        found = uploads_visible_to(request.user).filter(pk=number).first()
    except OverflowError:  # The database stores no number of more than 64 bits, so there is no upload with this number.
        found = None
    if found is None:
        raise Http404
    return read_status(found)


@dataclass(frozen=True)
class ApiField:
    """A row in a table of the API page: a field of an answer, or a parameter of a request."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class ApiOperation:
    """An operation of the API, for the API page. `answers` holds pairs of an HTTP status and its meaning."""

    method: str
    path: str
    title: str
    description: str
    parameters: list[ApiField]
    answers: list[tuple[str, str]]


_STATUS_MEANINGS = {
    "200": "the inspection with its verdict",
    "202": "the inspection, which has no verdict yet",
    "401": "the token is missing or invalid",
    "403": "the account is not allowed to upload pictures",
    "404": "the account has sent no picture with this part id",
    "413": "the picture has too many bytes or too many pixels",
    "415": "the body is not a picture that can be judged",
    "422": "the picture is damaged, or a parameter is wrong",
    "429": "too many pictures or bytes; the header Retry-After says how many seconds to wait",
    "503": "Kafka or the picture store does not answer, or the station is busy; the header Retry-After says how many seconds to wait",
}


@require_safe
@right_required("look")
def api_page(request: HttpRequest) -> HttpResponse:
    """Shows the operations of the API and the fields of its answers."""
    schema = api.get_openapi_schema(path_prefix="/api/")
    fields = schema["components"]["schemas"]["Inspection"]["properties"]
    content = {
        "description": schema["info"]["description"],
        "operations": [
            _describe_operation(method, path, operation)
            for path, methods in schema["paths"].items()
            for method, operation in methods.items()
        ],
        "fields": [ApiField(name, _describe_type(field), _plain_text(field.get("description", ""))) for name, field in fields.items()],
        "address": request.build_absolute_uri("/api/inspections"),
        "max_bytes": current_settings().pictures.max_bytes,
        "per_minute": current_settings().station.uploads_per_minute,
    }
    return render(request, "station/uploads/api.html", content)


def _describe_operation(method: str, path: str, operation: dict[str, Any]) -> ApiOperation:
    parameters = [
        ApiField(parameter["name"], _describe_type(parameter["schema"]), _plain_text(parameter["schema"].get("description", "")))
        for parameter in operation.get("parameters", [])
    ]
    answers = [(str(code), _STATUS_MEANINGS.get(str(code), "")) for code in sorted(operation["responses"])]
    return ApiOperation(method.upper(), path, operation["summary"], _plain_text(operation.get("description", "")), parameters, answers)


def _plain_text(markdown: str) -> str:
    """Removes the backticks from a text of the OpenAPI description, because the page does not render Markdown."""
    return markdown.replace("`", "")


def _describe_type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_describe_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    return str(schema.get("format") or schema.get("type") or "any")
