"""Addresses of station.history."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def not_built(request: HttpRequest, **_: object) -> HttpResponse:
    """Stands where a page will be."""
    return HttpResponse("not built yet", status=501)


urlpatterns = [
    path("history/", not_built, name="history"),
    path("parts/<str:line>/<int:run>/<int:part>/", not_built, name="part"),
]
