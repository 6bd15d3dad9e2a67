"""The HTTP API: a program sends a picture and gets its verdict. The OpenAPI description is at /api/openapi.json."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Annotated, Any, Literal

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from ninja import NinjaAPI, Query, Schema
from ninja.errors import AuthenticationError, Throttled, ValidationError
from ninja.security import HttpBearer
from ninja.throttling import BaseThrottle
from pydantic import Field

from station.account_limits import AccountCounter
from station.accounts.access import get_rights
from station.accounts.models import ApiToken
from station.configuration import current_settings
from station.live.live_consumer import get_live_consumer
from station.uploads.models import Upload, uploads_visible_to
from station.uploads.submission import UploadRefusedError, check_size, describe_rate_limit, get_rate_limiter, submit, upload_slot
from station.uploads.upload_status import UploadStatus, read_status
from streams.errors import IdentityError
from streams.identity import PartId
from streams.records import Box

_POLL_EVERY_S = 0.05
# Longest wait for the finding (boxes and heat map) after the verdict. The finding usually follows within two seconds.
_FINDING_TIMEOUT_S = 2.0
_FORM_OVERHEAD_BYTES = 2**16
# At most this many requests of an account wait for a verdict at the same time.
_MAX_ACCOUNT_WAITS = 16
_waiting_requests = AccountCounter()


class Problem(Schema):
    """The reason why a request was refused."""

    error: str = Field(description="The reason in words that can be shown to a person.")


class SuspiciousRegions(Schema):
    """The regions of a picture that look defective."""

    method: str = Field(
        description="How the regions were found: `grad-cam`, `residual`, `segmentation` or `detail-template`. "
        "Two names are joined with `+`."
    )
    boxes: list[Box] = Field(
        description="The suspicious regions, the most suspicious first. All numbers are pixels of the picture after its EXIF rotation."
    )
    heat_map: str | None = Field(description="Address of the heat map, which is a PNG file. A logged-in person can open it in a browser.")


class Inspection(Schema):
    """A picture that was sent for inspection, with its verdict if there is one."""

    part: str = Field(description="The part id that the station gave to the picture: `<line>:<run>:<part>`.")
    status: str = Field(description="Address of this inspection in the API. A GET request to this address returns the verdict.")
    page: str = Field(description="Address of the page that shows the result to people.")
    state: Literal["waiting", "judged", "explained"] = Field(
        description="`waiting`: no verdict yet. `judged`: there is a verdict. `explained`: there are also boxes and a heat map."
    )
    sha256: str = Field(description="SHA-256 of the picture as it was received.")
    label: Literal["ok", "defect", "review"] | None = Field(None, description="The verdict, or null as long as there is none.")
    defect_probability: float | None = Field(
        None, description="Calibrated probability of a defect, 0..1, or null if the picture could not be judged."
    )
    votes: dict[str, float] = Field({}, description="The defect probability (0..1) that each network of the ensemble gave.")
    threshold: float | None = Field(
        None, description="Lowest defect_probability that counts as a defect. Close to the threshold, the label can be `review`."
    )
    model: str | None = Field(None, description="Version of the model that judged the picture.")
    reason: str = Field("", description="Reason for the label `review`, such as `doubt`. Empty for the labels `ok` and `defect`.")
    decided_at: datetime | None = Field(None, description="Time of the verdict.")
    finding: SuspiciousRegions | None = Field(
        None,
        description="The regions that look defective. They come a few seconds after a verdict `defect` or `review`. Until then, this field "
        "is null.",
    )


class TokenAuthentication(HttpBearer):
    """Finds the account to which the API token of a request belongs.

    Raises UploadRefusedError (403) if the account is not allowed to upload pictures, or if a token for reading verdicts is used to send a
    picture.
    """

    async def authenticate(self, request: HttpRequest, token: str) -> User | None:
        return await sync_to_async(self._find_uploader)(token.strip(), request.method in ("GET", "HEAD"))

    @staticmethod
    def _find_uploader(token: str, is_safe: bool) -> User | None:
        found = ApiToken.find(token)
        if found is None:
            return None
        if "upload" not in get_rights(found.user):
            text = "This account is not allowed to upload pictures. Ask an administrator for a role that is allowed to."
            raise UploadRefusedError(403, text)
        if found.scope == "read" and not is_safe:
            raise UploadRefusedError(403, "This token may only read verdicts. Make a token that may send pictures.")
        return found.user


class UploadThrottle(BaseThrottle):
    """Limits how many pictures an account can send in a minute, from the upload page and the API together.

    Django Ninja's own SimpleRateThrottle is not used, because it is not thread-safe.
    """

    _wait_s = 0.0

    def allow_request(self, request: HttpRequest) -> bool:
        user: User = request.auth  # type: ignore[attr-defined]
        self._wait_s = get_rate_limiter().acquire(user.pk)
        return self._wait_s == 0

    def wait(self) -> float:
        return round(max(1, self._wait_s))


REFUSALS = {401: Problem, 403: Problem, 413: Problem, 415: Problem, 422: Problem, 429: Problem, 503: Problem}
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "description": "The picture itself (JPEG, PNG, BMP or TIFF), or a form with one file.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["picture"], "properties": {"picture": {"type": "string", "format": "binary"}}}
            },
        },
    }
}

api = NinjaAPI(
    title="Castline inspections",
    version="1",
    description="With this API, a program can send a picture of a casting's surface and get the verdict of the plant's model.",
    docs_url=None,
    auth=TokenAuthentication(),
    urls_namespace="api",
)
Wait = Annotated[float, Query(0, ge=0, le=30, description="Longest time that the request waits for the verdict, in seconds.")]


@api.post(
    "/inspections",
    response={200: Inspection, 202: Inspection, **REFUSALS},
    openapi_extra=_REQUEST_BODY,
    summary="Inspect a picture",
    throttle=UploadThrottle(),
)
async def inspect(request: HttpRequest, wait: Wait = 0) -> tuple[int, dict[str, Any]]:
    """Accepts a picture and waits for its verdict, at most `wait` seconds.

    Answers 200 with the verdict, or 202 if there is no verdict yet. After 202, send GET requests to the address in the field `status`.
    """
    deadline = time.monotonic() + wait
    upload = await sync_to_async(_submit_picture)(request)
    return await _wait_for_verdict(request, upload, deadline)


@api.get(
    "/inspections/{part}",
    response={200: Inspection, 202: Inspection, 401: Problem, 403: Problem, 404: Problem},
    summary="Get an inspection",
    url_name="inspection",
)
async def inspection(request: HttpRequest, part: str, wait: Wait = 0) -> tuple[int, dict[str, Any]]:
    """Answers 200 with the verdict, or 202 if there is no verdict yet. Answers 404 for a picture of another account."""
    deadline = time.monotonic() + wait
    upload = await sync_to_async(_find_upload)(request, part)
    return await _wait_for_verdict(request, upload, deadline)


async def _wait_for_verdict(request: HttpRequest, upload: Upload, deadline: float) -> tuple[int, dict[str, Any]]:
    """Waits for the verdict until `deadline`. Returns the HTTP status and the body of the answer.

    If too many other requests of the account are waiting, answers without waiting.
    """
    part = upload.part_id
    consumer = await sync_to_async(get_live_consumer)()
    with _waiting_requests.counted(upload.owner_id, _MAX_ACCOUNT_WAITS) as may_wait:
        while may_wait and time.monotonic() < deadline:
            recent = consumer.find_part(part)
            if recent is not None and recent.verdict is not None:
                deadline = min(deadline, time.monotonic() + _FINDING_TIMEOUT_S)
                if recent.finding is not None or recent.verdict.label == "ok":
                    break
            await asyncio.sleep(_POLL_EVERY_S)
    status = await sync_to_async(read_status)(upload)
    return (200 if status.verdict else 202), _to_json(request, status)


def _submit_picture(request: HttpRequest) -> Upload:
    user: User = request.auth  # type: ignore[attr-defined]
    max_bytes = current_settings().pictures.max_bytes
    is_form = request.content_type == "multipart/form-data"
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > max_bytes + (_FORM_OVERHEAD_BYTES if is_form else 0):
        check_size(int(announced))
    with upload_slot(user):
        if not is_form:
            return submit(user, request.headers.get("X-File-Name", "picture"), request.read(max_bytes + 1), by_api=True)
        files = [file for name in request.FILES for file in request.FILES.getlist(name)]
        if len(files) != 1:
            raise UploadRefusedError(422, f"The form holds {len(files)} files. Send exactly one picture.")
        check_size(files[0].size or 0)
        return submit(user, files[0].name or "", files[0].read(), by_api=True)


def _find_upload(request: HttpRequest, text: str) -> Upload:
    user: User = request.auth  # type: ignore[attr-defined]
    upload = None
    try:
        part = PartId.parse(text)
        if part.line == current_settings().station.upload_line:
            upload = uploads_visible_to(user).filter(pk=part.part, run=part.run).first()
    except (IdentityError, OverflowError):
        pass
    if upload is None:
        raise UploadRefusedError(404, "This account has sent no picture with this part id.")
    return upload


def _to_json(request: HttpRequest, status: UploadStatus) -> dict[str, Any]:
    part, verdict = status.part, status.verdict
    body: dict[str, Any] = {
        "part": str(part),
        "status": request.build_absolute_uri(reverse("api:inspection", args=[str(part)])),
        "page": request.build_absolute_uri(reverse("upload", args=[status.upload.pk])),
        "state": status.state,
        "sha256": status.upload.sha256,
    }
    if verdict is None:
        return body
    heat_map = request.build_absolute_uri(reverse("part-heat-map", args=[part.line, part.run, part.part])) if verdict.heat_map else None
    finding = {"method": verdict.method, "boxes": verdict.boxes, "heat_map": heat_map} if verdict.method else None
    copied = ("label", "defect_probability", "votes", "threshold", "model", "reason", "decided_at")
    return body | {name: getattr(verdict, name) for name in copied} | {"finding": finding}


@api.exception_handler(UploadRefusedError)
def _answer_refusal(request: HttpRequest, error: UploadRefusedError) -> HttpResponse:
    response = JsonResponse({"error": str(error)}, status=error.status)
    if error.retry_after_s:
        response["Retry-After"] = str(round(error.retry_after_s))
    return response


@api.exception_handler(Throttled)
def _answer_throttled(request: HttpRequest, error: Throttled) -> HttpResponse:
    return JsonResponse({"error": describe_rate_limit(error.wait or 1)}, status=429)


@api.exception_handler(AuthenticationError)
def _answer_unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    text = "The token is missing or invalid. Make a token on the account page and send it as: Authorization: Bearer TOKEN"
    response = JsonResponse({"error": text}, status=401)
    response["WWW-Authenticate"] = 'Bearer realm="castline"'
    return response


@api.exception_handler(ValidationError)
def _answer_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0]
    name = str(first["loc"][-1]) if first.get("loc") else "request"
    return JsonResponse({"error": f"{name}: {first['msg']}"}, status=422)
