"""Addresses of all pages. Each folder names its own, counted from the root."""

from __future__ import annotations

from django.urls import include, path

_FOLDERS = ("live", "uploads", "versions", "history", "reviews", "reports", "accounts")

urlpatterns = [path("", include(f"station.{folder}.urls")) for folder in _FOLDERS]
