"""Addresses of station.reviews."""

from __future__ import annotations

from django.urls import path

from station.reviews import pages, views

urlpatterns = [
    path("reviews/", views.bench, name="reviews"),
    path("reviews/undo/", views.take_back, name="review-undo"),
    path("reviews/agreement/", pages.agreement, name="agreement"),
    path("reviews/data-sets/", pages.data_sets, name="data-sets"),
    path("reviews/data-sets/<str:name>.zip", pages.data_set, name="data-set"),
    path("reviews/<str:line>/<int:run>/<int:part>/", views.one, name="review-part"),
]
