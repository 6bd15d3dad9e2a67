"""Addresses of station.versions."""

from __future__ import annotations

from django.urls import path

from station.versions import views

urlpatterns = [
    path("models/", views.versions, name="versions"),
    path("models/lines", views.lines, name="version-lines"),
    path("models/change", views.change, name="version-change"),
    path("models/version/<str:version>/", views.version, name="version"),
    path("models/version/<str:version>/<str:name>", views.curve, name="version-curve"),
]
