"""URL patterns of the live pages."""

from __future__ import annotations

from django.urls import path

from station.live import views

urlpatterns = [
    path("", views.wall, name="wall"),
    path("lines/<str:line>/", views.line, name="line"),
    path("live/events", views.live_events, name="live-events"),
]
