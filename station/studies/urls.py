"""URL patterns of the pages of agreement studies."""

from __future__ import annotations

from django.urls import path

from station.studies import views

urlpatterns = [
    path("studies/", views.show_studies, name="studies"),
    path("studies/<str:name>/", views.show_study, name="study"),
    path("studies/<str:name>/answer", views.answer, name="study-answer"),
    path("studies/<str:name>/picture", views.send_picture, name="study-picture"),
    path("studies/<str:name>/take-back", views.take_back, name="study-take-back"),
    path("studies/<str:name>/close", views.close, name="study-close"),
]
