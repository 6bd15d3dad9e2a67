"""The API: a program sends a picture and gets its verdict. Described by /api/openapi.json, for people by /api/."""

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
from ninja.errors import AuthenticationError, ValidationError
from ninja.security import HttpBearer
from pydantic import Field

from station.accounts.access import get_rights
from station.accounts.models import ApiToken
from station.configuration import castline
from station.live.watching import watch
from station.uploads.answers import Answer, answer
from station.uploads.models import Upload
from station.uploads.ownership import own
from station.uploads.taking import Refused, doors, let_in, part_of, take, too_large
from streams.errors import IdentityError
from streams.identity import PartId
from streams.records import Box

_ASK_S = 0.05
# A finding follows its verdict within so long; who waits for the one waits for the other.
_FINDING_S = 2.0


class Problem(Schema):
    """Why a request was refused."""

    error: str = Field(description="In words, fit for a person.")


class Found(Schema):
    """Where a picture is suspicious."""

    method: str = Field(description="`grad-cam` or `residual`.")
    boxes: list[Box] = Field(description="Most suspicious first; pixels of the picture after EXIF rotation.")
    heat_map: str | None = Field(description="Address of the heat map, a PNG; for a logged-in browser.")


class Inspection(Schema):
    """A picture sent for inspection, and what is known of it."""

    part: str = Field(description="The part that it is judged as, `<line>:<run>:<part>`.")
    status: str = Field(description="Address to ask again at.")
    page: str = Field(description="Address of the result for people.")
    state: Literal["waiting", "judged", "explained"] = Field(description="`explained`: the finding is there too.")
    sha256: str = Field(description="Of the picture as it was received.")
    label: Literal["ok", "defect", "review"] | None = Field(None, description="The verdict; null while it waits.")
    defect_probability: float | None = Field(None, description="Calibrated, 0..1; null where the picture could not be judged.")
    votes: dict[str, float] = Field({}, description="Defect probability by network.")
    threshold: float | None = Field(None, description="Least defect_probability that is called a defect.")
    model: str | None = Field(None, description="Version of the model that judged.")
    reason: str = Field("", description="Why `review`, in a word.")
    decided_at: datetime | None = Field(None, description="When the verdict was decided.")
    finding: Found | None = Field(None, description="Where it is suspicious; of `defect` and `review` only, moments after the verdict.")


class Token(HttpBearer):
    """A token that an account has made for itself under Account."""

    async def authenticate(self, request: HttpRequest, token: str) -> User | None:
        return await sync_to_async(ApiToken.find_owner)(token.strip())


REFUSALS = {401: Problem, 403: Problem, 413: Problem, 415: Problem, 422: Problem, 429: Problem, 503: Problem}
_BODY = {
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
    description="Send a picture of a casting's surface to the inspectors that judge the lines, and get the verdict.",
    docs_url=None,
    auth=Token(),
    urls_namespace="api",
)
Wait = Annotated[float, Query(0, ge=0, le=30, description="Seconds to wait for the verdict before answering.")]


@api.post("/inspections", response={200: Inspection, 202: Inspection, **REFUSALS}, openapi_extra=_BODY, summary="Inspect a picture")
async def inspect(request: HttpRequest, wait: Wait = 0) -> tuple[int, dict[str, Any]]:
    """Takes a picture. 200 with the verdict where it came within `wait`; else 202: it is safe, ask again at `status`."""
    until = time.monotonic() + wait
    upload = await sync_to_async(_take)(request)
    return await _told(request, upload, until)


@api.get(
    "/inspections/{part}",
    response={200: Inspection, 202: Inspection, 401: Problem, 403: Problem, 404: Problem},
    summary="What became of a picture",
    url_name="inspection",
)
async def inspection(request: HttpRequest, part: str, wait: Wait = 0) -> tuple[int, dict[str, Any]]:
    """200 with the verdict; 202 while there is none. Pictures of others are not found."""
    until = time.monotonic() + wait
    upload = await sync_to_async(_find)(request, part)
    return await _told(request, upload, until)


