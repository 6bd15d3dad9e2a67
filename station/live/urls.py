"""Addresses of station.live."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def not_built(request: HttpRequest, **_: object) -> HttpResponse:
    """Stands where a page will be."""
    return HttpResponse("not built yet", status=501)


urlpatterns = [
    path("", not_built, name="wall"),
    path("lines/<str:line>/", not_built, name="line"),
    path("parts/<str:line>/<int:run>/<int:part>/picture", not_built, name="part-picture"),
    path("parts/<str:line>/<int:run>/<int:part>/heat-map", not_built, name="part-heat-map"),
]
