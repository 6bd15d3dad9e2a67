"""Addresses of station.uploads."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def not_built(request: HttpRequest, **_: object) -> HttpResponse:
    """Stands where a page will be."""
    return HttpResponse("not built yet", status=501)


urlpatterns = [
    path("uploads/", not_built, name="uploads"),
]
