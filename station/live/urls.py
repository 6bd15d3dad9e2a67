"""Addresses of station.live."""

from __future__ import annotations

from django.urls import path

from station.live import views

urlpatterns = [
    path("", views.wall, name="wall"),
    path("lines/<str:line>/", views.line, name="line"),
    path("live/events", views.live_events, name="live-events"),
    path("parts/<str:line>/<int:run>/<int:part>/picture", views.part_picture, name="part-picture"),
    path("parts/<str:line>/<int:run>/<int:part>/heat-map", views.part_heat_map, name="part-heat-map"),
]
