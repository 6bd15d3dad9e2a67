"""Addresses of station.history."""

from __future__ import annotations

from django.urls import path

from station.history import views

urlpatterns = [
    path("history/", views.history, name="history"),
    path("history/export.csv", views.export_csv, name="history-csv"),
    path("history/export.parquet", views.export_parquet, name="history-parquet"),
    path("parts/<str:line>/<int:run>/<int:part>/", views.part, name="part"),
]
