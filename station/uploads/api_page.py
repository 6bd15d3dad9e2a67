"""The API for people to read: made from its own OpenAPI description, so that it cannot say anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from station.accounts.access import right_required
from station.configuration import castline
from station.uploads.api import api


@dataclass(frozen=True)
class Row:
    """A field or a parameter."""

    name: str
    kind: str
    words: str


@dataclass(frozen=True)
class Call:
    """One operation."""

    method: str
    path: str
    title: str
    words: str
    parameters: list[Row]
    answers: list[tuple[str, str]]


@require_safe
@right_required("look")
def page(request: HttpRequest) -> HttpResponse:
    """What can be called, and what comes back."""
    schema = api.get_openapi_schema(path_prefix="/api/")
    kinds = schema["components"]["schemas"]
    calls = [_call(method, path, told) for path, methods in schema["paths"].items() for method, told in methods.items()]
    return render(
        request,
        "station/uploads/api.html",
        {
            "words": schema["info"]["description"],
            "calls": calls,
            "fields": [Row(name, _kind(field), field.get("description", "")) for name, field in kinds["Inspection"]["properties"].items()],
            "address": request.build_absolute_uri("/api/inspections"),
            "max_bytes": castline().pictures.max_bytes,
            "per_minute": castline().station.uploads_per_minute,
        },
    )


_MEANING = {
    "200": "the verdict",
    "202": "taken, no verdict yet",
    "401": "no token, or a wrong one",
    "403": "the account may not upload",
    "404": "no such inspection of yours",
    "413": "too many bytes or pixels",
    "415": "no picture",
    "422": "a damaged picture or a wrong parameter",
    "429": "too many pictures in a minute; Retry-After says when",
    "503": "Kafka or the store is away, or the station busy; Retry-After says when",
}


def _call(method: str, path: str, told: dict[str, Any]) -> Call:
    parameters = [Row(one["name"], _kind(one["schema"]), one["schema"].get("description", "")) for one in told.get("parameters", [])]
    answers = [(str(code), _MEANING.get(str(code), "")) for code in sorted(told["responses"])]
    return Call(method.upper(), path, told["summary"], told.get("description", ""), parameters, answers)


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    return str(schema.get("format") or schema.get("type") or "any")