async def _told(request: HttpRequest, upload: Upload, until: float) -> tuple[int, dict[str, Any]]:
    """Waits in the event loop, so that no thread is held."""
    part = part_of(upload)
    heard = await sync_to_async(watch)()
    while time.monotonic() < until:
        seen = heard.part(part)
        if seen is not None and seen.verdict is not None:
            until = min(until, time.monotonic() + _FINDING_S)
            if seen.finding is not None or seen.verdict.label == "ok":
                break
        await asyncio.sleep(_ASK_S)
    found = await sync_to_async(answer)(upload)
    return (200 if found.judgement else 202), _plain(request, found)


def _take(request: HttpRequest) -> Upload:
    user = _allowed(request)
    most = castline().pictures.max_bytes
    multipart = request.content_type == "multipart/form-data"
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > most + (2**16 if multipart else 0):
        raise too_large(int(announced))
    let_in(user)
    with doors.enter() as room:
        if not room:
            raise Refused(503, "The station is busy with other pictures. Try again in a moment.", 1)
        if not multipart:
            value = request.read(most + 1)
            return take(user, request.headers.get("X-File-Name", "picture"), value, by_api=True)
        files = [file for name in request.FILES for file in request.FILES.getlist(name)]
        if len(files) != 1:
            raise Refused(422, f"Expected one picture in the form, found {len(files)}.")
        if (files[0].size or 0) > most:
            raise too_large(files[0].size or 0)
        return take(user, files[0].name or "", files[0].read(), by_api=True)


def _find(request: HttpRequest, part: str) -> Upload:
    user = _allowed(request)
    try:
        wanted = PartId.parse(part)
        found = own(user).filter(pk=wanted.part, run=wanted.run).first() if wanted.line == castline().station.upload_line else None
    except (IdentityError, OverflowError):
        found = None
    if found is None:
        raise Refused(404, "There is no such inspection of yours.")
    return found


def _allowed(request: HttpRequest) -> User:
    user: User = request.auth  # type: ignore[attr-defined]  # set by the authentication
    if "upload" not in get_rights(user):
        raise Refused(403, "This account is not allowed to upload pictures. An administrator can give it the role.")
    return user


def _plain(request: HttpRequest, found: Answer) -> dict[str, Any]:
    part, judgement = found.part, found.judgement
    plain: dict[str, Any] = {
        "part": str(part),
        "status": request.build_absolute_uri(reverse("api:inspection", args=[str(part)])),
        "page": request.build_absolute_uri(reverse("upload", args=[found.upload.pk])),
        "state": found.state,
        "sha256": found.upload.sha256,
    }
    if judgement is None:
        return plain
    address = request.build_absolute_uri(reverse("part-heat-map", args=[part.line, part.run, part.part])) if judgement.heat_map else None
    finding = {"method": judgement.method, "boxes": judgement.boxes, "heat_map": address} if judgement.method else None
    told = ("label", "defect_probability", "votes", "threshold", "model", "reason", "decided_at")
    return plain | {name: getattr(judgement, name) for name in told} | {"finding": finding}


@api.exception_handler(Refused)
def _refused(request: HttpRequest, error: Refused) -> HttpResponse:
    response = JsonResponse({"error": str(error)}, status=error.status)
    if error.again_s:
        response["Retry-After"] = str(round(error.again_s))
    return response


@api.exception_handler(AuthenticationError)
def _stranger(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    response = JsonResponse({"error": "Expected the header Authorization: Bearer with a token of an account."}, status=401)
    response["WWW-Authenticate"] = 'Bearer realm="castline"'
    return response


@api.exception_handler(ValidationError)
def _wrong(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0]
    name = str(first["loc"][-1]) if first.get("loc") else "request"
    return JsonResponse({"error": f"{name}: {first['msg']}"}, status=422)
