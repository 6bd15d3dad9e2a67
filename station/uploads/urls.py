"""Addresses of station.uploads."""

from __future__ import annotations

from django.urls import path

from station.uploads import views
from station.uploads.api import api
from station.uploads.api_page import page

urlpatterns = [
    path("uploads/", views.uploads, name="uploads"),
    path("uploads/rows", views.rows, name="upload-rows"),
    path("uploads/<int:number>/", views.upload, name="upload"),
    path("api/", page, name="api-page"),
    path("api/", api.urls),
]
