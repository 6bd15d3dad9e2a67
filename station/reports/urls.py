"""URL pattern of the reports."""

from __future__ import annotations

from django.urls import path

from station.reports import views

urlpatterns = [
    path("reports/", views.report, name="reports"),
]
