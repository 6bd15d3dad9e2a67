"""URL patterns of the review pages."""

from __future__ import annotations

from django.urls import path

from station.reviews import views

urlpatterns = [
    path("reviews/", views.next_part, name="reviews"),
    path("reviews/undo/", views.undo, name="review-undo"),
    path("reviews/agreement/", views.agreement, name="agreement"),
    path("reviews/data-sets/", views.data_sets, name="data-sets"),
    path("reviews/data-sets/<str:name>.zip", views.data_set, name="data-set"),
    path("reviews/<str:line>/<int:run>/<int:part>/", views.review_part, name="review-part"),
]
