"""Addresses of station.accounts."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def not_built(request: HttpRequest, **_: object) -> HttpResponse:
    """Stands where a page will be."""
    return HttpResponse("not built yet", status=501)


urlpatterns = [
    path("account/", not_built, name="account"),
    path("log-in/", not_built, name="log-in"),
    path("log-out/", not_built, name="log-out"),
    path("account/password/", not_built, name="password"),
    path("accounts/", not_built, name="accounts"),
    path("audit/", not_built, name="audit-log"),
]
