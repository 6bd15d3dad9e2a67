"""URL pattern of the page of line settings."""

from __future__ import annotations

from django.urls import path

from station.line_settings import views

urlpatterns = [path("lines/<str:line>/settings/", views.change_settings, name="line-settings")]
