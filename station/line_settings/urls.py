"""URL patterns of the page of line settings."""

from __future__ import annotations

from django.urls import path

from station.line_settings import views

urlpatterns = [
    path("lines/<str:line>/settings/", views.change_settings, name="line-settings"),
    path("lines/<str:line>/settings/share-estimate", views.show_share_estimate, name="share-estimate"),
]
