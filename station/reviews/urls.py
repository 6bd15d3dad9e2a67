"""Addresses of station.reviews."""

from __future__ import annotations

from django.urls import path

from station.reviews import views
from station.reviews.pages import agreement, data_set, data_sets

urlpatterns = [
    path("reviews/", views.bench, name="reviews"),
    path("reviews/undo/", views.take_back, name="review-undo"),
    path("reviews/agreement/", agreement, name="agreement"),
    path("reviews/data-sets/", data_sets, name="data-sets"),
    path("reviews/data-sets/<str:name>.zip", data_set, name="data-set"),
    path("reviews/<str:line>/<int:run>/<int:part>/", views.one, name="review-part"),
]
