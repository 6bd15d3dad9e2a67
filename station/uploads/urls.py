"""URL patterns of the upload pages and of the API."""

from __future__ import annotations

from django.urls import path

from station.uploads import views
from station.uploads.api import api

urlpatterns = [
    path("uploads/", views.uploads, name="uploads"),
    path("uploads/rows", views.rows, name="upload-rows"),
    path("uploads/<int:number>/", views.upload, name="upload"),
    path("api/", views.api_page, name="api-page"),
    path("api/", api.urls),
]
