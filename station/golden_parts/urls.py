"""URL pattern of the page of golden parts."""

from __future__ import annotations

from django.urls import path

from station.golden_parts import views

urlpatterns = [path("lines/<str:line>/golden-parts/", views.golden_parts, name="golden-parts")]
