"""URL patterns of all pages, collected from the folders of the station."""

from __future__ import annotations

from django.urls import include, path

_FOLDERS = (
    "live",
    "line_settings",
    "line_commands",
    "uploads",
    "versions",
    "history",
    "reviews",
    "studies",
    "golden_parts",
    "reports",
    "accounts",
)

urlpatterns = [path("", include(f"station.{folder}.urls")) for folder in _FOLDERS]
